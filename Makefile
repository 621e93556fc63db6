SHELL := /bin/bash
PYTHON ?= python3
.DEFAULT_GOAL := help

help:
	@echo "make demo   everything on Fashion-MNIST: install, shards, two stages on two processes, mixture, evaluation, report"
	@echo "make test   lint, types and tests"

# The stamp is written last, so an installation that was cut off is done again.
.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --upgrade pip
	.venv/bin/pip install --quiet --editable '.[test]'
	touch $@

.PHONY: help
