"""Weights & Biases: what metrics.jsonl is given, to a project. wandb is imported when a run begins."""

from collections.abc import Mapping
from importlib import import_module
import os
from pathlib import Path
import secrets

from raytricks.config import ExperimentConfig
from raytricks.parts.hooks import Hooks
from raytricks.trackers.tracked_run import keep_id, known_id, tracked_name


class WandbTracker:
    """Sends to Weights & Biases through its own process; WANDB_MODE=offline keeps all in RUN/wandb.

    Args:
        project: of the run.

    Raises:
        RuntimeError: there is no API key; wandb would ask for one and wait.
    """

    name = "wandb"

    def __init__(self, project: str, run_dir: Path, config: ExperimentConfig) -> None:
        if os.environ.get("WANDB_MODE") == "offline":  # its process, of which there is one, logs in the cache
            os.environ.setdefault("WANDB_CACHE_DIR", str(run_dir.absolute() / "wandb" / "cache"))
        wandb = import_module("wandb")
        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False):
            raise RuntimeError("no API key; set WANDB_API_KEY, or WANDB_MODE=offline")
        run_id = known_id(run_dir, self.name, project)
        if run_id is None:
            run_id = secrets.token_hex(8)
            keep_id(run_dir, self.name, project, run_id)
        name, study = tracked_name(run_dir)
        self._run = wandb.init(
            project=project,
            name=name,
            group=study,
            id=run_id,
            resume="allow",
            reinit="create_new",  # neither a run of the caller's nor of another trial in this process
            dir=str(run_dir.absolute()),
            config=config.model_dump(mode="json"),
            settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True, init_timeout=30),
        )
        self._run.define_metric("*", step_metric="step")  # wandb's own step never goes back

    def log(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one record."""
        self._run.log({f"{kind}/{name}": value for name, value in values.items()} | {"step": step})

    def close(self, ok: bool) -> None:
        """Send what is left and say how the run ended."""
        self._run.finish(exit_code=0 if ok else 255)  # 255: wandb's own for a run that was stopped


def _track(run_dir: Path, config: ExperimentConfig, settings: str) -> WandbTracker:
    return WandbTracker(settings, run_dir, config)


HOOKS = Hooks(track=_track)
