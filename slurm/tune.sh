#!/usr/bin/env bash
# A sweep on a Ray cluster inside one allocation: slurm/submit.sh [OPTIONS OF SBATCH] slurm/tune.sh [options of tune]
# The job ends with the sweep. Out of time, preempted or signalled by USR2 it is requeued, and the sweep continues. After
# scancel JOB running trials save first, for at most 20 s; submitted again, the sweep continues.
#
#SBATCH --job-name=sweep         # in the queue, and in the name of the log
#SBATCH --nodes=1                # machines
#SBATCH --ntasks-per-node=1      # one Ray node a machine; GPUs stand in slurm/resources.sh
#SBATCH --cpus-per-task=8        # cores of each machine that trials share
#SBATCH --mem=32G                # memory of each machine
#SBATCH --time=24:00:00          # a job that runs out of time is continued
#SBATCH --output=slurm-%x-%j.out # in the folder where sbatch is called
#SBATCH --open-mode=append       # one log for all starts of the job
#SBATCH --requeue                # Slurm may start the job again after a lost node
#SBATCH --signal=B:USR2@180      # seconds before the end at which running trials save and the job goes back into the queue
set -euo pipefail

MODULES="${MODULES:-}"                             # modules to load, such as "cuda/12.6 gcc/13"
CONTAINER="${CONTAINER:-}"                         # command before Python, such as "apptainer exec --nv vae.sif"; empty: none
PYTHON="${PYTHON:-}"                               # Python with the project; empty: .venv, or an activated environment
SWEEP="${SWEEP:-tune/configs/celeba.yaml}"         # the sweep; its folder must lie on a disk that all nodes share
RAY_FOLDER="${RAY_FOLDER:-/tmp/ray-${SLURM_JOB_ID:-}}" # Ray's logs and sockets, on a disk of each node; keep it short
RAY_WAIT="${RAY_WAIT:-300}"                        # seconds in which all nodes have to join Ray
SAVE_WAIT="${SAVE_WAIT:-90}"                       # seconds in which running trials have to save at the end
DEVICE="${DEVICE:-}"                               # cuda or cpu; empty: cuda where the job has GPUs
MAX_REQUEUES="${MAX_REQUEUES:-20}"                 # times that the job starts itself again

