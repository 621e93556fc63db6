SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
SHARDS ?= shards/fashion-mnist
RUN ?= runs/demo
# One thread a process: two processes of one thread beat one of two on two cores.
# The bare -- keeps torchrun from reading --run as the start of an option of its own.
TORCHRUN := OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node 2 -m --

help:
	@echo "make demo   everything on Fashion-MNIST: install, then build, train, report on two processes"
	@echo "make test   lint, types and tests"
	@echo "make test-gpu   what needs a GPU, and a table of what this one does; says so where there is none"
	@echo "make test-slurm   the batch scripts on a real scheduler, which this installs (root)"
	@echo "make test-cluster   ray up, a sweep, a lost host and ray down, on three hosts that are network namespaces (root)"

# The stamp is written last, so an installation that was cut off is done again.
.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

# Every step goes on from where it was, or returns at once where it is done.
demo: .venv/.installed
	$(BIN)/python -m data_shards build fashion-mnist --out $(SHARDS)
	$(TORCHRUN) trainer --config trainer/configs/fashion_mnist_demo.yaml --data.shards $(SHARDS) --runs $(patsubst %/,%,$(dir $(RUN))) --name $(notdir $(RUN))
	$(TORCHRUN) eval report --run $(RUN)

test: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-gpu: .venv/.installed
	@$(BIN)/python tests/device/acceptance.py

# Not part of the suite: it makes hosts, which takes root and Debian's openssh-server, rsync, iproute2. Says what is missing.
test-cluster: .venv/.installed
	@cd tests/tune/clusters && ../../../$(BIN)/python -c "import sys, cluster_hosts; sys.exit(cluster_hosts.missing())"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "cluster and not slow" tests/tune

# Not part of the suite: it starts a scheduler, which takes root, and Debian's packages, which it installs.
test-slurm: .venv/.installed
	@{ command -v slurmctld && command -v munged; } > /dev/null || { apt-get update --quiet && apt-get install --yes --no-install-recommends slurm-wlm munge; } \
	  || { echo "the tests of the batch scripts need slurmctld, slurmd and munged, and root: apt-get install slurm-wlm munge"; exit 2; }
	$(BIN)/python -m pytest -m slurm tests/slurm

.PHONY: help demo test test-gpu test-cluster test-slurm
