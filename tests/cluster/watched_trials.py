"""Trial classes that keep the weights that they hand out and take over, for a test to compare."""

from pathlib import Path

import torch

from raytricks.training.checkpoint import newest_checkpoint
from raytricks.tuning.trial_files import epoch_records, read_state


def watched(trial_class, folder: Path):
    """Return a trial class that keeps the weights it exports, and those it starts from after it took others over."""

    class Watched(trial_class):
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
