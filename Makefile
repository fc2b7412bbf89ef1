# Nothing is needed but python3 (3.11 or newer) with pip, and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CONSTRAINTS := constraints/cpu.txt
# Where the small end-to-end run of `make test` leaves its results.
E2E := build/e2e

.PHONY: help demo test lint format types unit test-slow fuzz faults e2e dev browser clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: $(VENV)/.runtime  ## train four experts, merge them, compare, write the report
	$(BIN)/supermerge demo

test: lint types unit e2e  ## everything CI runs

lint: $(VENV)/.dev  ## ruff: rules and formatting of imports
	$(BIN)/ruff check .

format: $(VENV)/.dev  ## apply ruff's safe fixes
	$(BIN)/ruff check --fix .

types: $(VENV)/.dev  ## pyright on the package
	$(BIN)/pyright --pythonpath $(BIN)/python

unit: $(VENV)/.dev browser  ## the quick tests
	$(BIN)/python -m pytest -n 2 -q

test-slow: $(VENV)/.dev browser  ## the slow tests too
	$(BIN)/python -m pytest -n 2 -q -m "slow or not slow"

# The readers that coverage-guided fuzzing goes through, and how long each: make fuzz FUZZ_SECONDS=600.
READERS := header safetensors index yaml recipe mergekit override jsonl csv image lock coefficients adapter
FUZZ_SECONDS ?= 120

fuzz: $(VENV)/.dev  ## fuzz every reader (Linux; a few seconds of it are in `make unit`)
	$(PIP) install -q -c $(CONSTRAINTS) -e ".[fuzz]"
	for reader in $(READERS); do $(BIN)/python tests/fuzz/run.py $$reader $(FUZZ_SECONDS) || exit 1; done

faults: $(VENV)/.dev  ## kill runs 200 times, fill the disk 50 times, and other faults
	SUPERMERGE_FAULTS=1 $(BIN)/python -m pytest -n 0 -q -m slow tests/faults

e2e: $(VENV)/.dev  ## plan, run, verify and inspect a tiny example through the installed command
	rm -rf $(E2E) && mkdir -p $(E2E)
	$(BIN)/python examples/tiny/make.py $(E2E)
	$(BIN)/supermerge plan $(E2E)/recipe.yaml
	$(BIN)/supermerge run $(E2E)/recipe.yaml --quiet
	$(BIN)/supermerge verify $(E2E)/merged
	$(BIN)/supermerge inspect $(E2E)/merged --base $(E2E)/base

dev: $(VENV)/.dev  ## the development environment in .venv

browser:  ## Chromium, which one test opens the report with
	@if command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing Chromium for the test that opens the report ..."; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	else \
	  echo "Chromium was not found, and one test opens the report with it. Install it (Debian: sudo apt-get install chromium) and run make again." >&2; exit 1; \
	fi

clean:  ## remove the environment and everything built
	rm -rf .venv build dist .pytest_cache .ruff_cache

# Debian's python3 may come without ensurepip, so the environment is made without pip and the outer pip fills it.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "supermerge needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check install -q "pip>=25.0"
	@touch $@

$(VENV)/.runtime: $(VENV)/.python pyproject.toml $(CONSTRAINTS)
	@echo "Installing supermerge into $(VENV) (a few minutes the first time, PyTorch is large) ..."
	$(PIP) install -q -c $(CONSTRAINTS) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.python pyproject.toml $(CONSTRAINTS)
	@echo "Installing supermerge and its test tools into $(VENV) (a few minutes the first time, PyTorch is large) ..."
	$(PIP) install -q -c $(CONSTRAINTS) -e ".[dev]"
	@touch $@ $(VENV)/.runtime
