"""The optimizers: settings and one row each. `optimizer.name` chooses; its settings stand beside it.

`weight_decay` belongs to the section itself, since the parameter groups are made before the optimizer.
"""

from typing import Annotated, TypeVar

from pydantic import Field, model_validator

from raytricks.parts.part import Fraction, Part, PositiveFloat, Section, Usual

Chosen = TypeVar("Chosen", bound=Section)
Momentum = Annotated[float, Field(ge=0, lt=1)]


class SgdConfig(Section):
    """Stochastic gradient descent with momentum (He et al. 2018, section 2.1)."""

    momentum: Momentum = 0.9
    nesterov: bool = True

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SgdConfig":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0, got momentum 0; set nesterov=false")
        return self


class LarsConfig(SgdConfig):
    """Layer-wise adaptive rate scaling (You et al. 2017), for global batches beyond 8k; base_lr about 5."""

    trust_coefficient: PositiveFloat = 0.001
    """The part of its norm by which a step of lr 1 moves a layer, before momentum."""

    @model_validator(mode="after")
    def _something_decays(self) -> "LarsConfig":
        return _require_decay(self)


class LambConfig(Section):
    """Layer-wise Adam (You et al. 2020), for global batches beyond 8k; base_lr about 0.02."""

    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the averages of gradient and squared gradient."""
    epsilon: PositiveFloat = 1e-6
    """Added to the root of the squared average."""

    @model_validator(mode="after")
    def _something_decays(self) -> "LambConfig":
        return _require_decay(self)


class AdamwConfig(Section):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), for transformers and ConvNeXts; base_lr 0.001."""

    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the averages of gradient and squared gradient."""
    epsilon: PositiveFloat = 1e-8
    """Added to the root of the squared average."""


class MuonConfig(Section):
    """Orthogonalised momentum (Jordan et al. 2024), for training from scratch; base_lr about 0.02."""

    momentum: Momentum = 0.95
    nesterov: bool = True


def _require_decay(config: Chosen) -> Chosen:
    """Refuse to scale the layers that decay where none does; the decay is a setting of the whole section."""
    if getattr(config, "weight_decay", None) == 0:
        name: str = getattr(config, "name", "it")
        raise ValueError(
            f"{name} scales the layers that decay, got weight_decay 0, which leaves none; set weight_decay > 0 "
            "or name=sgd"
        )
    return config


ROWS: tuple[Part, ...] = (
    Part(
        kind="optimizer",
        name="sgd",
        title="SGD",
        source="2.1",
        formula="v = m v + g + wd w; w -= lr (g + wd w + m v) with Nesterov",
        code="raytricks.tricks.sgd:HOOKS",
        settings=SgdConfig,
        changeable=("momentum",),
        usual={"optimizer.weight_decay": Usual(1e-5, 1e-3, 1e-4)},
    ),
    Part(
        kind="optimizer",
        name="lars",
        title="LARS",
        source="You et al. 2017",
        formula="v = m v + r (g + wd w), r = trust * norm(w) / (norm(g) + wd norm(w)) of each layer; w -= lr v",
        gain="batches beyond 8k",
        measured="digits: 98.9% like SGD, at base_lr 5",
        code="raytricks.tricks.lars:HOOKS",
        settings=LarsConfig,
        on={"name": "lars"},
        off={"name": "sgd"},
        has_own_row=True,
        changeable=("momentum", "trust_coefficient"),
        # for this trust coefficient. Digits: 30% at 0.1, 98.9% at 5, 18% at 160; You et al.: 6.4 at 8k to 30 at 32k
        usual={"optimizer.weight_decay": Usual(1e-5, 1e-3, 1e-4), "peak_lr": Usual(0.5, 40.0, 5.0)},
        rules=("lars_small_batch", "layerwise_lr"),
    ),
    Part(
        kind="optimizer",
        name="lamb",
        title="LAMB",
        source="You et al. 2020",
        formula="Adam's step plus wd w, scaled by norm(w) / norm(step) of each layer",
        gain="batches beyond 8k",
        code="raytricks.tricks.lamb:HOOKS",
        settings=LambConfig,
        on={"name": "lamb"},
        off={"name": "sgd"},
        has_own_row=True,
        changeable=("betas", "epsilon"),
        # it divides the gradient by its size and the decay not, so the decay is another
        usual={"optimizer.weight_decay": Usual(1e-3, 1e-1, 0.01), "peak_lr": Usual(0.001, 0.1, 0.01)},
        rules=("lars_small_batch", "layerwise_lr"),
    ),
    Part(
        kind="optimizer",
        name="adamw",
        title="AdamW",
        source="Loshchilov & Hutter 2019",
        formula="w -= lr (m' / (sqrt(v') + eps) + wd w), m' and v' the averages of g and g^2 without their bias",
        code="raytricks.tricks.adamw:HOOKS",
        settings=AdamwConfig,
        on={"name": "adamw"},
        off={"name": "sgd"},
        has_own_row=True,
        changeable=("betas", "epsilon"),
        usual={"optimizer.weight_decay": Usual(1e-4, 0.3, 0.05), "peak_lr": Usual(1e-5, 0.01, 0.001)},
        rules=("layerwise_lr",),
    ),
    Part(
        kind="optimizer",
        name="muon",
        title="Muon",
        source="Jordan et al. 2024",
        formula="v = m v + (1-m) g; w -= lr (sqrt(max(1, rows/columns)) orthogonal(v) + wd w); vectors: momentum",
        gain="harms the tuning of weights that Adam has trained",
        code="raytricks.tricks.muon:HOOKS",
        settings=MuonConfig,
        on={"name": "muon"},
        off={"name": "sgd"},
        has_own_row=True,
        changeable=("momentum",),
        usual={"optimizer.weight_decay": Usual(1e-4, 0.3, 0.01), "peak_lr": Usual(0.001, 0.3, 0.02)},
        rules=("layerwise_lr",),
    ),
)
