"""The places where a part's code is called, in the order in which a run comes to them.

    once a run     problems      what cannot work together, before anything starts
                   build         the one optimizer, model or data source that the config names
                   model         the fresh network: zero gamma, synchronised batch norm
                   groups        the optimizer's parameter groups: no bias decay, lr by layer
                   reduction     how gradients are summed over the workers: compression
                   state         what the part carries from step to step, saved with every checkpoint
    an epoch       before_epoch
    a step         lr_factor     multiplied together: scaling, warmup, decay
                   blend         two images and their targets: mixup, CutMix; one of those that are on, by chance
    a micro-batch  pixels        uint8 or float images, 0..255, before normalisation
                   inputs        normalised images
                   targets       (n, K) probabilities: smoothing
                   loss          the one loss that the config names: (n,)
                   losses        added to or changed: distillation
                   measure       figures for the log
    a step         gradients     true gradients of the whole batch: clipping
                   after_step    the weights have moved: averaging
    an epoch       before_evaluation, weights, counts, value, record

A function names the arguments that it wants, among those that its slot offers; so a slot may offer more one day.
`settings` is the part's section, or its value where it has only one. Nothing but the draws and generators that are
handed over may be random, and nothing may be changed in place but where a slot says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
import inspect
from typing import Any

OFFERED: Mapping[str, tuple[str, ...]] = {
    "problems": ("settings", "channels", "num_workers", "device_type", "precision", "forward_passes"),
    "build": ("settings", "groups", "lr", "num_classes", "in_channels", "image_size", "config"),
    "names": (),
    "knows": ("name",),
    "alike": ("name",),
    "published": ("name",),
    "changed": ("optimizer",),
    "holds": ("path",),
    "model": ("model", "num_workers", "settings"),
    "groups": ("groups", "model", "settings"),
    "reduction": ("ddp_model", "settings"),
    "state": ("model", "run", "settings"),
    "before_epoch": ("state", "epoch"),
    "lr_factor": ("point", "settings"),
    "blend": ("rng", "side", "epochs_left", "settings"),
    "pixels": ("images", "draws", "settings"),
    "inputs": ("images", "draws", "settings"),
    "targets": ("targets", "settings"),
    "loss": ("logits", "targets", "settings"),
    "losses": ("losses", "logits", "inputs", "batch", "state", "settings"),
    "measure": ("losses", "parameters", "scaler", "step", "settings"),
    "step_totals": ("row",),
    "summary": ("totals", "global_batch_size"),
    "gradients": ("parameters", "norm", "settings"),
    "after_step": ("state", "step", "settings"),
    "before_evaluation": ("model", "settings"),
    "weights": ("state",),
    "counts": ("logits", "labels", "num_classes", "settings"),
    "value": ("counts", "settings"),
    "record": ("record", "run_dir", "settings"),
    "track": ("run_dir", "config", "settings"),
    "absolute": ("settings",),
}
"""Slot -> the names of the arguments that it offers."""


class HookError(TypeError):
    """A part's function does not fit its place.

    Attributes:
        function: the one that does not.
    """

    def __init__(self, message: str, function: object) -> None:
        super().__init__(message)
        self.function = function


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """The functions of a part, by slot; a slot that does not exist is a TypeError, and so is a wrong argument.

    Legend: n images of a micro-batch, K classes, C channels, S pixels.

    Attributes:
        num_draws: uniforms an image that `pixels` and `inputs` get, from a stream of the part's own.
        measured: names of the figures that `measure` returns.
        problems: -> iterable of lines, each a reason why this configuration cannot run. `forward_passes` are the
            numbers of them that each worker makes in a step.
        build: -> torch.optim.Optimizer (groups, lr), nn.Module (num_classes, ...) or the data's splits (config).
        names: of a library, the models that it has; empty where it is not installed.
        knows: whether a library has the model of this name, `LIBRARY:NAME`.
        alike: of a library, the names that look like this one, with or without its prefix; most likely first.
        published: of a library, -> raytricks.parts.hooks.Published; reads no weights and needs no network.
        changed: the optimizer's settings were just set or have changed.
        holds: whether a path or URL holds data of this kind, for `data.source: auto`; reads as little as it can.
        model: the fresh nn.Module -> the nn.Module to train; before weights to start from are loaded.
        groups: list of {"params", "weight_decay", ...} -> list; every trainable parameter stays in exactly one.
        reduction: registers a communication hook on the DistributedDataParallel, in place.
        state: -> any object. If it has state_dict and load_state_dict, checkpoints hold it: tensors, plain values.
            `run` is a raytricks.training.context.RunContext.
        before_epoch: counted from 0; -> a note for the user, or None. Collective.
        lr_factor: of a raytricks.recipe.recipe.LrPoint -> float; factors of all parts are multiplied.
        blend: numpy Generator of (seed, step, part) -> raytricks.recipe.blending.Blend, or None for this step.
        pixels: (n, C, S, S) uint8 or float32 in 0..255 and (n, num_draws) float64 in [0, 1) -> images.
        inputs: (n, C, S, S) float32, normalised -> the same shape.
        targets: (n, K) float32 rows that sum to 1 -> the same; before blending, which commutes with what is linear.
        loss: (n, K) logits and targets -> (n,), no mean.
        losses: (n,) -> (n,).
        measure: 0-dimensional figures of the first micro-batch -> (len(measured),) tensor; no waiting for the device.
        step_totals: a step's row of figures, on the host -> what it adds to the epoch's totals.
        summary: of the epoch's totals -> figures of the epoch's record.
        gradients: changes `.grad` in place, in true units; `norm` is the 2-norm of all, 0-dimensional.
        after_step: `step` counts from 1.
        before_evaluation: changes batch-norm statistics in place. Collective.
        weights: -> a second nn.Module, evaluated beside the model and saved as model_NAME.safetensors.
        counts: -> a tensor whose sum over all images and workers is what `value` needs.
        value: -> float, of the summed counts.
        record: gets each record that is written, on the first worker; reads only.
        track: begins or continues a run in a tracker, on the first worker -> raytricks.trackers.tracked_run.Tracker.
        absolute: the value of a tracker's setting -> one that means the same in any directory.
    """

    num_draws: int = 0
    measured: tuple[str, ...] = ()
    problems: Callable[..., Any] | None = None
    build: Callable[..., Any] | None = None
    names: Callable[..., Any] | None = None
    knows: Callable[..., bool] | None = None
    alike: Callable[..., Any] | None = None
    published: Callable[..., Any] | None = None
    changed: Callable[..., None] | None = None
    holds: Callable[..., bool] | None = None
    model: Callable[..., Any] | None = None
    groups: Callable[..., Any] | None = None
    reduction: Callable[..., None] | None = None
    state: Callable[..., Any] | None = None
    before_epoch: Callable[..., str | None] | None = None
    lr_factor: Callable[..., float] | None = None
    blend: Callable[..., Any] | None = None
    pixels: Callable[..., Any] | None = None
    inputs: Callable[..., Any] | None = None
    targets: Callable[..., Any] | None = None
    loss: Callable[..., Any] | None = None
    losses: Callable[..., Any] | None = None
    measure: Callable[..., Any] | None = None
    step_totals: Callable[..., Mapping[str, float]] | None = None
    summary: Callable[..., Mapping[str, float | None]] | None = None
    gradients: Callable[..., None] | None = None
    after_step: Callable[..., None] | None = None
    before_evaluation: Callable[..., None] | None = None
    weights: Callable[..., Any] | None = None
    counts: Callable[..., Any] | None = None
    value: Callable[..., float] | None = None
    record: Callable[..., None] | None = None
    track: Callable[..., Any] | None = None
    absolute: Callable[..., str] | None = None

    def __post_init__(self) -> None:
        for slot in OFFERED:
            function = getattr(self, slot)
            if function is not None:
                wanted_arguments(slot, function)

    @property
    def filled(self) -> tuple[str, ...]:
        """The slots that have a function."""
        return tuple(slot for slot in OFFERED if getattr(self, slot) is not None)


def wanted_arguments(slot: str, function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the arguments that a slot's function takes.

    Raises:
        HookError: it cannot be called, hides its arguments, or wants one that the slot does not offer.
    """
    offered = OFFERED[slot]
    if not callable(function):
        raise HookError(f"{slot} must be a function of ({', '.join(offered)}), got {type(function).__name__}", function)
    wanted: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            line = f"{stars}{name} hides typing mistakes; name what it takes of {slot} ({', '.join(offered)})"
            raise HookError(line, function)
        if name in offered:
            wanted.append(name)
        elif parameter.default is parameter.empty:
            raise HookError(f"{slot} takes ({', '.join(offered)}), got {name}", function)
    return tuple(wanted)


