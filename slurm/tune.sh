#!/usr/bin/env bash
# A sweep on a Ray cluster inside one allocation: sbatch slurm/tune.sh [options of python -m tune] [--dry-run]
# The job ends with the sweep. Out of time or preempted it is requeued, and the sweep continues.
#
#SBATCH --job-name=sweep         # in the queue, and in the name of the log
#SBATCH --nodes=2                # machines
#SBATCH --ntasks-per-node=1      # one Ray node a machine
#SBATCH --gpus-per-node=4        # GPUs of each machine that trials share
#SBATCH --cpus-per-task=32       # cores of each machine that trials share
#SBATCH --time=24:00:00          # a job that runs out of time is continued
#SBATCH --output=slurm-%x-%j.out # in the folder where sbatch is called
#SBATCH --open-mode=append       # one log for all starts of the job
#SBATCH --requeue                # Slurm may start the job again after a lost node
#SBATCH --signal=B:USR2@60       # seconds before the end at which the job goes back into the queue
set -euo pipefail

MODULES="${MODULES:-}"                             # modules to load, such as "cuda/12.6 gcc/13"
CONTAINER="${CONTAINER:-}"                         # command before Python, such as "apptainer exec --nv vae.sif"; empty: none
PYTHON="${PYTHON:-.venv/bin/python}"               # the Python in which the project is installed
SWEEP="${SWEEP:-tune/configs/celeba.yaml}"         # the sweep; its folder must lie on a disk that all nodes share
RAY_FOLDER="${RAY_FOLDER:-/tmp/ray-${SLURM_JOB_ID:-}}" # Ray's logs and sockets, on a disk of each node; keep it short
MAX_REQUEUES="${MAX_REQUEUES:-20}"                 # times that the job starts itself again

cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}" # sbatch runs a copy, so only the folder of submission is known
# shellcheck source=slurm/lib.sh
source slurm/lib.sh
read_words "$@"
load_environment
in_python -m tune --config "$SWEEP" --dry-run --processes "$((${SLURM_JOB_NUM_NODES:-2} * ${SLURM_GPUS_ON_NODE:-4}))"
if [[ $DRY_RUN ]]; then
  check_scheduler slurm/tune.sh
  exit
fi

# ray_on NODE OPTIONS...: runs Ray on one node until the job ends. Trials pass no data through Ray, so its store is small.
ray_on() {
  local node="$1"
  shift
  srun --overlap --nodes=1 --ntasks=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --nodelist="$node" \
    "${IN_PYTHON[@]}" -m ray.scripts.scripts start --block --node-ip-address="$(node_address "$node")" \
    --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --object-store-memory=200000000 "$@" &
}

# A head that finds a token in the home folder requires it, and other nodes send it only in this mode.
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
[[ $RAY_AUTH_MODE != token ]] || in_python -m ray.scripts.scripts get-auth-token --generate >/dev/null

set_rendezvous
ray_on "${NODES[0]}" --head --port="$MASTER_PORT" --temp-dir="$RAY_FOLDER"
until (: <"/dev/tcp/$MASTER_ADDR/$MASTER_PORT") 2>/dev/null; do sleep 1; done
for node in "${NODES[@]:1}"; do ray_on "$node" --address="$MASTER_ADDR:$MASTER_PORT"; done
restartable srun --overlap --nodes=1 --ntasks=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --nodelist="${NODES[0]}" \
  "${IN_PYTHON[@]}" -m tune --config "$SWEEP" --address "$MASTER_ADDR:$MASTER_PORT" "${WORDS[@]}"
