"""The files of configs/cluster: valid for what reads them, and with commands that raytricks takes.

No Kubernetes, cloud or Slurm runs here. The schemas are Kubernetes' and Ray's own; KubeRay's fields are
written down below; Slurm's commands are stand-ins that say what they were called with.
"""

from collections.abc import Iterator
import copy
import os
from pathlib import Path
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml

from raytricks.cli.arguments import split_arguments, with_resume_value
from raytricks.cli.main import app
from raytricks.config import ExperimentConfig, load_config

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "configs" / "cluster"
AUTOSCALER, RAYJOB, SLURM = FOLDER / "autoscaler.yaml", FOLDER / "rayjob.yaml", FOLDER / "slurm.sh"
GUIDE = REPOSITORY / "docs" / "cluster.md"
IN_IMAGE = "/opt/raytricks/"
KUBERNETES = "1.35"

COUNT = {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def fields(required: list[str], **types: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "additionalProperties": False, "properties": types}


# What these files use of ray.io/v1, from the API reference of KubeRay 1.7; templates are Kubernetes' own
WORKERS = fields(
    ["groupName", "maxReplicas", "minReplicas", "template"],
    groupName={"type": "string"},
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts=COUNT,
    idleTimeoutSeconds=COUNT,
    rayStartParams=TEXTS,
    resources=TEXTS,
    labels=TEXTS,
    template={"type": "object"},
)
HEAD = fields(
    ["template"],
    rayStartParams=TEXTS,
    resources=TEXTS,
    labels=TEXTS,
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    enableIngress={"type": "boolean"},
    template={"type": "object"},
)
CLUSTER = fields(
    ["headGroupSpec"],
    rayVersion={"type": "string"},
    authOptions=fields([], mode={"enum": ["disabled", "token"]}, secretName={"type": "string"}),
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=fields(
        [],
        idleTimeoutSeconds=COUNT,
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        resources={"type": "object"},
        version={"enum": ["v1", "v2"]},
    ),
    headGroupSpec=HEAD,
    workerGroupSpecs={"type": "array", "items": WORKERS},
)
JOB = fields(
    ["entrypoint", "rayClusterSpec"],
    entrypoint={"type": "string"},
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    backoffLimit=COUNT,
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    preRunningDeadlineSeconds={"type": "integer", "minimum": 1},
    shutdownAfterJobFinishes={"type": "boolean"},
    ttlSecondsAfterFinished=COUNT,
    runtimeEnvYAML={"type": "string"},
    rayClusterSpec=CLUSTER,
)


def rayjob() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the claim and the job."""
    claim, job = yaml.safe_load_all(RAYJOB.read_text())
    return claim, job


def pods() -> list[dict[str, Any]]:
    cluster = rayjob()[1]["spec"]["rayClusterSpec"]
    templates = [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    return [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, **template} for template in templates]


def commands_in(text: str) -> list[str]:
    """Return the commands of raytricks in console lines, comments and continued lines put together."""
    joined = re.sub(r"\\\n#? *", "", text)
    return [
        found.split("  #")[0].strip() for found in re.findall(r"(?m)^#? *(?:[A-Z_]+=\S+ )*(raytricks [a-z].*)$", joined)
    ]


def take(arguments: list[str]) -> ExperimentConfig | None:
    """Parse a command of raytricks as the command line does, and load the config that it names."""
    command: Any = typer.main.get_command(app)
    words = with_resume_value(arguments[1:])
    while commands := getattr(command, "commands", None):
        assert words[0] in commands, f"{shlex.join(arguments)}: there is no {words[0]!r}"
        command, words = commands[words[0]], words[1:]
    context = command.make_context(command.name, words)
    if "command" in context.params:  # submit takes another command
        inner = context.params["command"]
        return take(["raytricks", *(word for word in inner if word != "--follow")])  # submit's own, also behind --
    if "target" not in context.params:
        return None
    target, settings = split_arguments(context.params["target"], context.params["overrides"])
    if target is not None and target.startswith("configs/"):
        target = str(REPOSITORY / target)
    return load_config(target, settings).config


@pytest.mark.parametrize("path", [AUTOSCALER, RAYJOB, SLURM], ids=lambda path: path.name)
def test_cluster_file_says_what_it_is_for(path: Path):
    opening = path.read_text()
    for heading in ("# Command:", "# Hardware:", "# Expected:", "ot tried"):
        assert heading in opening, f"{path.name} does not say {heading}"
    assert f"configs/cluster/{path.name}" in opening


def test_autoscaler_file_passes_rays_preparation_and_schema():
    from ray.autoscaler._private.util import prepare_config, validate_config

    ours = yaml.safe_load(AUTOSCALER.read_text())
    prepared = prepare_config(copy.deepcopy(ours))
    validate_config(prepared)
    head, worker = (prepared["available_node_types"][name] for name in ("head", "worker"))
    assert prepared["head_node_type"] == "head" and head["resources"] == {"CPU": 0} and head["max_workers"] == 0
    assert (worker["min_workers"], worker["max_workers"]) == (1, 8)
    assert prepared["worker_setup_commands"] == prepared["head_setup_commands"] == ours["setup_commands"]
    for command in (prepared["head_start_ray_commands"][-1], prepared["worker_start_ray_commands"][-1]):
        assert "RAY_AUTH_MODE=token" in command
    ours["available_node_types"]["worker"]["max_worker"] = 8
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(ours))


def test_rayjob_claim_and_pods_are_valid_for_kubernetes():
    claim, job = rayjob()
    kubernetes_validate.validate(claim, KUBERNETES, strict=True)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods():
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        (container,) = pod["spec"]["containers"]
        places = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        assert places["/shared"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert places["/dev/shm"]["emptyDir"]["medium"] == "Memory"
        container["volumeMount"] = []
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    assert job["metadata"]["name"] == "raytricks"


def test_rayjob_fields_are_kuberays():
    _, job = rayjob()
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    jsonschema.validate(job["spec"], JOB)
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["template"]["spec"]["restartPolicy"] == "Never", "SidecarMode refuses others"
    workers = cluster["workerGroupSpecs"][0]
    assert (workers["minReplicas"], workers["maxReplicas"]) == (1, 8)
    job["spec"]["backofLimit"] = 1
    with pytest.raises(jsonschema.ValidationError, match="backofLimit"):
        jsonschema.validate(job["spec"], JOB)


def test_rayjob_reads_its_token_from_the_secret_that_its_first_command_makes():
    auth = rayjob()[1]["spec"]["rayClusterSpec"]["authOptions"]
    assert auth["mode"] == "token"
    assert f"create secret generic {auth['secretName']} --from-literal=auth_token=" in RAYJOB.read_text()
    assert not re.search(r"[0-9a-f]{32}", RAYJOB.read_text()), "a token in a file"


def test_rayjob_command_is_one_that_raytricks_takes():
    arguments = shlex.split(rayjob()[1]["spec"]["entrypoint"].replace(IN_IMAGE, ""))
    config = take(arguments)
    assert config is not None
    assert (config.workers, config.output_dir) == ((1, 8), "/shared/runs")
    assert arguments[-2:] == ["--resume", "auto"] and config.name == "digits"
    cpus = [pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] for pod in pods()]
    assert config.hardware.cpus_per_worker == int(cpus[-1])


def test_autoscaler_command_is_one_that_raytricks_takes():
    (command,) = commands_in(AUTOSCALER.read_text())
    config = take(shlex.split(command))
    assert config is not None
    assert (config.workers, config.output_dir) == ((1, 8), "/shared/runs")
    assert config.hardware.cpus_per_worker == 8


@pytest.mark.parametrize(
    "command",
    [
        *commands_in(GUIDE.read_text()),
        *(c for c in commands_in((REPOSITORY / "README.md").read_text()) if c.split()[1] in ("submit", "jobs")),
    ],
)
def test_guides_command_is_one_that_raytricks_takes(command: str):
    take(shlex.split(command, comments=True))


def test_slurm_script_is_clean_for_bash_and_shellcheck():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    for command in (["bash", "-n", str(SLURM)], [str(shellcheck), str(SLURM)]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


STAND_INS = {
    "scontrol": """
        case $1 in
            hostnames | show) [[ $2 == hostnames ]] && printf 'n1\\nn2\\n' || echo "$JOB_STATE" ;;
            requeue) kill -KILL $PPID ;;                      # Slurm ends a script that is queued again
        esac""",
    "scancel": 'kill $(cat "$CALLS".steps) 2>/dev/null',
    "srun": """
        output=/dev/null
        while [[ $1 == --* ]]; do [[ $1 == --output=* ]] && output=${1#*=}; shift; done
        [[ $1 == ray ]] && echo $$ >>"$CALLS".steps
        exec "$@" >>"$output" 2>&1""",
    "ray": """
        [[ $* == *--head* ]] || exec sleep 100
        given=$* && port=${given#*--port=}
        exec "$PYTHON" -c "import socket,time; s=socket.create_server(('127.0.0.1', ${port%% *})); time.sleep(100)" """,
    "python": """
        case $* in
            *get_node_ip_address*) echo 127.0.0.1 ;;
            -\\ *) until [[ $(wc -l <"$CALLS".steps) == 2 ]]; do sleep 0.05; done ;;  # as for the nodes
            *) exec "$PYTHON" "$@" ;;
        esac""",
    "raytricks": """
        stat -c 'token %a %s' "$RAY_AUTH_TOKEN_PATH" >>"$CALLS"
        echo "auth $RAY_AUTH_MODE $RAY_ADDRESS" >>"$CALLS"
        [[ $TRAINING == done ]] && exit 0
        [[ $TRAINING == failed ]] && exit 1
        trap 'echo saved >>"$CALLS"; exit 143' TERM
        echo ready >>"$CALLS"
        while :; do sleep 0.1; done""",
}


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Stand-ins for Slurm's commands, in front of the PATH; each call is a line of the file CALLS."""
    for name, body in STAND_INS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>"$CALLS"\n{body}\n')
        path.chmod(0o755)
    job_id = next(number for number in range(os.getpid() % 5000 + 1, 10000) if is_free(20000 + number))
    yield os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "PYTHON": sys.executable,
        "JOB_STATE": "JobState=RUNNING PreemptTime=None",
        "SLURM_JOB_ID": str(job_id),
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "2",
        "RAY_AUTH_TOKEN": "anothers",
    }
    for pid in (tmp_path / "calls.steps").read_text().split():
        assert not Path("/proc", pid).exists(), "a step was left running"


