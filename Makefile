# make study: everything from a fresh clone to report/index.html.   make test: the whole test suite.
# Both set up their own environment in .venv (Python >= 3.11 with venv; as root on Debian, venv is installed too).

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
INSTALLER ?= uv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DVC_SITE_CACHE_DIR ?= $(CURDIR)/.dvc/tmp/site
export PYTHONNOUSERSITE := 1
# uv leaves the compiling to Python, which must be let keep it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: study test check environment test-environment lock clean help

help:
	@echo 'make study   train the study of params.yaml and write report/index.html'
	@echo 'make test    run the whole test suite'
	@echo 'make check   ruff and mypy'
	@echo 'make lock    renew the locks (needs uv)'
	@echo 'make clean   remove what a study made, but not its data and environment'

study: environment
	@python -m twinrun.launch.up_to_date || { \
	  dvc pull --quiet --remote datastore data.dvc && dvc repro --quiet prepare; }
	@twinrun sweep
	@twinrun finish
	@echo "report: $(CURDIR)/report/index.html"

test: test-environment
	pytest --numprocesses auto --maxprocesses 4 --dist loadgroup --no-loadscope-reorder --durations 20

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

# uv, itself pinned by hash, installs a lock in a fraction of pip's time; where it cannot, or with INSTALLER=pip, pip does.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python
THIS := --no-deps --no-build-isolation --editable .
define install
@if [ '$(INSTALLER)' = uv ] && $(PIP) --require-hashes -r requirements-uv.lock && \
    $(UV) --require-hashes --build-constraints requirements.lock -r $(1) && $(UV) $(THIS); then :; \
else \
  [ '$(INSTALLER)' = pip ] || echo '$(INSTALLER) did not install $(1): pip does' >&2; \
  $(PIP) --require-hashes -r $(1) && $(PIP) $(THIS); \
fi
@touch $@
endef

$(VENV)/.study: requirements.lock requirements-uv.lock pyproject.toml | $(VENV)/bin/python
	$(call install,requirements.lock)

# The versions of requirements.lock and the test tools: one environment serves both.
$(VENV)/.test: requirements-dev.lock requirements.lock requirements-uv.lock pyproject.toml | $(VENV)/bin/python
	$(call install,requirements-dev.lock)
	@touch $(VENV)/.study

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
lock:
	$(LOCK) requirements.in -o requirements.lock
	$(LOCK) requirements-dev.in -o requirements-dev.lock
	echo uv | $(LOCK) - -o requirements-uv.lock

clean:
	rm -rf prepared runs work logs collected located analysis report
