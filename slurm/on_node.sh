#!/usr/bin/env bash
# One node's side of a job step: on_node.sh LAUNCHER...
# Hands USR2 and TERM on to the processes that the launcher started. torchrun dies of USR2 and kills its workers 30 s
# after TERM, so it gets neither; and where Slurm keeps track of processes by cgroups, this script alone is signalled.
set -euo pipefail

export PET_NODE_RANK="${SLURM_NODEID:-0}" # torchrun's --node-rank

hand_on() { pkill "-$1" --parent "$launcher" || true; }

# Ignored, not reset: what the launcher starts ignores them too until it takes them itself.
(trap '' USR2 TERM && exec "$@") &
launcher=$!
trap 'hand_on USR2' USR2
trap 'hand_on TERM' TERM
while kill -0 "$launcher" 2>/dev/null; do
  wait "$launcher" || true # a signal interrupts it
done
wait "$launcher"
