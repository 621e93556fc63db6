#!/usr/bin/env bash
# What depends on the cluster, given once for all jobs: resources.sh JOB sets RESOURCES to options of sbatch.
# `slurm/submit.sh` passes them, and so do the scripts that submit others; options on the command line go before them.
# GPUs stand here alone, not among the #SBATCH lines of the scripts: --gres on the command line would be added to them,
# and --gpus refused beside them. Nodes, cores, memory and time stand in those lines; options of sbatch replace them.

# For every job, such as: RESOURCES=(--partition=gpu --account=my-account --constraint=a100)
RESOURCES=()

# GPUs of each node. With more of them, give a job more cores and memory too, for instance 8 cores and 32 GB for each.
case "$1" in
  train_celeba | fit_mixture | eval_fid | reproduce_celeba) RESOURCES+=(--gpus-per-node=1) ;;
  tune) RESOURCES+=(--gpus-per-node=4 --cpus-per-task=32 --mem=128G) ;; # a trial of tune/configs/celeba.yaml takes four
esac
