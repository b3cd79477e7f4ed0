#!/bin/bash
# Slurm: one Ray node on each node of an allocation, the driver on the first; a preempted job goes on where it was.
#
# Command:   sbatch configs/cluster/slurm.sh
#            sbatch --nodes=8 --gpus-per-node=8 --cpus-per-task=96 configs/cluster/slurm.sh \
#                configs/fashion_mnist.yaml data.path=/shared/fashion_mnist
# Hardware:  nodes that share the directory of submission, with raytricks on the PATH of whoever submits
# Expected:  raytricks-JOB.log ends with the run's summary, >= 98% top-1; the run is runs/slurm-JOB; nothing runs on
#
# Arguments: a config file (configs/digits.yaml), then settings. One worker a node, or one a GPU. With a name=, another
# job of that name goes on with its run.
# Preempted or out of time: the run saves, the job is queued again and goes on. That needs a warning: `--signal` gives
# it before the time limit; before a preemption, slurm.conf needs a GraceTime and PreemptParameters=send_user_signal
# (Slurm 22.05: SlurmctldParameters=preempt_send_user_signal). Without one the job goes on from its newest checkpoint.
# Tried:     Slurm 22.05, two nodes on one machine, CPUs only: to the end, preempted with and without a warning,
#            out of time, cancelled. Not tried: several machines, GPUs, a node that fails.
#SBATCH --job-name=raytricks
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
#SBATCH --output=raytricks-%j.log
set -euo pipefail

config=${1:-configs/digits.yaml}
settings=("${@:2}")
workers=$((SLURM_JOB_NUM_NODES * ${SLURM_GPUS_ON_NODE:-1}))
for default in workers=$workers name=slurm-$SLURM_JOB_ID "output_dir=$PWD/runs"; do
    [[ " ${settings[*]}" == *" ${default%%=*}="* ]] || settings+=("$default")
done
start_limit_s=300
max_restarts=50

private=$PWD/.ray/slurm-$SLURM_JOB_ID       # on the shared file system: the token, and what `ray start` prints
temporary=/tmp/raytricks-$SLURM_JOB_ID-$(python -c 'import secrets; print(secrets.token_hex(4))') # on each node
read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 10000))      # two jobs may share a node
driver=
steps=()
is_warned=

# Whoever reaches Ray's ports runs code as this user: only holders of this job's token may.
make_token() {
    rm -rf "$private"
    (
        umask 077
        mkdir -p "$private"
        python -c 'import secrets; print(secrets.token_hex(32))' >"$private/auth_token"
    )
    unset RAY_AUTH_TOKEN
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$private/auth_token
}

# Slurm signals all of Ray's processes at once: a node would wait 30 s for a head that has ended too.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0

# ray_on NAME [srun option...] -- [ray start option...]
ray_on() {
    local name=$1 placement=()
    shift
    while [[ $1 != -- ]]; do placement+=("$1") && shift; done
    shift
    srun --overlap --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" "${placement[@]}" \
        --output="$private/$name-%N.log" ray start --block --num-cpus="$SLURM_CPUS_PER_TASK" \
        --disable-usage-stats "$@" 2>>"$private/srun.log" &
    steps+=($!)
}

# Ray's sockets are open to every user of a node (Ray 2.60): the folder above them is not, and is nobody else's.
make_temporary() {
    srun --overlap --ntasks-per-node=1 mkdir -m 700 "$temporary" 2>>"$private/srun.log" || {
        echo "error: $temporary cannot be made on all nodes; see $private/srun.log" >&2
        exit 4
    }
}

wait_for_head() {
    local deadline=$((SECONDS + start_limit_s))
    until (exec 3<>"/dev/tcp/${RAY_ADDRESS%:*}/$port") 2>/dev/null; do
        if ((SECONDS > deadline)) || ! kill -0 "${steps[0]}" 2>/dev/null; then
            echo "error: Ray's head did not start on $head; see $private/head-$head.log" >&2
            exit 4
        fi
        sleep 1
    done
}

wait_for_nodes() {
    python - "$SLURM_JOB_NUM_NODES" "$start_limit_s" <<'PYTHON' || exit 4
import sys, time
import ray

wanted, limit_s = int(sys.argv[1]), int(sys.argv[2])
ray.init(logging_level="ERROR", log_to_driver=False)
deadline_s = time.monotonic() + limit_s
while (alive := sum(node["Alive"] for node in ray.nodes())) < wanted:
    if time.monotonic() > deadline_s:
        sys.exit(f"error: {alive} of {wanted} nodes joined Ray in {limit_s} s; see .ray/ for what they printed")
    time.sleep(1)
PYTHON
}

stop_cluster() {
    trap - EXIT
    if ((${#steps[@]})); then
        scancel --signal=TERM "$SLURM_JOB_ID" 2>/dev/null || true # to Ray's steps; a signal to srun would kill them
        for ((waited_s = 0; waited_s < 30; waited_s++)); do
            kill -0 "${steps[@]}" 2>/dev/null || break
            sleep 1
        done
        kill "${steps[@]}" 2>/dev/null || true
    fi
    rm -f "$private/auth_token"
    srun --overlap --ntasks-per-node=1 rm -rf "$temporary" 2>/dev/null || rm -rf "$temporary"
}

# shellcheck disable=SC2329  # the trap calls it
warned() {
    is_warned=1
    if [[ $driver ]]; then kill -TERM "$driver" 2>/dev/null || true; fi
}

# Warned or preempted before the end, but not cancelled.
must_go_on() {
    local job
    job=$(scontrol show job "$SLURM_JOB_ID")
    [[ $job == *"JobState=RUNNING"* ]] || return 1
    [[ $is_warned || $job != *"PreemptTime=None"* ]] || return 1
    [[ $code != 0 || ! $driver ]] && ((${SLURM_RESTART_COUNT:-0} < max_restarts))
}

trap stop_cluster EXIT
trap warned TERM
make_token
make_temporary
ip=$(python -c 'import ray; print(ray.util.get_node_ip_address())')
export RAY_ADDRESS=$ip:$port
ray_on head --nodes=1 --ntasks=1 --nodelist="$head" -- --head --node-ip-address="$ip" --port="$port" \
    --dashboard-port=$((port + 10000)) --temp-dir="$temporary/ray"
wait_for_head
if ((SLURM_JOB_NUM_NODES > 1)); then
    ray_on worker --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" -- \
        --address="$RAY_ADDRESS"
fi
wait_for_nodes

code=0
if [[ ! $is_warned ]]; then
    raytricks train "$config" "${settings[@]}" --resume auto &
    driver=$!
    while kill -0 "$driver" 2>/dev/null; do # a signal ends the wait, not the driver
        wait "$driver" && code=0 || code=$?
    done
fi

stop_cluster
if must_go_on; then
    scontrol requeue "$SLURM_JOB_ID"
    sleep 60 # until Slurm ends this script
fi
exit "$code"
