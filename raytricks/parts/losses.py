"""The losses: one row each. `loss.name` chooses what each image's logits are held against its targets with."""

from raytricks.parts.part import Part

ROWS: tuple[Part, ...] = (
    Part(
        kind="loss",
        name="cross_entropy",
        title="cross-entropy",
        source="2.1",
        formula="-sum_k q_k log softmax(z)_k",
        code="raytricks.training.loss:CROSS_ENTROPY",
    ),
)
