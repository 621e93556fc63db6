#!/usr/bin/env bash
# From CelebA's zip or folder to shards: slurm/build_shards.sh [options of data_shards build celeba] [--dry-run]
# Submits an array with one part of the work a task, and the merge after it. The same command again does what is missing.
#
#SBATCH --job-name=shards        # in the queue, and in the name of the log
#SBATCH --ntasks=1               # one part a task
#SBATCH --cpus-per-task=4        # processes that decode and resize
#SBATCH --mem=8G                 # memory of a part
#SBATCH --time=01:00:00          # of a part
#SBATCH --output=slurm-%x-%j.out # in the folder where sbatch is called
#SBATCH --open-mode=append       # one log for all starts of the job
#SBATCH --requeue                # Slurm may start a part again after a lost node
#SBATCH --signal=B:USR2@60       # seconds before the end at which a part goes back into the queue
set -euo pipefail

MODULES="${MODULES:-}"               # modules to load, such as "python/3.11"
CONTAINER="${CONTAINER:-}"           # command before Python, such as "apptainer exec vae.sif"; empty: none
PYTHON="${PYTHON:-}"                 # Python with the project; empty: .venv, or an activated environment
SOURCE="${SOURCE:-celeba}"           # folder with img_align_celeba.zip (or unpacked) and list_eval_partition.txt
SHARDS="${SHARDS:-shards/celeba}"    # folder of the shards, on a disk that all nodes share
PARTS="${PARTS:-8}"                  # tasks of the array
MAX_REQUEUES="${MAX_REQUEUES:-20}"   # times that a part starts itself again

SCRIPT=slurm/build_shards.sh
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
require_counts PARTS
load_environment
build=(-m data_shards build celeba --source "$SOURCE" --out "$SHARDS" "${WORDS[@]}")
if [[ ${STEP:-} == merge ]]; then
  restartable in_python "${build[@]}" --merge
elif [[ ${SLURM_ARRAY_TASK_ID:-} ]]; then
  restartable in_python "${build[@]}" --part "$SLURM_ARRAY_TASK_ID/$PARTS" --workers "${SLURM_CPUS_PER_TASK:-1}"
else
  in_python "${build[@]}" --dry-run --workers "$((PARTS * ${SLURM_CPUS_PER_TASK:-4}))" >&2
  if [[ $DRY_RUN ]]; then
    asked_for "$SCRIPT"
  else
    submit_parts "$SCRIPT" "0-$((PARTS - 1))" "${WORDS[@]}"
  fi
fi
