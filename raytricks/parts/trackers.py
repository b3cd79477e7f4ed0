"""The trackers: settings and one row each. Each is a key of `logging`, which says where the numbers go; null: off."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from raytricks.parts.part import Part, Setting

_CREDENTIALS = re.compile(r"^(?!sqlite|file:)[^:]+:.*@|[?&](user|password|passwd|token|secret|\w*key)=", re.IGNORECASE)


def _without_credentials(uri: str | None) -> str | None:
    if uri is not None and _CREDENTIALS.search(uri):  # the message must not repeat it
        raise ValueError(
            "must be a tracking URI without credentials, which would be saved with the run; set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or what else the store reads"
        )
    return uri


ROWS: tuple[Part, ...] = (
    Part(
        kind="tracker",
        name="mlflow",
        title="MLflow",
        source="mlflow.org",
        formula="what metrics.jsonl is given, to a server or a local store",
        measured="-",
        code="raytricks.trackers.mlflow:HOOKS",
        settings=Setting(
            annotation=Annotated[str | None, AfterValidator(_without_credentials)],
            default=None,
            doc="Tracking URI, such as http://host:5000, sqlite:////data/mlflow.db or file:/data/mlruns, without "
            "credentials. None: off.",
        ),
        off={"": None},
        on={"": "file:mlruns"},
        has_own_row=True,
        does="measurement",
        extra="mlflow",
        secrets=("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    ),
    Part(
        kind="tracker",
        name="wandb",
        title="Weights & Biases",
        source="wandb.ai",
        formula="what metrics.jsonl is given, to a project",
        measured="-",
        code="raytricks.trackers.wandb:HOOKS",
        settings=Setting(
            annotation=Annotated[str | None, Field(pattern=r"^[^/\\#?%:]{1,128}$")],
            default=None,
            doc="Project in Weights & Biases. None: off. WANDB_MODE and WANDB_API_KEY are wandb's own.",
        ),
        off={"": None},
        on={"": "raytricks"},
        has_own_row=True,
        does="measurement",
        extra="wandb",
        secrets=("WANDB_API_KEY",),
    ),
)