def start(slurm: dict[str, str], *arguments: str) -> subprocess.Popen:
    folder = Path(slurm["CALLS"]).parent
    command = ["bash", str(SLURM), *arguments]
    return subprocess.Popen(command, cwd=folder, env=slurm, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def calls(slurm: dict[str, str]) -> list[str]:
    path = Path(slurm["CALLS"])
    return path.read_text().splitlines() if path.exists() else []


def test_slurm_script_starts_ray_with_a_token_trains_and_leaves_nothing(slurm: dict[str, str]):
    with start(slurm | {"TRAINING": "done"}, "configs/digits.yaml", "recipe.epochs=20") as script:
        output = script.communicate(timeout=60)[0]
    assert script.returncode == 0, output
    made = calls(slurm)
    starts = [call for call in made if call.startswith("srun") and " ray start " in call]
    assert len(starts) == 2 and "--nodelist=n1" in starts[0] and "--exclude=n1" in starts[1]
    address = f"127.0.0.1:{20000 + int(slurm['SLURM_JOB_ID']) % 10000}"
    assert "--head" in starts[0] and f"--address={address}" in starts[1]
    assert f"auth token {address}" in made
    folder = next(word for word in starts[0].split() if word.startswith("--temp-dir=")).split("=")[1]
    parent = str(Path(folder).parent)
    assert re.fullmatch(rf"/tmp/raytricks-{slurm['SLURM_JOB_ID']}-[0-9a-f]{{8}}", parent), "a name that can be guessed"
    made_at = next(number for number, call in enumerate(made) if call.startswith("srun") and "mkdir -m 700" in call)
    assert parent in made[made_at] and made_at < made.index(starts[0]) and not Path(parent).exists()
    assert "token 600 65" in made, "the token's file, which only its owner may read"
    assert not list(Path(slurm["CALLS"]).parent.rglob("auth_token")), "the token outlived the job"
    (training,) = [call for call in made if call.startswith("raytricks train")]
    config = take(training.split())
    assert config is not None
    assert (config.workers, config.recipe.epochs, config.name) == (2, 20, f"slurm-{slurm['SLURM_JOB_ID']}")
    assert Path(config.output_dir).is_absolute() and training.endswith("--resume auto")
    assert not any("requeue" in call for call in made)


def test_slurm_script_saves_when_warned_and_is_queued_again(slurm: dict[str, str]):
    with start(slurm | {"TRAINING": "long"}, "configs/digits.yaml", "name=mine") as script:
        deadline_s = time.monotonic() + 30
        while "ready" not in calls(slurm):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        script.send_signal(signal.SIGTERM)
        script.communicate(timeout=60)
    made = calls(slurm)
    (training,) = [call for call in made if call.startswith("raytricks train")]
    config = take(training.split())
    assert config is not None and (config.name, config.workers) == ("mine", 2)
    order = [made.index(call) for call in ("saved", f"scontrol requeue {slurm['SLURM_JOB_ID']}")]
    stopped = next(number for number, call in enumerate(made) if call.startswith("scancel"))
    assert order[0] < stopped < order[1], "Ray is stopped after the run has saved, before the job is queued again"


@pytest.mark.parametrize(
    ("state", "is_queued_again"),
    [
        ("JobState=RUNNING PreemptTime=None", False),
        ("JobState=RUNNING PreemptTime=2026-01-01T00:00:00", True),
        ("JobState=CANCELLED PreemptTime=2026-01-01T00:00:00", False),
    ],
)
def test_slurm_script_is_queued_again_after_a_preemption_not_after_a_failure(
    slurm: dict[str, str], state: str, is_queued_again: bool
):
    with start(slurm | {"TRAINING": "failed", "JOB_STATE": state}) as script:
        output = script.communicate(timeout=60)[0]
    assert any("scontrol requeue" in call for call in calls(slurm)) == is_queued_again, output
    assert script.returncode == (-signal.SIGKILL if is_queued_again else 1)
