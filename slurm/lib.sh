#!/usr/bin/env bash
# What the batch scripts share: strict mode, the environment, the rendezvous of processes, signals, and requeueing.
# A script sources it from the project's folder, after it has set its variables.
set -euo pipefail

say() { echo "$(date '+%F %T') ${SLURM_JOB_ID:+job $SLURM_JOB_ID }$*"; }

# Splits the command line into DRY_RUN, which is set for --dry-run, and WORDS, which are passed to Python.
read_words() {
  # shellcheck disable=SC2034 # the scripts read both
  DRY_RUN="" WORDS=()
  local word
  for word in "$@"; do
    # shellcheck disable=SC2034
    if [[ $word == --dry-run ]]; then DRY_RUN=yes; else WORDS+=("$word"); fi
  done
}

# Runs Python in the project's environment, in the container where there is one.
in_python() { "${IN_PYTHON[@]}" "$@"; }

load_environment() {
  local module words
  read -ra words <<<"$MODULES"
  for module in "${words[@]}"; do module load "$module"; done
  read -ra words <<<"$CONTAINER"
  IN_PYTHON=("${words[@]}" "$PYTHON")
  if ! "${IN_PYTHON[@]}" -c 'import trainer' 2>/dev/null; then
    say "PYTHON: '${IN_PYTHON[*]}' cannot import the project; run \`make .venv/.installed\`, or set PYTHON or CONTAINER" >&2
    exit 2
  fi
}

# Checks that the scheduler would accept the script: partition, account, nodes, GPUs, time. Starts nothing.
check_scheduler() {
  if [[ -z ${SLURM_JOB_ID:-} ]]; then sbatch --test-only "$@"; fi
}

# node_address NODE: the address at which a node can be reached; on most clusters it equals the node's name.
node_address() { scontrol --oneliner show node "$1" | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p'; }

# Sets NODES, and MASTER_ADDR and MASTER_PORT to the first node of the allocation and a free port that depends on the
# job's id.
set_rendezvous() {
  mapfile -t NODES < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  MASTER_ADDR="$(node_address "${NODES[0]}")"
  MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
  while (: <"/dev/tcp/$MASTER_ADDR/$MASTER_PORT") 2>/dev/null; do MASTER_PORT=$((MASTER_PORT + 1)); done
  export MASTER_ADDR MASTER_PORT
}

# on_all_nodes MODULE WORDS...: `python -m MODULE WORDS` in PROCESSES processes on each node.
on_all_nodes() {
  set_rendezvous
  local cpus=$((${SLURM_CPUS_PER_TASK:-1}))
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cpus > PROCESSES ? cpus / PROCESSES : 1))}"
  local step=(srun --kill-on-bad-exit=1 --nodes="$SLURM_JOB_NUM_NODES")
  if [[ $LAUNCH == srun ]]; then
    step+=(--ntasks=$((SLURM_JOB_NUM_NODES * PROCESSES)) --ntasks-per-node="$PROCESSES" --cpus-per-task=$((cpus > PROCESSES ? cpus / PROCESSES : 1)))
    # Ignored until Python handles them: they would end a process that is still starting.
    "${step[@]}" bash -c "trap '' USR2 TERM; exec \"\$@\"" bash "${IN_PYTHON[@]}" -m "$@"
  else
    step+=(--ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="$cpus")
    # -- keeps torchrun from reading the module's options as its own.
    "${step[@]}" slurm/on_node.sh "${IN_PYTHON[@]}" -m torch.distributed.run \
      --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node="$PROCESSES" --signals-to-handle=SIGINT \
      --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" -m -- "$@"
  fi
}

# requeue REASON: puts this job back into the queue, at most MAX_REQUEUES times, and ends the script. A job that is being
# cancelled stays cancelled.
requeue() {
  local state
  state="$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)"
  if [[ $state != RUNNING ]]; then
    say "$1; the job is $state, so it is not started again"
    exit 1
  fi
  if ((${SLURM_RESTART_COUNT:-0} >= MAX_REQUEUES)); then
    say "$1; started again $MAX_REQUEUES times already (MAX_REQUEUES), so this ends; submit it again to continue"
    exit 1
  fi
  say "$1; back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}

# Succeeds where the scheduler is preempting this job.
was_preempted() {
  scontrol --oneliner show job "$SLURM_JOB_ID" | grep -q 'PreemptTime=[0-9]'
}

# Succeeds where a node of the job does not answer. A step fails as soon as a node is lost, long before Slurm marks the
# node as down, so an empty step is run on each node.
a_node_is_lost() {
  ! timeout 60 srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
    --quiet true 2>/dev/null
}

# end_step CODE: requeues the job where a failed step was preempted or lost a node; any other failure is final.
end_step() {
  if (($1)) && was_preempted; then requeue "preempted"; fi
  if (($1)) && a_node_is_lost; then requeue "a node was lost"; fi
  if (($1)); then say "failed with exit code $1; not started again"; fi
  exit "$1"
}

# end_training RUN CODE: as end_step, and requeues the job where RUN/requeue says that the run was stopped before its end.
end_training() {
  if [[ -f $1/requeue && $(<"$1/requeue") == yes* ]]; then requeue "stopped by $(cut -d ' ' -f 2- "$1/requeue")"; fi
  end_step "$2"
}

# restartable COMMAND...: runs a command that can be interrupted and continued, in a job with --signal=B:USR2@SECONDS, and
# requeues the job on that signal.
restartable() {
  local code=0
  trap 'requeue "out of time"' USR2
  "$@" &
  wait $! || code=$?
  trap '' USR2
  if ((code)); then end_step "$code"; fi
}

# submit_parts SCRIPT PARTS WORDS...: submits an array of these parts and the merge, which starts when all have succeeded,
# and prints the merge's id. Where a part fails the merge is cancelled. AFTER, if set: the job that the array waits for.
submit_parts() {
  local script="$1" parts="$2" array
  shift 2
  array="$(sbatch --parsable --array="$parts" ${AFTER:+--dependency="afterok:$AFTER" --kill-on-invalid-dep=yes} "$script" "$@")"
  sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes --export=ALL,STEP=merge "$script" "$@"
}
