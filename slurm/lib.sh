#!/usr/bin/env bash
# What the batch scripts share: the environment, what a job has, the checks at its start, processes on all nodes, and
# signals. A script sources it from the project's folder, after it has set its variables and SCRIPT, its own name.
set -euo pipefail
: "${SCRIPT:?}"

say() { echo "$(date '+%F %T') ${SLURM_JOB_ID:+job $SLURM_JOB_ID }$*"; }

# fail MESSAGE: ends the script with one line.
fail() {
  echo "error: $SCRIPT: $*" >&2
  exit 2
}

# shellcheck source=slurm/submission.sh
source slurm/submission.sh
# shellcheck source=slurm/requeue.sh
source slurm/requeue.sh
export SIGMA_VAE_HOME="$PWD" # for the jobs that this one submits
EXPIRED="" # set once the job was told that its time ends

# Splits the command line into DRY_RUN, which is set for --dry-run, and WORDS, which are passed to Python; ALL_WORDS has both.
read_words() {
  # shellcheck disable=SC2034 # the scripts read them
  DRY_RUN="" WORDS=() ALL_WORDS=("$@")
  local word
  for word in "$@"; do
    # shellcheck disable=SC2034
    if [[ $word == --dry-run ]]; then DRY_RUN=yes; else WORDS+=("$word"); fi
  done
}

