#!/usr/bin/env bash
# How jobs are submitted: the resources of slurm/resources.sh, and an option of sbatch before each of them.
set -euo pipefail
: "${SCRIPT:?}"

# submit [OPTIONS OF SBATCH] SCRIPT WORDS...: submits a script of slurm/ and prints the job's id.
submit() {
  local options=()
  require_sbatch
  while (($#)) && ! is_script "$1"; do options+=("$1") && shift; done
  (($#)) || fail "name one of the scripts of slurm/ after the options of sbatch${options[*]:+ (${options[*]})}"
  resources_of "$1" "${options[@]}"
  (
    # A job takes over the environment of the one that submits it, its number and its GPUs too.
    for name in "${!SLURM_@}"; do [[ $name == SLURM_CONF ]] || unset "$name"; done
    sbatch --parsable "${RESOURCES[@]}" "${options[@]}" "slurm/$(basename "$1")" "${@:2}"
  )
}

require_sbatch() {
  command -v sbatch >/dev/null || fail "sbatch is not installed here; call this on a node of a Slurm cluster"
}

is_script() { [[ $1 == *.sh && -f slurm/$(basename "$1") ]]; }

# resources_of SCRIPT OPTIONS...: sets RESOURCES to the options of sbatch that stand in slurm/resources.sh for a script,
# without its GPUs where the options or the environment ask for some: sbatch adds up what --gres and --gpus-per-node ask
# for, and refuses --gpus beside them. A job that submits tasks of its own script passes on what it was given itself.
resources_of() {
  local word kept=()
  RESOURCES=()
  if [[ ${SLURM_JOB_ID:-} && $(basename "$1") == "$(basename "$SCRIPT")" ]]; then
    options_of_this_job
    return
  fi
  # shellcheck source=slurm/resources.sh
  source slurm/resources.sh "$(basename "$1" .sh)"
  if [[ ${SBATCH_GRES:-}${SBATCH_GPUS:-}${SBATCH_GPUS_PER_NODE:-}${SBATCH_GPUS_PER_TASK:-} ]] || asks_for_gpus "${@:2}"; then
    for word in "${RESOURCES[@]}"; do asks_for_gpus "$word" || kept+=("$word"); done
    RESOURCES=("${kept[@]}")
  fi
}

# Succeeds where one of sbatch's options is about GPUs; sbatch takes shortened names too.
asks_for_gpus() {
  local word
  for word in "$@"; do
    if [[ $word == --gr* || $word == --gp* || $word == -G* || $word == --tres* ]]; then return; fi
  done
  return 1
}

# asked_for [OPTIONS OF SBATCH] SCRIPT: sets ASKED_NODES and ASKED_GPUS of each node to what sbatch would ask for, and
# prints on stderr when the job would start. Ends with the scheduler's own line where it would not accept the job.
asked_for() {
  local options=() answer total each
  if [[ ${ASKED_NODES:-} ]]; then return; fi # slurm/submit.sh has asked with the options that it got
  require_sbatch
  while (($#)) && ! is_script "$1"; do options+=("$1") && shift; done
  resources_of "$1" "${options[@]}"
  if ! answer="$(timeout 60 sbatch --test-only --verbose "${RESOURCES[@]}" "${options[@]}" "slurm/$(basename "$1")" 2>&1)"; then
    scontrol ping >/dev/null 2>&1 || fail "no scheduler answers here; call this on a node of a Slurm cluster"
    fail "the scheduler would not accept this: $(grep -E 'error: |failure: ' <<<"$answer" | sed 's/^sbatch: error: //' | paste -sd ' ')"
  fi
  grep ' to start at ' <<<"$answer" >&2 || true
  ASKED_NODES="$(asked nodes "$answer")"
  ASKED_NODES="${ASKED_NODES%%-*}" # of a range, the smallest number
  ASKED_NODES="${ASKED_NODES:-1}"
  total="$(gpus_in "$(asked gpus "$answer")")"
  each="$(gpus_in "$(asked gpus-per-task "$answer"),$(asked gpus-per-node "$answer"),$(asked gres "$answer")")"
  ASKED_GPUS=$((total ? total / ASKED_NODES : each))
  export ASKED_NODES ASKED_GPUS
}

# asked OPTION ANSWER: the value that `sbatch --verbose` prints for an option; empty where it prints none.
asked() { sed -n "s/^sbatch: $1  *: //p" <<<"$2" | sed 1q; }

# gpus_in LIST: the sum of the GPUs in a list such as "2", "a100:2" or "gres:gpu:a100:2,gres:shard:4".
gpus_in() {
  local word sum=0 words
  IFS=, read -ra words <<<"$1"
  for word in "${words[@]}"; do
    if [[ $word =~ (^|[:=])([0-9]+)$ && ($word != gres* || $word == *gpu*) ]]; then
      sum=$((sum + BASH_REMATCH[2]))
    elif [[ $word == gres?gpu ]]; then
      sum=$((sum + 1))
    fi
  done
  echo "$sum"
}

# submit_parts SCRIPT PARTS WORDS...: submits an array of these parts and the merge, which starts when all have succeeded,
# and prints the merge's id. Where a part fails the merge is cancelled. AFTER, if set: the job that the array waits for.
submit_parts() {
  local script="$1" parts="$2" array
  shift 2
  array="$(submit --array="$parts" ${AFTER:+--dependency="afterok:$AFTER" --kill-on-invalid-dep=yes} "$script" "$@")"
  submit --dependency="afterok:$array" --kill-on-invalid-dep=yes --export=ALL,STEP=merge "$script" "$@"
}
