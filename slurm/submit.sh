#!/usr/bin/env bash
# Submits a job with the resources of slurm/resources.sh and prints its id:
#   slurm/submit.sh [OPTIONS OF SBATCH] slurm/train_celeba.sh [WORDS] [--dry-run]
# An option of sbatch goes before the same one of slurm/resources.sh and of the script. With --dry-run nothing is submitted.
set -euo pipefail

SCRIPT=slurm/submit.sh
cd "${SIGMA_VAE_HOME:-$(dirname "$(realpath "$0")")/..}" || exit 2
# shellcheck source=slurm/lib.sh
source slurm/lib.sh
read_words "$@"
if [[ $DRY_RUN ]]; then
  while ((${#WORDS[@]})) && ! is_script "${WORDS[0]}"; do options+=("${WORDS[0]}") && WORDS=("${WORDS[@]:1}"); done
  ((${#WORDS[@]})) || fail "name one of the scripts of slurm/ after the options of sbatch"
  asked_for "${options[@]}" "${WORDS[0]}"
  exec "slurm/$(basename "${WORDS[0]}")" "${WORDS[@]:1}" --dry-run
fi
submit "$@"
