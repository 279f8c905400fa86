# Two commands set everything up on a fresh Debian machine: `make demo` and `make test`.
# Needs Python 3.11 or later, and root or sudo: for missing packages, and for the lab's namespaces and mounts.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# As root beside a user's checkout: leave no files of root's in it.
AS_ROOT := $(SUDO) env PYTHONDONTWRITEBYTECODE=1 PATH="$(CURDIR)/$(BIN):$$PATH:/usr/sbin:/sbin" $(BIN)/python
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
# Processes for the tests that start processes: on two cores each of them waits half of the time.
AT_ONCE := 4
COSTS := $(VENV)/costs
QUIETLY = -p no:cacheprovider --durations=10 --junitxml=$(COSTS)/$(@:suite-%=%).xml
# Real daemons and trainings, four suites at once: torch's gloo has aborted at a training's exit. What fails is tried once
# more, and the report names it (R). A unit test is not: it depends on nothing but itself.
ONCE_MORE := --reruns 1 -rfER
# Which packages hold what a target needs; Debian's venv is a package of its own.
PROGRAMS := rsync:rsync ssh:openssh-client git:git

SUITES := unit integration e2e training lab

.DEFAULT_GOAL := help
.PHONY: help venv lint unit integration lab test suites $(SUITES:%=suite-%) bench gpu gpu-bundle demo lock clean packages

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(INSTALLED)  ## Make .venv, with gpurun and what its tests need

lint: $(INSTALLED)  ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	MYPYPATH=gpurun/agent/serve $(BIN)/mypy --explicit-package-bases gpurun/agent/serve/*.py
	MYPYPATH=gpurun/agent/plugin $(BIN)/mypy --explicit-package-bases gpurun/agent/plugin/gpurun_lightning/*.py
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/vermin --quiet --no-tips --violations --target=3.8- gpurun/agent

unit: $(INSTALLED)  ## Run the tests that start no process: under 30 s
	$(BIN)/python -m pytest --numprocesses auto tests/unit

integration: $(INSTALLED)  ## Run the tests that start processes: git, ssh, rsync, the agent
	$(BIN)/python -m pytest --numprocesses $(AT_ONCE) tests/integration

# The suites stand on hosts of their own, and mostly wait: side by side they take half the time. make prints each one whole.
test: $(INSTALLED) $(VENV)/.demo lint  ## Run everything: lint, unit, integration, e2e, the demo, and the lab with its real hosts
	@mkdir -p $(COSTS) && rm -f $(COSTS)/*.xml
	@$(MAKE) --no-print-directory suites; code=$$?; \
	$(BIN)/python -m tests.support.costs $(SUITES:%=$(COSTS)/%.xml); exit $$code

suites: suite-unit
	@$(MAKE) --no-print-directory --jobs --keep-going --output-sync=target $(patsubst %,suite-%,$(filter-out unit,$(SUITES)))

suite-unit:
	@$(AS_ROOT) -m pytest $(QUIETLY) --numprocesses auto tests/unit

suite-integration:
	@$(AS_ROOT) -m pytest $(QUIETLY) $(ONCE_MORE) --numprocesses $(AT_ONCE) tests/integration

suite-e2e suite-lab: suite-%:
	@$(AS_ROOT) -m pytest $(QUIETLY) $(ONCE_MORE) tests/$*

suite-training:
	@$(AS_ROOT) -m pytest $(QUIETLY) $(ONCE_MORE) tests/demo tests/plugin tests/gpu

lab: $(INSTALLED)  ## Bring up GPU hosts on this machine, for trying things by hand, until Ctrl-C
	@$(AS_ROOT) -m tests.lab

bench: $(INSTALLED)  ## Measure gpurun against what a user types by hand
	@$(AS_ROOT) -m tests.bench

gpu:  ## Try everything that needs a GPU on this machine's, with its own Python and torch
	PYTHON=$(PYTHON) tests/gpu/run.sh

gpu-bundle: $(INSTALLED)  ## Gather what a GPU machine without internet may lack for `make gpu`, into build/gpu-bundle
	$(BIN)/python -m tests.gpu.bundle

demo: $(INSTALLED) $(VENV)/.demo  ## Train a model on an SSH host made for the purpose, and fetch it
	$(BIN)/gpurun demo

lock: $(INSTALLED)  ## Choose the image's packages anew: docker/requirements.in -> requirements.lock
	$(BIN)/pip install --quiet 'uv>=0.9'
	cd docker && $(CURDIR)/$(BIN)/uv pip compile --quiet --upgrade --config-file uv.toml --generate-hashes \
		--no-annotate --only-binary :all: --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
		--no-emit-package torch --no-emit-package torchvision \
		--custom-compile-command 'make lock' --output-file requirements.lock requirements.in

clean:  ## Remove what was installed in the checkout
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

$(INSTALLED): pyproject.toml Makefile | packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --editable '.[notebook]' --group dev 'asyncssh>=2.21' 'tensorboard>=2.18'
	touch $@

# torch 2.13.0 is the one that the demo was tried with. No torchvision: beside a CPU build of torch it fails at import.
$(VENV)/.demo: $(INSTALLED)
	echo torch==2.13.0 >$(VENV)/demo-constraints.txt
	$(BIN)/pip install --quiet --editable '.[demo]' --group training --constraint $(VENV)/demo-constraints.txt
	touch $@

packages:
	@[ -n "$(PYTHON)" ] || { echo 'gpurun needs Python 3.11 or later: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@set -e; lacking=; \
	for pair in $(PROGRAMS); do \
		command -v "$${pair%:*}" >/dev/null || lacking="$$lacking $${pair#*:}"; done; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || lacking="$$lacking python3-venv"; \
	if [ -n "$$lacking" ]; then \
		command -v apt-get >/dev/null || { echo "please install:$$lacking" >&2; exit 1; }; \
		$(SUDO) apt-get update -qq; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$lacking; fi
