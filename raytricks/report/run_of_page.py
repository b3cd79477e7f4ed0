"""What a page or a card of a run is filled from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raytricks.inference.evaluation import Evaluation


@dataclass(frozen=True)
class RunOfPage:
    """A run, finished or not.

    Attributes:
        settings: dotted keys of its resolved config.
        facts: of run.json.
        records: of metrics.jsonl.
        evaluation: of its last weights; None: it keeps no answers.
        absence: why `evaluation` or the images are not there; empty: all is.
        thumbnails: number of an evaluation image -> it as a data: URL, as the model saw it.
    """

    run_dir: Path
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    records: list[dict[str, Any]]
    evaluation: Evaluation | None = None
    absence: str = ""
    thumbnails: Mapping[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Short name, for legends."""
        return self.run_dir.name

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The records of its epochs."""
        return [record for record in self.records if record["kind"] == "epoch"]
