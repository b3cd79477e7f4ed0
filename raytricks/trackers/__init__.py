"""The code of the trackers: each file holds one, and what they share. Their rows are in raytricks.parts.trackers."""
