"""The metrics: one row each. `metrics` lists those that an evaluation measures beside top-1 and cross-entropy."""

from raytricks.parts.part import Part

ROWS: tuple[Part, ...] = ()
