#!/usr/bin/env bash
# One recipe on the nodes of a Slurm job, with a Ray of its own that goes with the job.
#
#   sbatch --nodes=4 cluster/slurm.sh RECIPE [arguments of `longctx run`]
#
# Submitted from the checkout, whose .venv all nodes see (or LONGCTX_BIN names the folder with
# `ray` and `python`). Sent again after a failure, or requeued, it goes on where the run folder says.
#SBATCH --job-name=longctx
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem-per-cpu=4G
#SBATCH --requeue
#SBATCH --output=longctx-%j.log
set -euo pipefail

if [ $# -lt 1 ]; then
    echo "usage: sbatch cluster/slurm.sh RECIPE [arguments of longctx run]" >&2
    exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}"
PATH="${LONGCTX_BIN:-$PWD/.venv/bin}:$PATH"
for program in ray python; do
    if ! command -v "$program" >/dev/null; then
        echo "no $program in $PATH: run \`make setup\`, or set LONGCTX_BIN" >&2
        exit 2
    fi
done

# What the engine relies on (longctx/engine/cluster.py says why). srun hands the environment on.
export PATH
export ARROW_DEFAULT_MEMORY_POOL=system
export RAY_num_workers_soft_limit=8
export RAY_idle_worker_killing_time_threshold_ms=60000
export RAY_grpc_client_keepalive_time_ms=5000
export RAY_grpc_client_keepalive_timeout_ms=5000
export RAY_grpc_keepalive_time_ms=5000
export RAY_grpc_keepalive_timeout_ms=5000
export RAY_health_check_initial_delay_ms=1000
export RAY_health_check_period_ms=1000
export RAY_health_check_timeout_ms=2000
export RAY_health_check_failure_threshold=3
export RAY_USAGE_STATS_ENABLED=0
# Other users of the machines cannot join: the token is in the environment, never in an argument.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN="$(python -c 'import secrets; print(secrets.token_hex(32))')"
export RAY_AUTH_TOKEN

# Sockets lie below: the path must be short. Objects that do not fit into memory are spilled there.
scratch="${LONGCTX_SCRATCH:-/tmp}/lc-$SLURM_JOB_ID"
cpus="${SLURM_CPUS_PER_TASK:-1}"
gpus="${SLURM_GPUS_ON_NODE:-0}"
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
nodes="${#hosts[@]}"
# This script runs on the first node of the job, which is the head.
head_address="$(python -c 'import socket, sys; print(socket.gethostbyname(sys.argv[1]))' "${hosts[0]}")"
read -r port dashboard < <(python - <<'PORTS'
import socket

held = [socket.socket() for _ in range(2)]
for one in held:
    one.bind(("", 0))
print(*(one.getsockname()[1] for one in held))
PORTS
)

steps=()
finish() {
    # Steps are asked to end, then Slurm ends them; `ray stop` would end other people's Ray, too.
    trap - EXIT TERM INT
    if [ "${#steps[@]}" -gt 0 ]; then
        kill -TERM "${steps[@]}" 2>/dev/null || true
        wait "${steps[@]}" 2>/dev/null || true
    fi
    # A process of Ray that is slow to end may still add a file while the folder goes: then once more.
    # shellcheck disable=SC2016
    srun --overlap --nodes="$nodes" --ntasks="$nodes" bash -c '
        for look in {1..30}; do
            rm -rf -- "$0" 2>/dev/null
            sleep 1
            [ -e "$0" ] || exit 0
        done
        echo "files are left in $0 on $(hostname)" >&2' "$scratch" || true
}
trap finish EXIT
trap 'exit 143' TERM INT

# Every port is chosen by the system, so that several jobs can share a machine.
common=(--block --num-cpus="$cpus" --num-gpus="$gpus" --dashboard-agent-listen-port=0
    --min-worker-port=0 --max-worker-port=0)
srun --overlap --nodes=1 --ntasks=1 --nodelist="${hosts[0]}" \
    ray start --head --node-ip-address="$head_address" --port="$port" \
    --include-dashboard=true --dashboard-host=127.0.0.1 --dashboard-port="$dashboard" \
    --temp-dir="$scratch" "${common[@]}" &
steps+=("$!")
if [ "$nodes" -gt 1 ]; then
    others="$(IFS=,; echo "${hosts[*]:1}")"
    # The single quotes are meant: the shell of each node fills in what follows.
    # shellcheck disable=SC2016
    srun --overlap --nodes="$((nodes - 1))" --ntasks="$((nodes - 1))" --nodelist="$others" \
        bash -c 'until ray health-check --address "$0" >/dev/null 2>&1; do sleep 1; done
                 exec ray start --address="$0" "$@"' "$head_address:$port" "${common[@]}" &
    steps+=("$!")
fi

export RAY_ADDRESS="$head_address:$port"
python - "$nodes" <<'JOINED'
import sys
import time

import ray

wanted, deadline = int(sys.argv[1]), time.monotonic() + 300
while time.monotonic() < deadline:
    try:
        ray.init(log_to_driver=False, logging_level="ERROR")
        break
    except Exception:
        time.sleep(1)
while time.monotonic() < deadline:
    joined = sum(node["Alive"] for node in ray.nodes()) if ray.is_initialized() else 0
    if joined >= wanted:
        sys.exit()
    time.sleep(1)
sys.exit(f"not all of {wanted} nodes joined within 300 s: what `ray start` said stands above")
JOINED

# In the background, so that a signal to this script is heard at once.
python jobs/pretrain.py "$@" &
steps+=("$!")
wait "$!"
