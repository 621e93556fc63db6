#!/usr/bin/env bash
# Encodes a trained run and fits mixtures to its codes, on any number of nodes:
#   sbatch slurm/fit_mixture.sh [--components 500 1000] [other options of trainer.mixture] [--dry-run]
#
#SBATCH --job-name=mixture       # in the queue, and in the name of the log
#SBATCH --nodes=2                # machines
#SBATCH --ntasks-per-node=1      # one launcher a machine, which starts PROCESSES
#SBATCH --gpus-per-node=4        # GPUs of each machine, one process each
#SBATCH --cpus-per-task=32       # cores of each machine, for all its processes
#SBATCH --time=04:00:00          # a job that runs out of time is continued
#SBATCH --output=slurm-%x-%j.out # in the folder where sbatch is called
#SBATCH --open-mode=append       # one log for all starts of the job
#SBATCH --requeue                # Slurm may start the job again after a lost node
#SBATCH --signal=B:USR2@60       # seconds before the end at which the job goes back into the queue
set -euo pipefail

MODULES="${MODULES:-}"                             # modules to load, such as "cuda/12.6 gcc/13"
CONTAINER="${CONTAINER:-}"                         # command before Python, such as "apptainer exec --nv vae.sif"; empty: none
PYTHON="${PYTHON:-.venv/bin/python}"               # the Python in which the project is installed
RUN="${RUN:-runs/celeba}"                          # run folder, on a disk that all nodes share
COMPONENTS="${COMPONENTS:-500}"                    # components of the mixture, unless --components is given
WEIGHTS="${WEIGHTS:-final}"                        # final, or stage1 for the codes of the end of stage 1
DEVICE="${DEVICE:-cuda}"                           # cuda or cpu
PROCESSES="${PROCESSES:-${SLURM_GPUS_ON_NODE:-4}}" # processes of each node
LAUNCH="${LAUNCH:-torchrun}"                       # torchrun: one a node; srun: every process is a task of Slurm
MAX_REQUEUES="${MAX_REQUEUES:-20}"                 # times that the job starts itself again

cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}" # sbatch runs a copy, so only the folder of submission is known
# shellcheck source=slurm/lib.sh
source slurm/lib.sh
read_words "$@"
load_environment
fit=(trainer.mixture --run "$RUN" --weights "$WEIGHTS" --device "$DEVICE" --components "$COMPONENTS" "${WORDS[@]}")
in_python -m "${fit[@]}" --dry-run --processes "$((PROCESSES * ${SLURM_JOB_NUM_NODES:-2}))"
if [[ $DRY_RUN ]]; then
  check_scheduler slurm/fit_mixture.sh
  exit
fi

restartable on_all_nodes eval encode --run "$RUN" --weights "$WEIGHTS" --device "$DEVICE"
restartable on_all_nodes "${fit[@]}"
