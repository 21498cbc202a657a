# make demo    a small corpus, filtered and reported, on a machine with Python 3.11+ and nothing else
# make test    lint, types, tests: what every change has to pass
# make drill   the long tests; results go to drill/
#
# PYTHON=python3.12 chooses the interpreter, VENV=... the environment, PYTEST_ARGS=... what pytest gets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test lint types drill wheel clean

VENV ?= .venv
PYTEST_ARGS ?=
DEMO ?= demo-corpus-guard
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

# The first Python that runs and is new enough; a shim that only says "not installed" is passed over.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$python && break; done)

help:
	@sed -n 's/^# make/make/p' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "corpus-guard needs Python 3.11, 3.12 or 3.13; none was found on PATH. Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu it comes with the package python3-venv." >&2; exit 2; }

# Stamps: a second run installs nothing unless the dependencies changed.
$(VENV)/.installed-base: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing corpus-guard into $(VENV) (a minute or two, once) ..."
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-all: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing corpus-guard with ray, torch and the test tools into $(VENV) (some minutes, once) ..."
	@$(INSTALL) -e '.[all,test]'
	@touch $(VENV)/.installed-base $@

demo: $(VENV)/.installed-base
	@$(BIN)/corpus-guard demo $(DEMO)

test: lint types
	$(BIN)/python -m pytest -q $(PYTEST_ARGS)

lint: $(VENV)/.installed-all
	$(BIN)/python -m ruff check .

types: $(VENV)/.installed-all
	$(BIN)/python -m mypy

# Every long test runs even if an earlier one fails; the exit status is that of the tests.
drill: $(VENV)/.installed-all
	@mkdir -p drill
	@{ $(BIN)/python --version; $(BIN)/python -m pip freeze --exclude-editable; uname -srm; } > drill/machine.txt
	$(BIN)/python -m pytest -m drill --timeout=3600 --durations=0 --junitxml=drill/results.xml $(PYTEST_ARGS) 2>&1 | tee drill/log.txt

wheel: $(VENV)/.installed-all
	$(BIN)/python -m build --outdir dist .

clean:
	rm -rf build dist $(DEMO) .mypy_cache .ruff_cache .pytest_cache .hypothesis
