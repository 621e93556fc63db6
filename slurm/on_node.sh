#!/usr/bin/env bash
# One node's side of a job step: on_node.sh LAUNCHER...
# Forwards USR2 and TERM to the processes that the launcher started. torchrun ends at USR2, and kills its workers 30 s
# after TERM, so it gets neither; and where Slurm tracks processes by cgroups, only this script is signalled.
set -euo pipefail

export PET_NODE_RANK="${SLURM_NODEID:-0}" # torchrun's --node-rank
PET_NPROC_PER_NODE="${NODE_PROCESSES:-1}" # and --nproc-per-node
if [[ $PET_NPROC_PER_NODE == gpus ]]; then PET_NPROC_PER_NODE="${SLURM_GPUS_ON_NODE:-1}"; fi
export PET_NPROC_PER_NODE

forward() { pkill "-$1" --parent "$launcher" || true; }

# Ignored, not reset: what the launcher starts inherits that and ignores them too until it handles them.
(trap '' USR2 TERM && exec "$@") &
launcher=$!
trap 'forward USR2' USR2
trap 'forward TERM' TERM
while kill -0 "$launcher" 2>/dev/null; do
  wait "$launcher" || true # a signal interrupts it
done
wait "$launcher"
