"""What a page or a card of a run is filled from."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
        label: what tells it from the others of a page; empty: its directory's name does.
    """

    run_dir: Path
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    records: list[dict[str, Any]]
    evaluation: Evaluation | None = None
    absence: str = ""
    thumbnails: Mapping[int, str] = field(default_factory=dict)
    label: str = ""

    @property
    def name(self) -> str:
        """Short name, for legends."""
        return self.label or self.run_dir.resolve().name

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The records of its epochs."""
        return [record for record in self.records if record["kind"] == "epoch"]

    @property
    def version(self) -> str:
        """Of the raytricks that trained it last; empty where it is not known."""
        launches = self.facts.get("launches") or [{}]
        return str(launches[-1].get("versions", {}).get("raytricks", ""))

    @property
    def started_at(self) -> str:
        """Day and minute of its first launch; empty where it is not known."""
        launches = self.facts.get("launches") or [{}]
        return str(launches[0].get("started_at", ""))[:16].replace("T", " ")


def told_apart(runs: Sequence[RunOfPage]) -> list[RunOfPage]:
    """Return runs with labels that differ: as much of the path's end as it takes, a number for the same directory."""
    places = [run.run_dir.resolve().parts for run in runs]
    labels = [run.name for run in runs]
    for depth in range(2, max(map(len, places), default=0) + 1):
        shared = {label for label, count in Counter(labels).items() if count > 1}
        labels = ["/".join(place[-depth:]) if label in shared else label
                  for place, label in zip(places, labels, strict=True)]  # fmt: skip
    seen: Counter[str] = Counter()
    told = []
    for run, label in zip(runs, labels, strict=True):
        seen[label] += 1
        told.append(replace(run, label=label if seen[label] == 1 else f"{label} ({seen[label]})"))
    return told
