"""How a run is carried out: workers, devices, checkpoints, logs. Nothing here changes the recipe."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from raytricks.parts.part import PositiveFloat, PositiveInt, Section

_MOST_WORKERS = 4096


def _number_or_range(value: object) -> object:
    """Say in one line what pydantic says once for each type of a union."""

    def is_number(item: object, least: int) -> bool:
        return isinstance(item, int) and not isinstance(item, bool) and least <= item <= _MOST_WORKERS

    if is_number(value, 0):
        return value
    if isinstance(value, list | tuple) and len(value) == 2 and all(is_number(item, 1) for item in value):
        if value[0] <= value[1]:
            return tuple(value)
        raise ValueError(f"must be [fewest, most] with fewest <= most; write [{value[1]}, {value[0]}]")
    raise ValueError(f"must be a whole number from 0 to {_MOST_WORKERS}, or [fewest, most] such as [1, 8]")


_Some = Annotated[int, Field(ge=1, le=_MOST_WORKERS)]
NumWorkers = Annotated[
    Annotated[int, Field(ge=0, le=_MOST_WORKERS)] | tuple[_Some, _Some], BeforeValidator(_number_or_range)
]


class HardwareConfig(Section):
    """How the recipe is carried out. Changing any of it does not change the recipe."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Autocast type; weights stay fp32. auto: bf16 or fp16 on a GPU, the faster of bf16 and fp32
    on a CPU."""
    channels_last: bool = True
    images_per_device: PositiveInt | Literal["auto"] | None = "auto"
    """Largest micro-batch; more images per worker are accumulated. auto: no limit at first (on a CPU, what its
    free memory holds), halved each time the device is out of memory. None: no limit. Batch norm (not group)
    takes its statistics from a micro-batch, so its results depend on the size, those of model.norm=group do not."""
    cpus_per_worker: PositiveInt | None = None
    """Threads of a worker. None: the machine's cores shared evenly."""
    max_restarts: Annotated[int, Field(ge=0)] = 3
    """How often a run on Ray may lose a worker and go on from its newest checkpoint. A node that is taken
    away with notice does not count; a failure that comes again at the same step ends the run at once."""
    start_timeout_s: PositiveFloat = 60.0
    """Seconds that Ray waits for workers to start before it tries again, perhaps with fewer: after a node
    is lost Ray may count on it for that long. Longer than the slowest node takes to import torch."""
    wait_s: Annotated[float, Field(ge=0)] = 600.0
    """Seconds to wait until a cluster has room for the workers: others may use it, and its nodes may be on their way.
    A Ray that is started on this machine never grows, and what it lacks is refused at once."""
    resize_every_s: PositiveFloat = 60.0
    """With a range of workers: seconds between two looks for room for more of them."""

    @field_validator("images_per_device", mode="before")
    @classmethod
    def _number_auto_or_none(cls, value: object) -> object:  # one line, where pydantic has one for each type
        is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not is_number and value is not None and value != "auto":
            raise ValueError("must be a whole number >= 1, auto or null")
        return value

    @property
    def fixed_limit(self) -> int | None:
        """The largest micro-batch that is fixed; None where there is no limit, or it is found as the run goes."""
        return None if self.images_per_device == "auto" else self.images_per_device


class CheckpointConfig(Section):
    """When the state is saved, and how much of it is kept."""

    every_steps: PositiveInt | None = None
    """Also save every N optimizer steps. None: at the end of each epoch only."""
    keep: PositiveInt = 2
    """Newest checkpoints kept."""