Tensor = Any
"""torch's, which is not imported here."""


@dataclass(frozen=True, kw_only=True)
class LrPoint:
    """A place on the curve of the learning rate.

    Attributes:
        step: number of the update on the curve, from 1.
        total_steps: of a run that has this batch from its start.
        warmup_steps: updates of the warmup, 0 without one.
        steps_per_epoch: whole global batches.
        global_batch_size: images per update, over all workers and accumulation steps.
    """

    step: int
    total_steps: int
    warmup_steps: int
    steps_per_epoch: int
    global_batch_size: int


@dataclass(frozen=True)
class Blend:
    """How a step blends each image with its left neighbour in the global batch.

    Attributes:
        mix_weight: weight of the image's own label, in [0, 1].
        apply: (N, C, H, W) images and their neighbours -> the blended images.
    """

    mix_weight: float
    apply: Callable[[Tensor, Tensor], Tensor]

    def targets(self, own: Tensor, neighbours: Tensor) -> Tensor:
        """Return what belongs to the images, blended like their labels."""
        return self.mix_weight * own + (1 - self.mix_weight) * neighbours


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a library publishes for one of its models.

    Attributes:
        load: of the side of square images, pixels -> state dict; downloads it once. None: there are no weights.
        address: where a person finds them.
        class_names: K names in the order of the logits, where the library says them.
        mean, std: of each RGB channel in 0..1, that the weights were trained with.
    """

    load: Callable[[int], Mapping[str, Tensor]] | None
    address: str = ""
    class_names: tuple[str, ...] | None = None
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
