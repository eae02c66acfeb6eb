# make study: everything from a fresh clone to report/index.html.   make test: the whole test suite.
# Both set up their own environment in .venv (Python >= 3.11 with venv; as root on Debian, venv is installed too).

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DVC_SITE_CACHE_DIR ?= $(CURDIR)/.dvc/tmp/site
export PYTHONNOUSERSITE := 1

.PHONY: study test check environment test-environment lock clean help

help:
	@echo 'make study   train the study of params.yaml and write report/index.html'
	@echo 'make test    run the whole test suite'
	@echo 'make check   ruff and mypy'
	@echo 'make lock    renew requirements.lock and requirements-dev.lock (needs uv)'
	@echo 'make clean   remove what a study made, but not its data and environment'

study: environment
	dvc pull --quiet data.dvc
	dvc repro --quiet prepare
	twinrun sweep
	dvc repro
	@echo "report: $(CURDIR)/report/index.html"

test: test-environment
	pytest --numprocesses auto --maxprocesses 4 --dist worksteal

check: test-environment
	ruff check . && ruff format --check . && mypy

environment: $(VENV)/.study
test-environment: $(VENV)/.test

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer is needed: install python3.11' >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo '$(PYTHON) is older than 3.11: name a newer one with PYTHON=...' >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null; } || \
	  { echo 'Python has no venv module: apt-get install python3-venv' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.study: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# The versions of requirements.lock and the test tools: one environment serves both.
$(VENV)/.test: requirements-dev.lock requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.study

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
lock:
	$(LOCK) requirements.in -o requirements.lock
	$(LOCK) requirements-dev.in -o requirements-dev.lock

clean:
	rm -rf prepared runs work logs collected located analysis report
