"""The metrics: one row each. `metrics` lists those that an evaluation measures beside top-1 and cross-entropy."""

from raytricks.parts.part import Part

ROWS: tuple[Part, ...] = (
    Part(
        kind="metric",
        name="balanced_accuracy",
        title="balanced accuracy",
        source="Brodersen et al. 2010",
        formula="mean over the classes that have images of right answers / images",
        gain="a measurement",
        measured="-",
        code="raytricks.metrics.balanced_accuracy:HOOKS",
        does="measurement",
    ),
)
