"""The losses: settings and one row each. `loss.name` chooses what logits are held against their targets with."""

from raytricks.parts.part import Fraction, Part, Section


class BinaryCrossEntropyConfig(Section):
    """Binary cross-entropy (Wightman et al. 2021)."""

    threshold: Fraction | None = None
    """Targets above it count as 1, others as 0 (Wightman: 0.2 with mixup). None: targets as they are."""


ROWS: tuple[Part, ...] = (
    Part(
        kind="loss",
        name="cross_entropy",
        title="cross-entropy",
        source="2.1",
        formula="-sum_k q_k log softmax(z)_k",
        code="raytricks.training.loss:CROSS_ENTROPY",
    ),
    Part(
        kind="loss",
        name="binary_cross_entropy",
        title="binary cross-entropy",
        source="Wightman et al. 2021",
        formula="-mean_k [q_k log s_k + (1 - q_k) log(1 - s_k)], s = sigmoid(z), q smoothed and blended",
        code="raytricks.tricks.binary_cross_entropy:HOOKS",
        settings=BinaryCrossEntropyConfig,
        on={"name": "binary_cross_entropy"},
        off={"name": "cross_entropy"},
        has_own_row=True,
        changeable=("threshold",),
    ),
)
