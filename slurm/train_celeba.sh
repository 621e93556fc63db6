#!/usr/bin/env bash
# Trains both stages on any number of nodes: slurm/submit.sh [OPTIONS OF SBATCH] slurm/train_celeba.sh [--any.field value]
# Fields of the trainer's configuration pass through; with --dry-run the run is checked and its cost estimated for the
# resources that are asked for.
#
# Resources; an option of sbatch goes before these: slurm/submit.sh --nodes=4 slurm/train_celeba.sh
#SBATCH --job-name=celeba        # in the queue, and in the name of the log
#SBATCH --nodes=1                # machines
#SBATCH --ntasks-per-node=1      # one launcher a machine, which starts PROCESSES; GPUs stand in slurm/resources.sh
#SBATCH --cpus-per-task=8        # cores of each machine, for all its processes and their readers
#SBATCH --mem=32G                # memory of each machine
#SBATCH --time=12:00:00          # a job that runs out of time is continued
#SBATCH --output=slurm-%x-%j.out # in the folder where sbatch is called
#SBATCH --open-mode=append       # one log for all starts of the job
#SBATCH --requeue                # Slurm may start the job again after a lost node
#SBATCH --signal=USR2@600        # seconds before the end at which the run saves and stops
set -euo pipefail

MODULES="${MODULES:-}"                           # modules to load, such as "cuda/12.6 gcc/13"
CONTAINER="${CONTAINER:-}"                       # command before Python, such as "apptainer exec --nv vae.sif"; empty: none
PYTHON="${PYTHON:-}"                             # Python with the project; empty: .venv, or an activated environment
CONFIG="${CONFIG:-}"                             # the trainer's configuration, unless --config is given; empty: celeba.yaml, or
                                                 # celeba_8gpu.yaml for a new run on eight GPUs
SHARDS="${SHARDS:-}"                             # shards, on a disk that all nodes share; empty: those of the configuration
RUNS="${RUNS:-}"                                 # folder of the run folders, on that disk too; empty: the configuration's
PROCESSES="${PROCESSES:-}"                       # processes of each node; empty: one a GPU
DEVICE="${DEVICE:-}"                             # cuda or cpu; empty: cuda where the job has GPUs
LAUNCH="${LAUNCH:-torchrun}"                     # torchrun: one a node; srun: every process is a task of Slurm
MAX_REQUEUES="${MAX_REQUEUES:-20}"               # times that the job starts itself again

SCRIPT=slurm/train_celeba.sh
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
if [[ -z $CONFIG ]]; then
  CONFIG=trainer/configs/celeba.yaml
  if [[ $DEVICE == cuda && ! -e ${RUNS:-runs}/celeba/config.yaml ]] && ((ALL_PROCESSES == 8)) && ! given --config >/dev/null; then
    CONFIG=trainer/configs/celeba_8gpu.yaml
    say "eight GPUs: $CONFIG, a batch of 800; RUN of the other scripts is ${RUNS:-runs}/celeba-8gpu; CONFIG=trainer/configs/celeba.yaml keeps 100" >&2
  fi
fi
fields=(--device "$DEVICE" ${SHARDS:+--data.shards "$SHARDS"} ${RUNS:+--runs "$RUNS"} "${WORDS[@]}")
given --config >/dev/null || fields=(--config "$CONFIG" "${fields[@]}")
estimate=(-m trainer --dry-run --processes "$ALL_PROCESSES" "${fields[@]}")
if [[ $DRY_RUN ]]; then
  in_python "${estimate[@]}"
  exit
fi

check_nodes
run="$(in_python "${estimate[@]}" --print-folder)"
forget_stop "$run"
on_all_nodes trainer "${fields[@]}" && code=0 || code=$?
end_training "$run" "$code"
