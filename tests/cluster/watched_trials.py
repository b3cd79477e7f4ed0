"""Trial classes that keep the weights that they hand out and take over, for a test to compare."""

from pathlib import Path
import time

import torch

from raytricks.training.checkpoint import newest_checkpoint
from raytricks.tuning.trial_files import epoch_records, read_state

_TOGETHER_WITHIN_S = 60


def watched(trial_class, folder: Path, num_together: int = 1):
    """Return a trial class that keeps the weights it exports, and those it starts from after it took others over.

    Args:
        num_together: none goes beyond its first epoch before so many have made theirs; on a fast machine one would
            be finished before the workers of another have started.
    """

    class Watched(trial_class):
        def step(self):
            result = super().step()
            (folder / f"began-{self._number}").touch()
            give_up_at = time.monotonic() + _TOGETHER_WITHIN_S
            while len(list(folder.glob("began-*"))) < num_together and time.monotonic() < give_up_at:
                time.sleep(0.1)
            return result

        def save_checkpoint(self, checkpoint_dir: str):
            saved = super().save_checkpoint(checkpoint_dir)
            found = newest_checkpoint(Path(checkpoint_dir) / "checkpoints")
            assert found is not None
            torch.save(found.content["model"], folder / f"exported-{self._number}-{found.step}.pt")
            return saved

        def load_checkpoint(self, checkpoint: str) -> None:
            super().load_checkpoint(checkpoint)
            trial_dir = self._task.trials_dir / f"{self._number:03d}"
            state, found = read_state(trial_dir), newest_checkpoint(trial_dir / "checkpoints")
            assert state is not None and found is not None
            if state.lineage and state.lineage[-1].epoch == len(epoch_records(trial_dir)):
                donor = state.lineage[-1].donor
                torch.save(found.content["model"], folder / f"loaded-{self._number}-{donor}-{found.step}.pt")

    return Watched


def adopted_pairs(folder: Path) -> list[tuple[dict, dict]]:
    """Return the weights of each exploit, as its donor exported and its recipient loaded them."""
    pairs = []
    for path in sorted(folder.glob("loaded-*.pt")):
        _, _, donor, step = path.stem.split("-")
        pairs.append((torch.load(folder / f"exported-{donor}-{step}.pt"), torch.load(path)))
    return pairs


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
