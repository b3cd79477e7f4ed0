"""Jobs on real heads, with a token and without: submitted, followed over a bad network, failed, stopped."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
import json
from pathlib import Path
import re
import shlex
import signal
import socket
import subprocess
import sys
from threading import Thread

import pytest
from ray_head import RayHead, ray_head

from raytricks.cluster.jobs.address import JobAddress
from raytricks.cluster.jobs.client import submit_job
from raytricks.cluster.jobs.dashboard import Dashboard
from raytricks.cluster.jobs.files import choose_files
from raytricks.cluster.jobs.job import Job
from raytricks.cluster.jobs.log import LogWriter, without_notes_of_ray
from raytricks.cluster.jobs.package import packed
from raytricks.errors import ClusterError

TOKEN = "5d41402abc4b2a76b9719d911017c592"
TINY = ("recipe.epochs=1", "tricks.warmup.epochs=0", "model.width=8", "hardware.cpus_per_worker=1")
TINY += ("hardware.precision=fp32", "logging.tensorboard=false")


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head() as started:
        yield started


@pytest.fixture
def project(tmp_path, repository) -> Path:
    """A directory with a config, and with what must not be imported, nor travel."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits.yaml").write_text((repository / "configs" / "digits.yaml").read_text())
    (tmp_path / "raytricks").mkdir()
    (tmp_path / "raytricks" / "__init__.py").write_text("raise SystemExit('another raytricks')\n")
    (tmp_path / ".env").write_text("PASSWORD=hunter2\n")
    return tmp_path


def dashboard_of(head: RayHead) -> Dashboard:
    return Dashboard.connect(JobAddress(head.url, "--address"))


@contextmanager
def bad_network(target: tuple[str, int]) -> Iterator[tuple[int, list[socket.socket]]]:
    """Pass connections on to a port; yields the own port, and the connections, which may be cut."""
    open_sockets: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(target)
                open_sockets.extend((client, server))
                for pair in ((client, server), (server, client)):
                    Thread(target=pump, args=pair, daemon=True).start()

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1], open_sockets
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    for one in open_sockets:
        one.close()


def test_a_log_that_is_read_again_is_handed_on_once():
    pieces: list[str] = []
    writer = LogWriter(pieces.append)
    for text in ("one\n", "two\n"):
        writer.add(text)
    writer.rewind()
    for text in ("one\ntw", "o\nthree\n", "four\n"):
        writer.add(text)
    assert "".join(pieces) == "one\ntwo\nthree\nfour\n"


def test_rays_notes_are_left_out_of_a_log():
    pieces: list[str] = []
    write = without_notes_of_ray(pieces.append)
    write(
        "2026-11-25 03:41:25,539\tINFO job_manager.py:581 -- Runtime env is setting up.\nRunning entrypoint for job a\n"
    )
    write("x\n")
    write("Running entrypoint for job a: b\n")
    write("2026 y\n")
    assert pieces == ["x\n", "2026 y\n"]


@pytest.mark.ray
def test_a_job_is_followed_to_its_end_and_its_run_is_here(head, project):
    done = head.raytricks("submit", "--", "train", "configs/digits.yaml", "workers=1", *TINY, "--follow", cwd=project)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("packed 2 files, ") and lines[1] == "left out, look like secrets: .env"
    found = re.fullmatch(r"job (train-\S+), writes (.*)", lines[2])
    assert found is not None and lines[3] == f"{head.url}/#/jobs/{found[1]}"
    assert found[2] == str(project / "runs" / found[1]) and lines[4].startswith("run  ")
    assert (project / "runs" / found[1] / "model.safetensors").is_file()
    again = head.raytricks("submit", "--name", found[1], "--", "train", "configs/digits.yaml", *TINY, cwd=project)
    assert again.returncode == 4 and len(again.stderr.splitlines()) == 1
    assert f"a job {found[1]} is there already, and is SUCCEEDED" in again.stderr
    [info] = json.loads(head.raytricks("jobs", "list", "--json", cwd=project).stdout)
    assert (info["id"], info["status"], info["exit_code"]) == (found[1], "SUCCEEDED", 0)
    unknown = head.raytricks("jobs", "status", found[1][:-1], cwd=project)
    assert unknown.returncode == 4 and unknown.stderr.strip().endswith(f"; did you mean {found[1]}?")


