"""Metrics of an evaluation beside top-1, top-5 and cross-entropy: one file each, counts that add up and their value.

`raytricks.parts.metrics` has their rows; `metrics: [NAME]` in a config measures them.
"""
