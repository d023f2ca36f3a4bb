# make demo   the main job on real data         make test   every check and test
# Both make .venv first, if it is missing or older than what it is made from. `make help` says more.

SHELL := /bin/sh
VENV := .venv
INSTALLED := $(VENV)/.installed

# What .venv was made with last time, so that a machine set up for a GPU stays so: see TORCH below.
-include $(VENV)/choice.mk

# The exact torch to install, and where from. A looser version would bring gigabytes of CUDA packages.
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
# The interpreter to make .venv with; empty: the first Python 3.11 or newer on the PATH.
PYTHON ?=
PYTEST_ARGS ?=
# Tests that start whole systems, kill processes and wait for leases: a neighbour would disturb them.
ALONE := tests/deploy tests/faults tests/system tests/test_benchmarks.py
PYTEST := $(VENV)/bin/python -m pytest
ifeq ($(strip $(PYTEST_ARGS)),)
TESTS = check 'pytest, two at a time' $(PYTEST) -n 2 --dist worksteal $(addprefix --ignore=,$(ALONE)); \
	check 'pytest, one at a time' $(PYTEST) $(ALONE)
else
TESTS = check 'pytest' $(PYTEST) $(PYTEST_ARGS)
endif

export TORCH TORCH_INDEX PYTHON VENV

.PHONY: help setup demo test clean FORCE
.DEFAULT_GOAL := help

help:
	@echo 'make setup   make .venv from constraints.txt (a few minutes the first time, nothing after)'
	@echo 'make demo    search a network for the digits images, then say what to do next'
	@echo 'make test    ruff, mypy, the walls between the packages and every test'
	@echo 'make clean   remove .venv and what tests leave behind; studies in .neurosweep stay'
	@echo
	@echo 'PYTHON=python3.12                  the interpreter for .venv'
	@echo 'TORCH="torch==2.13.0"              the exact build of PyTorch; remembered'
	@echo 'TORCH_INDEX=ADDRESS                the package index it comes from, for a GPU build; remembered'
	@echo 'PYTEST_ARGS="tests/trainer -x"     what make test hands to pytest'

setup: $(INSTALLED)
	@echo 'neurosweep is ready in $(VENV)'

ifneq ($(TORCH)|$(TORCH_INDEX),$(TORCH_WAS)|$(TORCH_INDEX_WAS))
$(INSTALLED): FORCE
endif
$(INSTALLED): pyproject.toml constraints.txt tools/setup.sh
	@sh tools/setup.sh

demo: $(INSTALLED)
	@$(VENV)/bin/neurosweep run examples/digits.yaml
	@echo
	@echo 'What next'
	@echo '  $(VENV)/bin/neurosweep ui digits             every trial, side by side, in MLflow'
	@echo '  $(VENV)/bin/neurosweep best digits           the network that won, and what it is worth'
	@echo '  $(VENV)/bin/neurosweep report digits         what holds it back, and what to try next'
	@echo '  $(VENV)/bin/neurosweep explain digits        a page that shows it at work: draw a digit'
	@echo '  $(VENV)/bin/neurosweep init study.yaml       a study file for your own data'
	@echo '  $(VENV)/bin/neurosweep run study.yaml'

# Every check runs, whatever the ones before it said; pytest comes last.
test: $(INSTALLED)
	@failed=; \
	check() { name=$$1; shift; printf '\n== %s\n' "$$name"; "$$@" || failed="$$failed, $$name"; }; \
	check 'ruff check' $(VENV)/bin/python -m ruff check --no-cache .; \
	check 'ruff format' $(VENV)/bin/python -m ruff format --no-cache --check .; \
	check 'mypy --strict' $(VENV)/bin/python -m mypy --strict; \
	check 'walls' $(VENV)/bin/lint-imports --no-logo; \
	$(TESTS); \
	if [ -n "$$failed" ]; then printf '\nmake test: NOT good: %s\n' "$${failed#, }"; exit 1; fi; \
	printf '\nmake test: all checks are good\n'

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
