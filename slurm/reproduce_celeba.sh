#!/usr/bin/env bash
# From CelebA's zip to a run's report and every table and figure of the paper: slurm/reproduce_celeba.sh [--dry-run]
# Submits a chain of jobs, each of which waits for those it needs: shards, then the run with its mixture, distances and
# report; beside it an array that divides all trainings of the tables among its tasks, and their pages. The same command
# again does what is missing. Variables and resources of the single steps are those of their own scripts.
#
# Resources of one task of the array, of the report and of the pages:
#SBATCH --job-name=reproduce     # in the queue, and in the name of the log
#SBATCH --ntasks=1               # one share of the trainings
#SBATCH --cpus-per-task=8        # cores of a share
#SBATCH --mem=32G                # memory of a share
#SBATCH --time=24:00:00          # a job that runs out of time is continued
#SBATCH --output=slurm-%x-%j.out # in the folder where sbatch is called
#SBATCH --open-mode=append       # one log for all starts of the job
#SBATCH --requeue                # Slurm may start a share again after a lost node
#SBATCH --signal=B:USR2@600      # seconds before the end at which a share saves and goes back into the queue
set -euo pipefail

MODULES="${MODULES:-}"               # modules to load, such as "cuda/12.6 gcc/13"
CONTAINER="${CONTAINER:-}"           # command before Python, such as "apptainer exec --nv vae.sif"; empty: none
PYTHON="${PYTHON:-}"                 # Python with the project; empty: .venv, or an activated environment
SOURCE="${SOURCE:-celeba}"           # folder with img_align_celeba.zip (or unpacked) and list_eval_partition.txt
RUNS="${RUNS:-runs}"                 # folder of the run folders, on a disk that all nodes share
RUN="${RUN:-$RUNS/celeba}"           # the run that gets a report; its name is that of the trainer's configuration
COMPONENTS="${COMPONENTS:-500}"      # components of its mixture
IMAGES="${IMAGES:-500}"              # test images of its likelihood and uncertainty, and samples of its memorisation
DEVICE="${DEVICE:-}"                 # cuda or cpu; empty: cuda where the job has GPUs
PLAN="${PLAN:-}"                     # YAML file of what the tables need; empty: the project's own for CelebA
SHARES="${SHARES:-15}"               # tasks that the trainings of the tables are divided among
PARTS="${PARTS:-8}"                  # tasks of the shards, and of the distances
MAX_REQUEUES="${MAX_REQUEUES:-20}"   # times that a job starts itself again
CONFIG="${CONFIG:-trainer/configs/celeba.yaml}" # also on eight GPUs: the batch of the figures that it is compared with
export SOURCE RUNS RUN COMPONENTS IMAGES PARTS CONFIG

SCRIPT=slurm/reproduce_celeba.sh
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
require_counts SHARES PARTS
load_environment
read_resources 1
tables="$RUNS/reproduction/celeba"
plan=(--dataset celeba --runs "$tables" ${PLAN:+--plan "$PLAN"})
measure=(-m eval reproduce all "${plan[@]}")

report() {
  in_python -m eval likelihood --run "$RUN" --images "$IMAGES" --mixture "$COMPONENTS" --device "$DEVICE"
  in_python -m eval uncertainty --run "$RUN" --images "$IMAGES" --device "$DEVICE"
  in_python -m eval memorisation --run "$RUN" --images "$IMAGES" --mixture "$COMPONENTS" --device "$DEVICE"
  in_python -m eval report --run "$RUN" --mixture "$COMPONENTS" --make-nothing --device "$DEVICE"
}

# after JOBS SCRIPT WORDS...: submits a script that waits for these jobs, and is cancelled where one of them fails.
after() { submit --dependency="$1" --kill-on-invalid-dep=yes "${@:2}"; }

submit_chain() {
  local shards run mixture fid report shares pages
  shards="$(slurm/build_shards.sh)"
  run="$(after "afterok:$shards" slurm/train_celeba.sh "${WORDS[@]}")"
  mixture="$(after "afterok:$run" slurm/fit_mixture.sh)"
  fid="$(AFTER="$mixture" submit_parts slurm/eval_fid.sh "0-$((PARTS - 1))")"
  report="$(after "afterok:$fid" --export=ALL,STEP=report slurm/reproduce_celeba.sh)"
  shares="$(after "afterok:$shards" --array="0-$((SHARES - 1))" --export=ALL,STEP=share slurm/reproduce_celeba.sh)"
  # Also where a share failed: the pages then list what is missing.
  pages="$(after "afterany:$shares" --export=ALL,STEP=pages slurm/reproduce_celeba.sh)"
  say "shards $shards, run $run, mixture $mixture, distances $fid, report $report, tables $shares, pages $pages"
  say "at the end: $RUN/report.html and $tables/pages"
}

case "${STEP:-}" in
  report) restartable report ;;
  share) restartable in_python "${measure[@]}" --device "$DEVICE" --part "$SLURM_ARRAY_TASK_ID/$SHARES" --processes 1 ;;
  pages) restartable in_python "${measure[@]}" --pages-only ;;
  *)
    in_python "${measure[@]}" --device "$DEVICE" --source "$SOURCE" --processes "$SHARES" --dry-run
    if [[ $DRY_RUN ]]; then
      unset ASKED_NODES ASKED_GPUS # each step asks for its own
      slurm/build_shards.sh --dry-run
      for script in train_celeba fit_mixture eval_fid; do (asked_for "slurm/$script.sh"); done
    else
      submit_chain
    fi
    ;;
esac
