"""Places in a config: directories, URLs, and URLs that log in."""

import pytest

from raytricks.config import dump_yaml, load_config
from raytricks.data.storage import storage_at
from raytricks.errors import ConfigError, DataError
from raytricks.training.run_directory import with_absolute_paths

SECRET = "hunter2"


def test_places_that_are_urls_stay_urls_in_the_saved_config(tmp_path):
    given = {"data.path": "s3://bucket/packed", "model.init_from": "gs://bucket/model.safetensors"}
    saved = tmp_path / "config.yaml"
    saved.write_text(dump_yaml(with_absolute_paths(load_config(None, given).config)))
    again = with_absolute_paths(load_config(saved).config)
    assert again.data.path == given["data.path"] and again.model.init_from == given["model.init_from"]


@pytest.mark.parametrize("key", ["output_dir", "data.cache_dir", "tricks.distillation.cache_dir"])
def test_places_that_are_written_to_are_no_urls(key):
    with pytest.raises(ConfigError, match=rf"{key} must be a directory.*s3://bucket/runs.*mount it") as error:
        load_config(None, {key: "s3://bucket/runs", "data.source": "digits"})
    assert len(error.value.problems) == 1


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIA:{SECRET}@bucket/packed",
        f"https://host/packed?sig={SECRET}",
        f"s3://bucket/packed?region=x&secret_key={SECRET}",
        f"https://host/packed?X-Amz-Signature={SECRET}",
    ],
)
@pytest.mark.parametrize("key", ["data.path", "model.init_from", "tricks.distillation.teacher_weights"])
def test_places_that_log_in_are_refused_and_not_repeated(key, url):
    with pytest.raises(ConfigError, match=f"{key} must be a URL without credentials") as error:
        load_config(None, {"data.path": "/packed", "data.source": "shards"} | {key: url})
    assert SECRET not in str(error.value) and len(error.value.problems) == 1


def test_places_that_look_like_it_do_not_log_in():
    for path in ("/data/me@host/x", "/a?key=1", "s3://bucket/a@b", "s3://bucket/packed?region=eu"):
        assert load_config(None, {"data.path": path, "data.source": "shards"}).config.data.path == path


def test_places_in_messages_do_not_show_what_logs_in():
    with pytest.raises(DataError, match=r"memory://\.\.\.@host") as error:
        storage_at(f"memory://me:{SECRET}@host/nowhere").read("a")
    assert SECRET not in str(error.value)