# given OPTION: prints the last value of an option among WORDS; fails where it is not there.
given() {
  local number value found=""
  for ((number = 0; number < ${#WORDS[@]}; number++)); do
    case "${WORDS[number]}" in
      "$1") value="${WORDS[number + 1]:-}" found=yes ;;
      "$1="*) value="${WORDS[number]#*=}" found=yes ;;
    esac
  done
  [[ $found ]] && echo "$value"
}

# require_seconds NAMES...: fails where one of these variables is no whole number of seconds.
require_seconds() {
  local name
  for name in "$@"; do
    [[ ${!name} =~ ^[1-9][0-9]{0,6}$ ]] || fail "$name is '${!name}'; give a whole number of seconds"
  done
}

# require_counts NAMES...: fails where one of these variables is no whole number from 1. Bash would read a word as the name
# of a variable, and a leading zero as octal.
require_counts() {
  local name
  for name in "$@"; do
    [[ ${!name} =~ ^[1-9][0-9]{0,5}$ ]] || fail "$name is '${!name}'; give a whole number from 1, without leading zeros"
  done
}

# Runs Python in the project's environment, in the container where there is one.
in_python() { "${IN_PYTHON[@]}" "$@"; }

# PYTHON if it is set, else the project's .venv, else the environment that conda or venv has activated.
load_environment() {
  local module words place
  [[ ${MAX_REQUEUES:-0} =~ ^(0|[1-9][0-9]{0,5})$ ]] || fail "MAX_REQUEUES is '$MAX_REQUEUES'; give a whole number below a million, without leading zeros"
  read -ra words <<<"$MODULES"
  if ((${#words[@]})) && ! type module >/dev/null 2>&1; then fail "MODULES: this shell has no command 'module'"; fi
  for module in "${words[@]}"; do module load "$module" || fail "MODULES: module load $module failed"; done
  for place in .venv "${CONDA_PREFIX:-}" "${VIRTUAL_ENV:-}"; do
    if [[ -z $PYTHON && $place && -x $place/bin/python ]]; then PYTHON="$place/bin/python"; fi
  done
  read -ra words <<<"$CONTAINER"
  IN_PYTHON=("${words[@]}" "${PYTHON:-python}")
  if ! "${IN_PYTHON[@]}" -c 'import trainer' 2>/dev/null; then
    fail "PYTHON: '${IN_PYTHON[*]}' cannot import the project; run \`make .venv/.installed\`, activate its conda environment, or set PYTHON or CONTAINER"
  fi
}

# read_resources [PROCESSES]: sets NODE_COUNT, DEVICE, NODE_PROCESSES and ALL_PROCESSES of the job from what it has or, before
# it is submitted, from what sbatch would ask for; PROCESSES of each node are one a GPU where they are not given. --gpus may
# give nodes different numbers of GPUs: NODE_PROCESSES is then "gpus".
read_resources() {
  local number least most=0 sum=0 gpus=()
  if [[ ${SLURM_JOB_ID:-} ]]; then
    NODE_COUNT="${SLURM_JOB_NUM_NODES:-1}"
    # A step would read these as options of its own, and ask one node for the GPUs of all.
    unset SLURM_GPUS SLURM_GPUS_PER_NODE SLURM_GPUS_PER_TASK SLURM_TRES_PER_TASK
    mapfile -t gpus < <(gpus_of_each_node)
    ((${#gpus[@]})) || fail "the scheduler does not know job $SLURM_JOB_ID (SLURM_JOB_ID), or does not answer"
  else
    asked_for "$SCRIPT"
    NODE_COUNT="$ASKED_NODES"
    gpus=("$ASKED_GPUS")
  fi
  least="${gpus[0]}"
  for number in "${gpus[@]}"; do
    least=$((number < least ? number : least)) most=$((number > most ? number : most)) sum=$((sum + number))
  done
  if ((${#gpus[@]} < NODE_COUNT)); then sum=$((most * NODE_COUNT)); fi
  DEVICE="$(given --device || echo "${DEVICE:-}")"
  DEVICE="${DEVICE:-$( ((most)) && echo cuda || echo cpu)}"
  if [[ ${1:-} ]]; then
    [[ $1 =~ ^[1-9][0-9]*$ ]] || fail "PROCESSES is '$1'; give the number of processes of each node"
    NODE_PROCESSES="$1" ALL_PROCESSES=$(($1 * NODE_COUNT))
  elif ((least < most)); then
    NODE_PROCESSES=gpus ALL_PROCESSES="$sum"
    ((least)) || fail "a node has no GPU and another has $most; ask for them with --gpus-per-node"
    [[ ${LAUNCH:-torchrun} == torchrun ]] || fail "LAUNCH=srun starts as many tasks on each node, and they have $least to $most GPUs; ask for them with --gpus-per-node"
  else
    NODE_PROCESSES=$((most > 0 ? most : 1))
    ALL_PROCESSES=$((NODE_PROCESSES * NODE_COUNT))
  fi
  if [[ $DEVICE == cuda && $NODE_PROCESSES != gpus ]] && ((NODE_PROCESSES > least)); then
    fail "$NODE_PROCESSES processes a node need as many GPUs, and the job has $least a node; ask for --gpus-per-node=$NODE_PROCESSES (sbatch or slurm/resources.sh), or set PROCESSES, or DEVICE=cpu"
  fi
  if ((most == 0)); then say "no GPU was asked for: $NODE_PROCESSES process(es) a node, on the CPU" >&2; fi
  GPUS="$most"
}

# The number of GPUs of each node of this job, a line each.
gpus_of_each_node() {
  local line nodes gpus
  while read -r line; do
    nodes="${line#Nodes=}" gpus=0
    if [[ $line =~ gpu:([^\(:]*:)?([0-9]+)\( ]]; then gpus="${BASH_REMATCH[2]}"; fi
    scontrol show hostnames "${nodes%% *}" | sed "s/.*/$gpus/"
  done < <(scontrol --details show job "$JOB" 2>/dev/null | grep -o 'Nodes=.* GRES=.*')
}

# A script that is one job ends here with one line where it is called without sbatch, unless it is a dry run.
require_job() {
  [[ ${SLURM_JOB_ID:-} || $DRY_RUN ]] || fail "this is a batch job; submit it: slurm/submit.sh $SCRIPT, or sbatch [OPTIONS] $SCRIPT"
}

# Checks on every node of a job what the processes there need.
check_nodes() {
  local output
  if [[ ! ${LAUNCH:-torchrun} =~ ^(torchrun|srun)$ ]]; then fail "LAUNCH is '$LAUNCH'; use torchrun or srun"; fi
  if ! output="$(timeout 120 srun --export=ALL --quiet --nodes="$NODE_COUNT" --ntasks="$NODE_COUNT" --ntasks-per-node=1 \
    bash -c "$(declare -f check_node); check_node \"\$@\"" bash "$PWD" "$DEVICE" "$NODE_PROCESSES" "${IN_PYTHON[@]}" 2>&1)"; then
    fail "$(grep '^node ' <<<"$output" | sort -u | head -n 1 || echo "no check of the nodes within 120 s: ${output:-no answer}")"
  fi
}

# check_node PROJECT DEVICE PROCESSES PYTHON...: runs on a node. One line says what is missing.
check_node() {
  local host="node ${SLURMD_NODENAME:-$HOSTNAME}" seen
  cd "$1" 2>/dev/null || { echo "$host does not see $1; project, shards and runs must lie on a disk that all nodes share" && return 2; }
  "${@:4}" -c 'import trainer' 2>/dev/null || { echo "$host: '${*:4}' cannot import the project there" && return 2; }
  [[ $2 == cuda ]] || return 0
  [[ $3 != gpus ]] || set -- "$1" "$2" "${SLURM_GPUS_ON_NODE:-1}" "${@:4}"
  seen="$("${@:4}" -c 'import torch; print(torch.cuda.device_count())' 2>/dev/null | tail -n 1)"
  ((${seen:-0} >= $3)) || { echo "$host: PyTorch sees ${seen:-0} GPUs, and $3 are needed; look at the driver (nvidia-smi), MODULES and CONTAINER, or set DEVICE=cpu" && return 2; }
}

# node_address NODE: the address at which a node can be reached; on most clusters it equals the node's name.
node_address() { scontrol --oneliner show node "$1" | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p'; }

is_used() { (: <"/dev/tcp/$1/$2") 2>/dev/null; }

# Sets NODES, MASTER_ADDR to the first of them, where this script runs, and MASTER_PORT. That port and the nine after it
# are this job's own: they follow from its id, and nobody listens at them now.
set_rendezvous() {
  local port
  mapfile -t NODES < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  MASTER_ADDR="$(node_address "${NODES[0]}")"
  MASTER_PORT=$((20000 + SLURM_JOB_ID % 1200 * 10)) # below 32768, where the kernel's own choices begin
  for ((port = MASTER_PORT; port < MASTER_PORT + 10; port++)); do
    if is_used "$MASTER_ADDR" "$port" || is_used 127.0.0.1 "$port"; then MASTER_PORT=$((MASTER_PORT + 10)); fi
    ((MASTER_PORT < 32000)) || fail "${NODES[0]} has no ten free ports from $port on"
  done
  export MASTER_ADDR MASTER_PORT
}

# on_all_nodes MODULE WORDS...: `python -m MODULE WORDS` in NODE_PROCESSES processes on each node.
on_all_nodes() {
  set_rendezvous
  local cpus=$((${SLURM_CPUS_PER_TASK:-1})) most="$NODE_PROCESSES"
  if [[ $most == gpus ]]; then most="$GPUS"; fi
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cpus > most ? cpus / most : 1))}"
  # --export=ALL: the environment of this script, also where the job was submitted with --export=LIST.
  local step=(srun --export=ALL --kill-on-bad-exit=1 --nodes="$NODE_COUNT")
  if [[ $LAUNCH == srun ]]; then
    step+=(--ntasks="$ALL_PROCESSES" --ntasks-per-node="$NODE_PROCESSES" --cpus-per-task=$((cpus > most ? cpus / most : 1)))
    # Ignored until Python handles them: they would end a process that is still starting.
    "${step[@]}" bash -c "trap '' USR2 TERM; exec \"\$@\"" bash "${IN_PYTHON[@]}" -m "$@"
  else
    step+=(--ntasks="$NODE_COUNT" --ntasks-per-node=1 --cpus-per-task="$cpus")
    # -- keeps torchrun from reading the module's options as its own.
    "${step[@]}" env NODE_PROCESSES="$NODE_PROCESSES" slurm/on_node.sh "${IN_PYTHON[@]}" -m torch.distributed.run \
      --nnodes="$NODE_COUNT" --signals-to-handle=SIGINT \
      --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" -m -- "$@"
  fi
}

# restartable COMMAND...: runs a command that can be interrupted and continued, in a job with --signal=B:USR2@SECONDS. At that
# signal and at scancel its processes are told to end, which a training does after it has saved; at that signal the job is
# then requeued, unless that was the last of its commands and has succeeded.
restartable() {
  local code=0 asked=""
  if [[ $EXPIRED ]]; then requeue "out of time"; fi
  trap 'asked=USR2 && end_work' USR2
  trap 'asked=TERM && end_work' TERM
  (trap : USR2 TERM && "$@") & # it ends after what it runs, and not before
  WORK=$!
  while kill -0 "$WORK" 2>/dev/null; do
    wait "$WORK" || true # a signal interrupts it
  done
  trap '' USR2 TERM
  wait "$WORK" || code=$?
  if [[ $asked == TERM ]]; then say "ended by SIGTERM; submitted again, it continues" && exit 143; fi
  if [[ $asked ]] && ((code)); then requeue "out of time"; fi
  if ((code)); then end_step "$code"; fi
  EXPIRED="$asked"
}

# Sends SIGTERM to what the process WORK has started, and SIGKILL after 30 s. Processes of a step get it through Slurm: srun,
# if it got it, would end them at once.
end_work() {
  local child children=()
  for child in $(pgrep --parent "$WORK" || true); do
    if [[ $(ps --no-headers --format comm --pid "$child") == srun ]]; then
      scancel --signal=TERM "$JOB" || true
    else
      children+=("$child")
    fi
  done
  kill -TERM "${children[@]}" 2>/dev/null || true
  (sleep 30 && kill -KILL "$WORK" "${children[@]}" 2>/dev/null || true) &
}
