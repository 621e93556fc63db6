#!/usr/bin/env bash
# The distance of a run's samples from real images: slurm/eval_fid.sh [options of eval fid] [--dry-run]
# Submits an array with one part of the images a task, and the merge after it. After a part has failed, the same command
# again runs only that part, then the merge.
#
#SBATCH --job-name=fid           # in the queue, and in the name of the log
#SBATCH --ntasks=1               # one part a task
#SBATCH --gpus-per-node=1        # a part and the merge use one GPU
#SBATCH --cpus-per-task=8        # cores of a part
#SBATCH --time=01:00:00          # of a part
#SBATCH --output=slurm-%x-%j.out # in the folder where sbatch is called
#SBATCH --open-mode=append       # one log for all starts of the job
#SBATCH --requeue                # Slurm may start a part again after a lost node
#SBATCH --signal=B:USR2@60       # seconds before the end at which a part goes back into the queue
set -euo pipefail

MODULES="${MODULES:-}"               # modules to load, such as "cuda/12.6"
CONTAINER="${CONTAINER:-}"           # command before Python, such as "apptainer exec --nv vae.sif"; empty: none
PYTHON="${PYTHON:-.venv/bin/python}" # the Python in which the project is installed
RUN="${RUN:-runs/celeba}"            # run folder, on a disk that all nodes share
COMPONENTS="${COMPONENTS:-500}"      # components of the fitted mixture, unless --mixture is given
SAMPLES="${SAMPLES:-10000}"          # samples compared, unless --n is given
DEVICE="${DEVICE:-cuda}"             # cuda or cpu
PARTS="${PARTS:-4}"                  # tasks of the array
MAX_REQUEUES="${MAX_REQUEUES:-20}"   # times that a part starts itself again

cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}" # sbatch runs a copy, so only the folder of submission is known
# shellcheck source=slurm/lib.sh
source slurm/lib.sh
read_words "$@"
load_environment
fid=(-m eval fid --run "$RUN" --from q_hat --mixture "$COMPONENTS" --n "$SAMPLES" "${WORDS[@]}")
if [[ ${STEP:-} == merge ]]; then
  restartable in_python "${fid[@]}" --device "$DEVICE" --merge "$PARTS"
elif [[ ${SLURM_ARRAY_TASK_ID:-} ]]; then
  restartable in_python "${fid[@]}" --device "$DEVICE" --part "$SLURM_ARRAY_TASK_ID/$PARTS"
else
  in_python "${fid[@]}" --device "$DEVICE" --dry-run --processes "$PARTS" >&2
  missing="$(in_python "${fid[@]}" --missing "$PARTS")"
  say "parts to make: ${missing:-none}" >&2
  if [[ $DRY_RUN ]]; then
    check_scheduler ${missing:+--array="$missing"} slurm/eval_fid.sh
  elif [[ $missing ]]; then
    submit_parts slurm/eval_fid.sh "$missing" "${WORDS[@]}"
  else
    sbatch --parsable --export=ALL,STEP=merge slurm/eval_fid.sh "${WORDS[@]}"
  fi
fi