@pytest.mark.ray
def test_a_job_that_fails_ends_with_its_own_exit_code(head, project):
    """Submitted from Python, followed from the command line."""
    program = (
        "import raytricks\n"
        "command = ['train', 'configs/digits.yaml', 'data.source=folder', 'data.path=configs']\n"
        "job = raytricks.submit(command, name='bad')\n"
        "print(job.wait(), job.status(), job.run_dir, 'error: configs: holds' in job.logs())\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=project,
        env=head.environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert (done.stdout, done.stderr) == (f"3 FAILED {project}/runs/bad True\n", "")
    followed = head.raytricks("jobs", "logs", "bad", "--follow", cwd=project)
    assert followed.returncode == 3 and followed.stdout.startswith("error: configs: holds 1 files (0 images)")
    assert followed.stderr.splitlines() == ["job bad FAILED with exit code 3"]
    status = head.raytricks("jobs", "status", "bad", cwd=project)
    assert status.returncode == 0 and status.stdout.startswith("bad: FAILED, exit code 3")


@pytest.mark.ray
def test_driver_and_workers_import_the_raytricks_that_travelled(head, project):
    """Not the one that is installed beside Ray, nor a directory of that name in the working directory."""
    program = (
        "import ray, raytricks; ray.init(log_to_driver=False); "
        "where = ray.remote(lambda: __import__('raytricks').__file__); "
        "print(raytricks.__file__, ray.get(where.remote()))"
    )
    with packed(choose_files(project), []) as environment:
        submit_job(dashboard_of(head), "where", shlex.join([sys.executable, "-P", "-c", program]), environment)
    job = Job(dashboard_of(head), "where")
    assert job.wait(timeout_s=100) == 0, job.logs()
    of_driver, of_worker = job.logs().splitlines()[-1].split()
    assert of_driver == of_worker and f"{head.root}/ray" in of_driver and "/py_modules_files/" in of_driver


@pytest.mark.ray
def test_an_environment_that_cannot_be_made_is_one_line(head, project):
    """Ray has no log of such a job, only a message."""
    submit_job(dashboard_of(head), "no-files", "true", {"working_dir": "gcs://_ray_pkg_0123456789abcdef.zip"})
    done = head.raytricks("jobs", "logs", "no-files", "--follow", cwd=project)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("job no-files FAILED: ") and "_ray_pkg_0123456789abcdef" in line
    shown = head.raytricks("jobs", "logs", "no-files", cwd=project)
    assert shown.returncode == 0 and shown.stderr.startswith("job no-files has printed nothing; it is FAILED: ")


@pytest.mark.ray
def test_a_broken_log_is_taken_up_where_it_broke(head):
    host, port = head.url.removeprefix("http://").split(":")
    count = "import time; [print(n, flush=True) or time.sleep(0.1) for n in range(60)]"
    pieces: list[str] = []
    cuts: list[int] = []
    with bad_network((host, int(port))) as (own_port, connections):

        def write(text: str) -> None:
            pieces.append(text)
            if "".join(pieces).count("\n") > 20 * (len(cuts) + 1) and len(cuts) < 2:
                cuts.append(len(connections))
                for one in connections:
                    with suppress(OSError):
                        one.shutdown(socket.SHUT_RDWR)

        dashboard = Dashboard.connect(JobAddress(f"http://127.0.0.1:{own_port}", "--address"))
        submit_job(dashboard, "counts", f"{sys.executable} -c '{count}'", {})
        info = Job(dashboard, "counts").follow(without_notes_of_ray(write))
    assert (info.result, len(cuts)) == (0, 2)
    assert [int(line) for line in "".join(pieces).split()] == list(range(60))


@pytest.mark.ray
def test_ctrl_c_leaves_the_job_which_can_be_stopped_and_keeps_its_checkpoint(head, project):
    command = [str(Path(sys.executable).with_name("raytricks")), "submit", "--name=long", "--follow", "--"]
    command += ["train", "configs/digits.yaml", *TINY[1:], "workers=0", "recipe.epochs=5000"]
    with subprocess.Popen(
        command, cwd=project, env=head.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if line.startswith("epoch"):
                process.send_signal(signal.SIGINT)
                break
        process.stdout.read()
        errors = process.stderr.read()
    assert process.returncode == 130, errors
    assert errors.strip() == "job long goes on; stop it with `raytricks jobs stop long`"
    job = Job(dashboard_of(head), "long")
    assert job.status() == "RUNNING"
    stopped = head.raytricks("jobs", "stop", "long", "--address", head.url, cwd=project, RAY_API_SERVER_ADDRESS="")
    assert (stopped.returncode, stopped.stdout) == (0, "long: STOPPED\n"), stopped.stderr
    assert job.wait(timeout_s=5) == 143 and not job.stop()
    assert "raytricks train --resume" in job.logs() and list((project / "runs" / "long" / "checkpoints").iterdir())
    assert head.raytricks("jobs", "stop", "long", cwd=project).stdout == "long: was over already, STOPPED\n"


@pytest.mark.ray
def test_a_token_is_needed_used_and_never_written_down(project):
    with ray_head(TOKEN) as head:
        for changes, reason in (
            ({"HOME": str(project)}, "the cluster wants a token; `export RAY_AUTH_MODE=token`"),
            ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE keeps the one of"),
            ({"RAY_AUTH_TOKEN": TOKEN[::-1]}, "the token of RAY_AUTH_TOKEN is not this cluster's (HTTP 403)"),
        ):
            for command in (["jobs", "list"], ["submit", "--", "train", "configs/digits.yaml", *TINY]):
                refused = head.raytricks(*command, cwd=project, **changes)
                assert (refused.returncode, refused.stdout) == (4, "")
                [line] = refused.stderr.splitlines()
                assert reason in line and TOKEN not in line and TOKEN[::-1] not in line
        # what a shell gives the client must not reach the job
        command = ["submit", "--name=secret", "--follow", "--", "train", "configs/digits.yaml", "workers=1", *TINY]
        done = head.raytricks(*command, cwd=project, RAY_AUTH_TOKEN=TOKEN)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        listed = head.raytricks("jobs", "list", "--json", cwd=project)
        texts = [done.stdout, listed.stdout, json.dumps(dashboard_answer(head))]
        places = [project / "runs", *(head.root / "ray").glob("session_2*")]
        files = [path for place in places for path in place.rglob("*") if path.is_file()]
        assert any(path.name == "run.json" for path in files) and any(
            "job-driver-secret" in path.name for path in files
        )
        texts += [path.read_text(errors="replace") for path in files]
        assert not [text[:80] for text in texts if TOKEN in text]
        assert (head.root / "home" / ".ray" / "auth_token").stat().st_mode & 0o077 == 0


def dashboard_answer(head: RayHead) -> object:
    """Return what Ray tells everybody with the token of its jobs."""
    program = (
        "import json; from raytricks.cluster.jobs.dashboard import Dashboard; "
        "from raytricks.cluster.jobs.address import find_address; "
        "print(json.dumps(Dashboard.connect(find_address(None)).get('/api/jobs/')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=head.environment, capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.ray
def test_a_dashboard_that_is_gone_does_not_take_a_job():
    gone = Dashboard(JobAddress("http://127.0.0.1:1", "--address"), "2.60.0")
    with pytest.raises(ClusterError, match="^http://127.0.0.1:1 cannot be used: Failed to connect"):
        submit_job(gone, "x", "true", {})