SCRIPT=slurm/tune.sh
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
require_seconds RAY_WAIT SAVE_WAIT
# Below it lie sockets, whose paths Linux limits to 107 letters.
[[ $RAY_FOLDER == /* && ${#RAY_FOLDER} -le 40 ]] || fail "RAY_FOLDER is '$RAY_FOLDER'; give a path of at most 40 letters that begins with /"
load_environment
LAUNCH="" # of the other scripts: here Ray starts all processes
read_resources ""
if [[ ! $DRY_RUN ]]; then check_nodes; fi
cpus="${SLURM_CPUS_PER_TASK:-1}"
in_python -m tune --config "$SWEEP" --dry-run --processes "$((GPUS ? ALL_PROCESSES : NODE_COUNT * cpus))"
[[ ! $DRY_RUN ]] || exit 0

# on_node NODE COMMAND...: one process of this job on one node, with NODE_GPUS. USR2 does not end it, unless it asks for it.
# Where the job was asked for with --gpus, Slurm would ask one node for those of all, unless told otherwise.
on_node() {
  local asked=()
  if [[ $(scontrol show job "$SLURM_JOB_ID") == *TresPerJob=* ]]; then asked=(--gres=none); fi
  if ((${#asked[@]} && ${NODE_GPUS:-0})); then asked=(--gpus="$NODE_GPUS"); fi
  srun --export=ALL --overlap --nodes=1 --ntasks=1 --cpus-per-task="$cpus" --nodelist="$1" "${asked[@]}" \
    bash -c "trap '' USR2; exec \"\$@\"" bash "${IN_PYTHON[@]}" "${@:2}"
}

# gpus_of NODE: the number of this job's GPUs on a node.
gpus_of() {
  local of_nodes number=0
  mapfile -t of_nodes < <(gpus_of_each_node)
  while [[ ${NODES[number]} != "$1" ]]; do number=$((number + 1)); done
  echo "${of_nodes[number]}"
}

# ray_on NODE OPTIONS...: runs Ray on one node until the job ends, at ports that no other Ray of this node has. Trials pass
# no data through Ray, so its store is small.
ray_on() {
  local gpus=0
  if [[ $DEVICE == cuda ]]; then gpus="$(gpus_of "$1")"; fi
  NODE_GPUS="$gpus" on_node "$1" slurm/ray_node.py --disable-usage-stats --node-ip-address="$(node_address "$1")" \
    --num-cpus="$cpus" --num-gpus="$gpus" --object-store-memory=200000000 --min-worker-port=0 --max-worker-port=0 "${@:2}"
}

# ray_has_started: waits until the head's port is open and all nodes have joined, at most RAY_WAIT seconds each.
ray_has_started() {
  local end=$((SECONDS + RAY_WAIT))
  until is_used "$MASTER_ADDR" "$MASTER_PORT"; do
    kill -0 "$head" 2>/dev/null || fail "Ray's head did not start on ${NODES[0]}; its own message stands above"
    ((SECONDS < end)) || fail "Ray's head on ${NODES[0]} does not answer after $RAY_WAIT s; its logs are in $RAY_FOLDER there"
    sleep 1
  done
  for node in "${NODES[@]:1}"; do ray_on "$node" --address="$MASTER_ADDR:$MASTER_PORT" & done
  timeout "$((RAY_WAIT + 60))" "${IN_PYTHON[@]}" slurm/wait_for_ray.py "$MASTER_ADDR:$MASTER_PORT" "$NODE_COUNT" "$RAY_WAIT" ||
    fail "the Ray cluster is not complete after $RAY_WAIT s"
}

# Ends the steps that are left. Ray does not heed the SIGTERM by which Slurm would end them first, see ray_node.py. In a job that
# is cancelled Slurm does it, once trials had their time to save.
end_ray() {
  local steps
  if [[ $(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T 2>/dev/null) != RUNNING ]]; then return; fi
  mapfile -t steps < <(squeue --noheader --steps --jobs="$SLURM_JOB_ID" --format=%i 2>/dev/null | grep -E '\.[0-9]+$')
  if ((${#steps[@]})); then scancel --signal=KILL "${steps[@]}" 2>/dev/null || true; fi
}
trap end_ray EXIT

# A head that finds a token in the home folder requires it, and other nodes send it only in this mode.
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
[[ $RAY_AUTH_MODE != token ]] || in_python -m ray.scripts.scripts get-auth-token --generate >/dev/null

trap 'end_ray; requeue "out of time"' USR2 # until the sweep runs
set_rendezvous
ray_on "${NODES[0]}" --head --port="$MASTER_PORT" --temp-dir="$RAY_FOLDER" --dashboard-host=127.0.0.1 \
  --dashboard-port="$((MASTER_PORT + 1))" --ray-client-server-port="$((MASTER_PORT + 2))" &
head=$!
ray_has_started

# Out of time, the script alone is signalled; it passes that on, so that running trials save, and waits for their end.
on_node "${NODES[0]}" -m tune --config "$SWEEP" --address "$MASTER_ADDR:$MASTER_PORT" "${WORDS[@]}" &
sweep=$! expired="" cancelled="" code=0
# shellcheck disable=SC2329 # the traps call it
let_trials_save() {
  scancel --signal=USR2 "$SLURM_JOB_ID" 2>/dev/null || true # at scancel the sweep has got SIGTERM already
  { sleep "$SAVE_WAIT" && kill -ALRM $$ || true; } &
}
trap 'expired=yes' ALRM
trap 'let_trials_save' USR2
trap 'cancelled=yes; let_trials_save' TERM
while kill -0 "$sweep" 2>/dev/null && [[ ! $expired ]]; do
  wait "$sweep" || true # a signal interrupts it
done
trap '' USR2 TERM
if [[ ! $expired ]]; then wait "$sweep" || code=$?; fi
end_ray
if [[ $cancelled ]] || { ((code == 128 + 2)) && ! was_preempted; }; then # 130: the sweep got SIGTERM itself
  say "ended by SIGTERM; submitted again, the sweep continues"
  exit 143
fi
if [[ $expired ]]; then requeue "out of time, and trials did not save within $SAVE_WAIT s"; fi
if ((code == 128 + 12)); then requeue "stopped by SIGUSR2"; fi
end_step "$code"
