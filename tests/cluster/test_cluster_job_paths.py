"""Paths of a job: what it reads must be where it runs, what it writes must outlive its copy of the directory."""

from pathlib import Path

import pytest

from raytricks.cluster.jobs.command import JobCommand
from raytricks.cluster.jobs.files import choose_files
from raytricks.cluster.jobs.paths import JobPaths, _is_shared
from raytricks.cluster.jobs.submission import load_command
from raytricks.errors import ConfigError, DataError

SHARED = "output_dir=/shared/runs"


@pytest.fixture
def project(tmp_path) -> Path:
    """A working directory with packed and ignored data, and a sibling outside of it."""
    for name in ("project/photos/cat/1.png", "project/ignored/cat/1.png", "outside/cat/1.png", "project/teacher.pth"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "project" / ".gitignore").write_text("ignored\n")
    (tmp_path / "project" / "linked").symlink_to(tmp_path / "outside")
    (tmp_path / "project" / "digits.yaml").write_text("data: {source: digits}\n")
    for name in ("config.yaml", "run.json"):
        (tmp_path / "project" / "runs" / "old").mkdir(parents=True, exist_ok=True)
        (tmp_path / "project" / "runs" / "old" / name).write_text("{}")
    return tmp_path / "project"


def settled(project: Path, *settings: str, is_here: bool, target="digits.yaml", resume=None, check=True) -> JobCommand:
    command = JobCommand("train", target, settings, resume)
    return JobPaths(choose_files(project), is_here, check).settle(command, load_command(command, project))


def test_runs_on_this_machine_are_written_beside_the_config(project):
    assert settled(project, is_here=True).settings == (f"output_dir={project}/runs",)
    assert settled(project, "output_dir=my/runs", is_here=True).settings == (f"output_dir={project}/my/runs",)
    assert settled(project, SHARED, is_here=True).settings == (SHARED,)


def test_a_relative_output_dir_is_refused_elsewhere(project):
    with pytest.raises(ConfigError, match=r"^output_dir: runs is relative.*output_dir=/shared/runs$"):
        settled(project, is_here=False)
    assert settled(project, SHARED, is_here=False).settings == (SHARED,)


@pytest.mark.parametrize("is_here", [True, False], ids=["here", "elsewhere"])
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../outside", "is outside of"),
        ("ignored", "is left out of what travels .*!ignored into .rayignore"),
        ("linked", "is a link that leaves the working directory.*; copy it here"),
        ("nowhere", "does not exist in"),
    ],
)
def test_relative_data_that_does_not_travel_is_refused(project, path, reason, is_here):
    with pytest.raises(DataError, match=rf"^data\.path: {path} {reason}") as raised:
        settled(project, SHARED, "data.source=folder", f"data.path={path}", is_here=is_here)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("is_here", [True, False], ids=["here", "elsewhere"])
@pytest.mark.parametrize("path", ["photos", "./photos/", "s3://bucket/shards"])
def test_data_that_travels_or_is_at_a_url_is_fine(project, path, is_here):
    settings = (SHARED, "data.source=auto", f"data.path={path}")
    assert settled(project, *settings, is_here=is_here).settings == settings


def test_absolute_data_must_be_where_the_cluster_sees_it(project):
    here, nowhere = ("data.source=folder", f"data.path={project}/photos"), ("data.source=folder", "data.path=/no/where")
    settled(project, SHARED, *here, is_here=True)
    with pytest.raises(DataError, match=r"/no/where does not exist"):
        settled(project, SHARED, *nowhere, is_here=True)
    settled(project, SHARED, *nowhere, is_here=False)  # taken to be on the cluster
    with pytest.raises(DataError, match=r"is on a disk of this machine.*--no-check.*name that path, or a URL"):
        settled(project, SHARED, *here, is_here=False)
    settled(project, SHARED, *here, is_here=False, check=False)


def test_a_directory_of_images_is_checked_as_data(project):
    assert settled(project, SHARED, target="photos", is_here=False).target == "photos"
    with pytest.raises(DataError, match=r"^data\.path: ignored "):
        settled(project, SHARED, target="ignored", is_here=False)


def test_a_teacher_is_packed_or_made_absolute_or_refused(project):
    key = "tricks.distillation.teacher"
    assert f"{key}=teacher.pth" in settled(project, SHARED, f"{key}=teacher.pth", is_here=False).settings
    assert f"{key}=timm:resnet18" in settled(project, SHARED, f"{key}=timm:resnet18", is_here=False).settings
    assert f"{key}={project}/runs/old" in settled(project, f"{key}=runs/old", is_here=True).settings
    with pytest.raises(ConfigError, match=rf"^{key}: runs/old is left out"):
        settled(project, SHARED, f"{key}=runs/old", is_here=False)


def test_caches_and_tracking_stores_outlive_the_job(project):
    settings = ("data.cache_dir=cache", "logging.mlflow=sqlite:///track.db")
    found = settled(project, SHARED, *settings, is_here=True).settings
    assert {f"data.cache_dir={project}/cache", f"logging.mlflow=sqlite:///{project}/track.db"} < set(found)
    for setting in settings:
        with pytest.raises(ConfigError, match=rf"^{setting.partition('=')[0]}: .* is relative"):
            settled(project, SHARED, setting, is_here=False)
    kept = "logging.mlflow=http://host:5000"
    assert kept in settled(project, SHARED, kept, is_here=False).settings


def test_a_run_to_resume_is_named_in_full(project):
    found = settled(project, target=None, resume="runs/old", is_here=True)
    assert found.words() == ["train", "--resume", f"{project}/runs/old"]
    with pytest.raises(ConfigError, match=r"^--resume: runs/old is relative"):
        settled(project, target=None, resume="runs/old", is_here=False)
    with pytest.raises(ConfigError, match=r"^--resume: .*/runs/older does not exist"):
        settled(project, target=None, resume="runs/older", is_here=True)
    assert settled(project, target=None, resume="/shared/old", is_here=False).resume == "/shared/old"
    found = settled(project, "name=again", resume="auto", is_here=True)
    assert found.words()[1:] == ["--resume", "auto", "digits.yaml", "name=again", f"output_dir={project}/runs"]


def test_a_config_that_does_not_travel_is_refused(project):
    (project / "ignored" / "b.yaml").write_text("data: {source: digits}\n")
    with pytest.raises(ConfigError, match=r"^ignored/b.yaml is left out .*, and the job needs it"):
        settled(project, SHARED, target="ignored/b.yaml", is_here=False)
    assert settled(project, SHARED, target=f"{project}/digits.yaml", is_here=False).target == "digits.yaml"


@pytest.mark.parametrize(
    ("mounts", "is_shared"),
    [
        ("/dev/sda / ext4 rw 0 0\n", False),
        ("/dev/sda / ext4 rw 0 0\nnas:/x /srv/photos nfs4 rw 0 0\n", True),
        ("/dev/sda / ext4 rw 0 0\nnas:/x /srv nfs4 rw 0 0\n/dev/sdb /srv/photos xfs rw 0 0\n", False),
        ("/dev/sda / ext4 rw 0 0\nbucket /srv/photos fuse.gcsfuse rw 0 0\n", True),
        ("/dev/sda / ext4 rw 0 0\nnas:/x /srv/photos nfs rw 0 0\n/dev/sdb /srv/photos ext4 rw 0 0\n", False),
        ("", False),
    ],
)
def test_network_file_systems_are_known_by_their_mounts(mounts, is_shared):
    assert _is_shared(Path("/srv/photos/a"), lambda: mounts) is is_shared
