#!/usr/bin/env bash
# The distance of a run's samples from real images: slurm/eval_fid.sh [options of eval fid] [--dry-run]
# Submits an array with one part of the images a task, and the merge after it. After a part has failed, the same command
# again runs only that part, then the merge.
#
#SBATCH --job-name=fid           # in the queue, and in the name of the log
#SBATCH --ntasks=1               # one part a task
#SBATCH --cpus-per-task=8        # cores of a part
#SBATCH --mem=32G                # memory of a part
#SBATCH --time=01:00:00          # of a part
#SBATCH --output=slurm-%x-%j.out # in the folder where sbatch is called
#SBATCH --open-mode=append       # one log for all starts of the job
#SBATCH --requeue                # Slurm may start a part again after a lost node
#SBATCH --signal=B:USR2@60       # seconds before the end at which a part goes back into the queue
set -euo pipefail

MODULES="${MODULES:-}"               # modules to load, such as "cuda/12.6"
CONTAINER="${CONTAINER:-}"           # command before Python, such as "apptainer exec --nv vae.sif"; empty: none
PYTHON="${PYTHON:-}"                 # Python with the project; empty: .venv, or an activated environment
RUN="${RUN:-runs/celeba}"            # run folder, on a disk that all nodes share
COMPONENTS="${COMPONENTS:-500}"      # components of the fitted mixture, unless --mixture is given
SAMPLES="${SAMPLES:-10000}"          # samples compared, unless --n is given
DEVICE="${DEVICE:-}"                 # cuda or cpu; empty: cuda where the job has GPUs
PARTS="${PARTS:-4}"                  # tasks of the array
MAX_REQUEUES="${MAX_REQUEUES:-20}"   # times that a part starts itself again

SCRIPT=slurm/eval_fid.sh
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
read_resources 1
from="$(given --from || echo q_hat)"
fid=(-m eval fid --run "$RUN" --from "$from" "${WORDS[@]}")
case "$from" in
  q_hat | transported) given --mixture >/dev/null || fid+=(--mixture "$COMPONENTS") ;;
esac
[[ $from == half ]] || given --n >/dev/null || fid+=(--n "$SAMPLES")
if [[ ${STEP:-} == merge ]]; then
  restartable in_python "${fid[@]}" --device "$DEVICE" --merge "$PARTS"
elif [[ ${SLURM_ARRAY_TASK_ID:-} ]]; then
  restartable in_python "${fid[@]}" --device "$DEVICE" --part "$SLURM_ARRAY_TASK_ID/$PARTS"
else
  in_python "${fid[@]}" --device "$DEVICE" --dry-run --processes "$PARTS" >&2
  missing="$(in_python "${fid[@]}" --missing "$PARTS")"
  say "parts to make: ${missing:-none}" >&2
  if [[ $DRY_RUN ]]; then
    exit
  elif [[ $missing ]]; then
    submit_parts "$SCRIPT" "$missing" "${WORDS[@]}"
  else
    submit --export=ALL,STEP=merge "$SCRIPT" "${WORDS[@]}"
  fi
fi
