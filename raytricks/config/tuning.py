"""The `tune` section: what a search varies, how trials are chosen, stopped and compared."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raytricks.config.search_space import RANGES, Distribution, Grid
from raytricks.parts.part import PositiveFloat, PositiveInt, Section


class TuneConfig(Section):
    """The search that `raytricks tune` makes. Training does not read it."""

    space: dict[str, Distribution] = {}
    """Config key -> how its values are drawn: a list, or {kind: ...} with uniform {low, high},
    loguniform {low, high}, quniform {low, high, q}, randint {low, high} (both included), choice
    {values} or grid {values}. `also: [0]` beside a range draws single values outside it too."""
    num_trials: PositiveInt = 16
    """Trials, of which the first is the config as it is. sampler grid: not used, the grid decides."""
    sampler: Literal["random", "grid", "optuna"] = "random"
    """grid: every combination once. optuna: learns from the trials so far (`raytricks[optuna]`)."""
    scheduler: Literal["none", "asha", "hyperband", "pbt"] = "asha"
    """Which trials train on. asha, hyperband: the better ones at each rung. pbt: the worse ones
    take over the weights of better ones, with settings close to theirs."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Part of the training images held out, stratified, on which trials are ranked, when the config
    holds none out itself."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """asha, hyperband: of that many trials at a rung one goes on."""
    grace_epochs: PositiveInt | None = None
    """asha, hyperband: the first rung. None: the first epoch after the warmup, at least a ninth of
    all epochs."""
    perturb_every_epochs: PositiveInt | None = None
    """pbt. None: a tenth of the epochs, at least 1."""
    concurrent_trials: PositiveInt | None = None
    """Trials at a time. None: as many as the cluster holds."""
    retrain_seeds: Annotated[int, Field(ge=0)] = 3
    """The default and the winner are trained again with that many fresh seeds. 0: no certificate."""
    budget_minutes: PositiveFloat | None = None
    """No new trial starts after it. None: no limit."""

    @model_validator(mode="after")
    def _sampler_and_scheduler_suit_the_space(self) -> "TuneConfig":
        kinds = {f"tune.space.{key}": distribution for key, distribution in self.space.items()}
        ranges = [key for key, kind in kinds.items() if isinstance(kind, RANGES)]
        if self.sampler == "grid" and ranges:
            raise ValueError(
                f"sampler grid tries every value, {', '.join(ranges)} {_is_or_are(ranges)} a range; list values "
                "instead or set sampler=random"
            )
        if self.scheduler != "pbt":
            return self
        if self.sampler == "grid":
            raise ValueError(
                "scheduler pbt changes settings while trials train, sampler grid keeps them; set scheduler=asha or "
                "sampler=random"
            )
        if grids := [key for key, kind in kinds.items() if isinstance(kind, Grid)]:
            raise ValueError(
                f"scheduler pbt changes settings while trials train, {', '.join(grids)} {_is_or_are(grids)} a grid; "
                "say choice or set scheduler=asha"
            )
        return self


def _is_or_are(keys: list[str]) -> str:
    return "is" if len(keys) == 1 else "are each"
