#!/usr/bin/env bash
# Encodes a trained run and fits mixtures to its codes, on any number of nodes:
#   slurm/submit.sh [OPTIONS OF SBATCH] slurm/fit_mixture.sh [--components 500 1000] [other options of trainer.mixture] [--dry-run]
#
#SBATCH --job-name=mixture       # in the queue, and in the name of the log
#SBATCH --nodes=1                # machines
#SBATCH --ntasks-per-node=1      # one launcher a machine, which starts PROCESSES; GPUs stand in slurm/resources.sh
#SBATCH --cpus-per-task=8        # cores of each machine, for all its processes
#SBATCH --mem=32G                # memory of each machine
#SBATCH --time=04:00:00          # a job that runs out of time is continued
#SBATCH --output=slurm-%x-%j.out # in the folder where sbatch is called
#SBATCH --open-mode=append       # one log for all starts of the job
#SBATCH --requeue                # Slurm may start the job again after a lost node
#SBATCH --signal=B:USR2@60       # seconds before the end at which the job goes back into the queue
set -euo pipefail

MODULES="${MODULES:-}"                             # modules to load, such as "cuda/12.6 gcc/13"
CONTAINER="${CONTAINER:-}"                         # command before Python, such as "apptainer exec --nv vae.sif"; empty: none
PYTHON="${PYTHON:-}"                               # Python with the project; empty: .venv, or an activated environment
RUN="${RUN:-runs/celeba}"                          # run folder, on a disk that all nodes share
COMPONENTS="${COMPONENTS:-500}"                    # components of the mixture, unless --components is given
WEIGHTS="${WEIGHTS:-final}"                        # final, or stage1 for the codes of the end of stage 1
DEVICE="${DEVICE:-}"                               # cuda or cpu; empty: cuda where the job has GPUs
PROCESSES="${PROCESSES:-}"                         # processes of each node; empty: one a GPU
LAUNCH="${LAUNCH:-torchrun}"                       # torchrun: one a node; srun: every process is a task of Slurm
MAX_REQUEUES="${MAX_REQUEUES:-20}"                 # times that the job starts itself again

SCRIPT=slurm/fit_mixture.sh
# sbatch runs a copy of this script, so the project is where SIGMA_VAE_HOME says or the scheduler knows the original.
home="${SIGMA_VAE_HOME:-$(dirname "$(realpath "$0")")/..}"
if [[ ! ${SIGMA_VAE_HOME:-} && ! -f $home/slurm/lib.sh && ${SLURM_JOB_ID:-} ]]; then
  home="$(scontrol show job "$SLURM_JOB_ID")" home="${home#*Command=}" home="${home%%$'\n'*}"
  if [[ $home == *"/$SCRIPT"* ]]; then home="${home%%"/$SCRIPT"*}"; else home="$(dirname "$(realpath -m "${home%" $*"}")")/.."; fi
  [[ -f $home/slurm/lib.sh ]] || home="${SLURM_SUBMIT_DIR:-.}"
fi
if [[ ! -f $home/slurm/lib.sh ]]; then
  echo "error: $SCRIPT: the project is not in $home; set SIGMA_VAE_HOME to its folder" >&2
  exit 2
fi
cd "$home"
# shellcheck source=slurm/lib.sh
source slurm/lib.sh
read_words "$@"
require_job
load_environment
read_resources "$PROCESSES"
fit=(trainer.mixture --run "$RUN" --weights "$WEIGHTS" --device "$DEVICE" --components "$COMPONENTS" "${WORDS[@]}")
[[ $DRY_RUN ]] || check_nodes
in_python -m "${fit[@]}" --dry-run --processes "$ALL_PROCESSES"
[[ ! $DRY_RUN ]] || exit 0

restartable on_all_nodes eval encode --run "$RUN" --weights "$WEIGHTS" --device "$DEVICE"
restartable on_all_nodes "${fit[@]}"
