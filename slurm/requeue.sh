#!/usr/bin/env bash
# How a job that was stopped before its end is started again: by `scontrol requeue`, where the cluster does not allow that
# by a new job that waits for the end of this one, and else by a line that says how.
set -euo pipefail
: "${SCRIPT:?}"
# A task of an array by its own name: the number of its last task is that of the whole array too.
JOB="${SLURM_ARRAY_TASK_ID:+${SLURM_ARRAY_JOB_ID:-}_$SLURM_ARRAY_TASK_ID}"
JOB="${JOB:-${SLURM_JOB_ID:-}}"

# requeue REASON: sees to it that the rest of the work is done, at most MAX_REQUEUES times, and ends the script. A job that
# is being cancelled stays cancelled.
requeue() {
  local state starts answer
  if ! state="$(state_of_job)"; then
    say "$1; the scheduler does not answer; submit it again to continue: $(own_command)"
    exit 1
  fi
  if [[ $state != RUNNING ]]; then
    say "$1; the job is $state, so it is not started again"
    exit 1
  fi
  starts=$((${SLURM_RESTART_COUNT:-0} + ${FORMER_STARTS:-0}))
  if ((starts >= MAX_REQUEUES)); then
    say "$1; started again $MAX_REQUEUES times already (MAX_REQUEUES), so this ends; submit it again to continue"
    exit 1
  fi
  say "$1; back into the queue"
  if answer="$(scontrol requeue "$JOB" 2>&1)"; then exit 0; fi
  say "scontrol requeue: ${answer:-refused}"
  resubmit "$((starts + 1))"
}

# Prints this script with its words, as a shell reads them.
own_command() { printf '%s' "$SCRIPT" && if ((${#ALL_WORDS[@]})); then printf ' %q' "${ALL_WORDS[@]}"; fi; }

# Prints the state of this job; fails where the scheduler does not answer within three tries.
state_of_job() {
  local try
  for try in 1 2 3; do
    if squeue --noheader --jobs="$JOB" --format=%T; then return; fi
    if ((try < 3)); then sleep 5; fi
  done
  return 1
}

# resubmit STARTS: submits the rest of this job as a new one, which starts after this one's end and has been started again
# STARTS times, and ends the script. Jobs that wait for this one wait for the new one too.
resubmit() {
  local new log errors array=()
  errors="$(mktemp)"
  log="$(scontrol show job "$JOB" | sed -n 's/^ *StdOut=//p' | sed 1q)"
  if [[ ${SLURM_ARRAY_TASK_ID:-} ]]; then array=(--array="$SLURM_ARRAY_TASK_ID"); fi
  if ! new="$(FORMER_STARTS="$1" submit --dependency="afterany:$JOB" --output="$log" "${array[@]}" "$SCRIPT" "${ALL_WORDS[@]}" 2>"$errors")"; then
    say "neither requeued nor submitted from here ($(paste -sd " " "$errors")); submit it again to continue: $(own_command)"
    exit 1
  fi
  rm -f "$errors"
  say "continued by job $new"
  if ! wait_for_both "$new"; then exit 1; fi
  exit 0
}

# wait_for_both NEW: adds a job to what those jobs wait for that wait for this one. Where that is refused they must not
# start on unfinished work, so this job then ends as failed.
wait_for_both() {
  local own="${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}" job conditions kind
  while read -r job conditions; do
    conditions="$(sed 's/([^)]*)//g; s/_\*//g' <<<"$conditions")"
    if [[ $job != "$1"* && ,$conditions, =~ ,(after[a-z]*):$own, ]]; then
      kind="${BASH_REMATCH[1]}"
      if ! scontrol update JobId="$job" Dependency="$conditions,$kind:$1"; then
        say "job $job cannot be made to wait for job $1; submit it again when that has ended"
        return 1
      fi
    fi
  done < <(squeue --me --noheader --states=PENDING --format='%i %E')
}

# Sets RESOURCES to the options of sbatch that ask for what this job has.
options_of_this_job() {
  local facts option name value
  facts="$(scontrol show job "$JOB")" || fail "the scheduler does not say what job $JOB has; submit again"
  RESOURCES=(--chdir="$(sed -n 's/^ *WorkDir=//p' <<<"$facts" | sed 1q)" --job-name="$SLURM_JOB_NAME")
  if [[ $facts == *" Requeue=0 "* ]]; then RESOURCES+=(--no-requeue); fi
  if [[ $facts == *OverSubscribe=NO* ]]; then RESOURCES+=(--exclusive); fi
  while read -r option name; do
    value="$(grep -oE "(^| )$name=[^ ]+" <<<"$facts" | sed -n "1s|^ *$name=||p" || true)"
    case "$value" in "" | 0 | "(null)" | N/A) continue ;; esac
    value="${value/#gres[:\/]gpu/gpu}"
    if [[ $option == --gpus* ]]; then value="${value#gpu:}"; fi
    RESOURCES+=("$option=$value")
  done <<'LIST'
--partition Partition
--account Account
--qos QOS
--nodes NumNodes
--time TimeLimit
--cpus-per-task CPUs/Task
--mem MinMemoryNode
--mem-per-cpu MinMemoryCPU
--gres TresPerNode
--gpus TresPerJob
--gpus-per-task TresPerTask
--constraint Features
--nodelist ReqNodeList
--exclude ExcNodeList
--reservation Reservation
--licenses Licenses
LIST
}

# Succeeds where the scheduler is preempting this job.
was_preempted() {
  scontrol --oneliner show job "$JOB" | grep -q 'PreemptTime=[0-9]'
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

# stop_of RUN: prints what the trainer has written into RUN/requeue after a stop, "yes REASON" or "no REASON"; fails where it
# has written nothing, and where a file of that name is someone else's.
stop_of() {
  local line
  [[ -f $1/requeue ]] && IFS= read -r line <"$1/requeue" && [[ $line =~ ^(yes|no)" ". ]] && echo "$line"
}

# forget_stop RUN: removes what the trainer has written into RUN/requeue after a former stop, and no other file.
forget_stop() {
  if stop_of "$1" >/dev/null; then rm -f "$1/requeue"; fi
}

# end_training RUN CODE: as end_step, and requeues the job where RUN/requeue says that the run was stopped before its end.
end_training() {
  local stop
  if stop="$(stop_of "$1")" && [[ $stop == yes* ]]; then requeue "stopped by ${stop#yes }"; fi
  end_step "$2"
}
