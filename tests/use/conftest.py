"""What the tests of using a model share."""

from use_photos import photos, run_dir  # noqa: F401
