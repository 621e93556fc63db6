#!/usr/bin/env bash
# Trains both stages on any number of nodes: sbatch slurm/train_celeba.sh [--any.field value] [--dry-run]
# Fields of the trainer's configuration pass through; --dry-run checks the run and estimates its cost, also without sbatch.
#
# Resources; an option of sbatch goes before these: sbatch --nodes=4 slurm/train_celeba.sh
#SBATCH --job-name=celeba        # in the queue, and in the name of the log
#SBATCH --nodes=2                # machines
#SBATCH --ntasks-per-node=1      # one launcher a machine, which starts PROCESSES
#SBATCH --gpus-per-node=4        # GPUs of each machine, one process each
#SBATCH --cpus-per-task=32       # cores of each machine, for all its processes and their readers
#SBATCH --time=12:00:00          # a job that runs out of time is continued
#SBATCH --output=slurm-%x-%j.out # in the folder where sbatch is called
#SBATCH --open-mode=append       # one log for all starts of the job
#SBATCH --requeue                # Slurm may start the job again after a lost node
#SBATCH --signal=USR2@600        # seconds before the end at which the run saves and stops
set -euo pipefail

MODULES="${MODULES:-}"                           # modules to load, such as "cuda/12.6 gcc/13"
CONTAINER="${CONTAINER:-}"                       # command before Python, such as "apptainer exec --nv vae.sif"; empty: none
PYTHON="${PYTHON:-.venv/bin/python}"             # the Python in which the project is installed
CONFIG="${CONFIG:-trainer/configs/celeba.yaml}"  # the trainer's configuration
SHARDS="${SHARDS:-shards/celeba}"                # made by slurm/build_shards.sh, on a disk that all nodes share
RUNS="${RUNS:-runs}"                             # folder of the run folders, on a disk that all nodes share
PROCESSES="${PROCESSES:-${SLURM_GPUS_ON_NODE:-4}}" # processes of each node
LAUNCH="${LAUNCH:-torchrun}"                     # torchrun: one a node; srun: every process is a task of Slurm
MAX_REQUEUES="${MAX_REQUEUES:-20}"               # times that the job starts itself again

cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}" # sbatch runs a copy, so only the folder of submission is known
# shellcheck source=slurm/lib.sh
source slurm/lib.sh
read_words "$@"
load_environment
fields=(--config "$CONFIG" --data.shards "$SHARDS" --runs "$RUNS" "${WORDS[@]}")
estimate=(-m trainer --dry-run --processes $((PROCESSES * ${SLURM_JOB_NUM_NODES:-2})) "${fields[@]}")
if [[ $DRY_RUN ]]; then
  in_python "${estimate[@]}"
  check_scheduler slurm/train_celeba.sh
  exit
fi

run="$(in_python "${estimate[@]}" --print-folder)"
rm -f "$run/requeue" # of the former start
on_all_nodes trainer "${fields[@]}" && code=0 || code=$?
end_training "$run" "$code"
