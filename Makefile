# Set-up and the ordinary commands; each also works by hand in the activated environment.
.PHONY: help setup repro check test lint lock clean
.DEFAULT_GOAL := help

PYTHON ?= python3
# Stages at once in `make repro`; several scenes are worked on at the same time.
JOBS ?= 2
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/.venv
# One thread a process: several were measured slower on these problem sizes.
export OMP_NUM_THREADS ?= 1

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: .venv/installed  ## virtual environment with the pinned packages

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; found = sys.version_info[:2]; sys.exit(None if (3, 11) <= found < (3, 14) else "error: $(PYTHON) is Python %d.%d\n  expected: 3.11, 3.12 or 3.13\n  fix: install one and name it: make $(MAKECMDGOALS) PYTHON=python3.11" % found)'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --requirements requirements.lock
	touch $@

repro: setup  ## run the study as params.yaml states it, then print what it found
	python -m stages.check
	python -m stages.repro --jobs $(JOBS)

check: setup  ## read params.yaml, the study's rules and the raw data, and run nothing
	python -m stages.check

test: setup lint  ## the whole test suite
	python -m pytest -q -n 2 --dist loadgroup --no-loadscope-reorder

lint: setup  ## formatting and static checks
	ruff format --check . && ruff check .

lock: setup  ## pin the newest packages that pyproject.toml allows
	uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-emit-index-url \
		--upgrade pyproject.toml --output-file requirements.lock

clean:  ## remove the environment and scratch, keep data and metrics
	rm -rf .venv .work
