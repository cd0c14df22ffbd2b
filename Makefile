# Each target first installs what it needs. Later runs install it again only if the requirements have changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check

# Flask's own command reads .env and .flaskenv in all parent directories, and runs the application that FLASK_APP names there.
OWN_FLASK := printf '%s\n' '\#!/bin/sh' '[ -n "$$FLASK_APP" ] || [ -f wsgi.py ] || echo "Run flask in the directory of S3 Image Server to see its commands: cd $(CURDIR)" >&2' 'FLASK_SKIP_DOTENV=1 exec "$(CURDIR)/$(BIN)/python" -m flask "$$@"' >$(BIN)/flask

.DEFAULT_GOAL := help
.PHONY: help setup run dev test coverage coverage-report fuzz chaos lint format check bench screenshots clean

help: ## show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(VENV)/dev.stamp ## install the requirements for development

run: $(VENV)/run.stamp ## run the server on http://127.0.0.1:8000 (to change this: PORT=…, HOST=…)
	@exec $(BIN)/gunicorn wsgi:app

dev: $(VENV)/run.stamp ## run the server with one worker, and reload it when the code changes
	@WEB_CONCURRENCY=1 LOG_LEVEL=$${LOG_LEVEL:-DEBUG} exec $(BIN)/gunicorn --reload wsgi:app

test coverage fuzz chaos: export PYTHONDONTWRITEBYTECODE = # allows bytecode, else each of the many test processes compiles everything

test: $(VENV)/dev.stamp ## run the tests (ARGS=… are arguments for pytest)
	@$(BIN)/python $(if $(COVERAGE),-m coverage run )-m pytest $(ARGS)

coverage: $(VENV)/dev.stamp ## run the tests, and list the lines that they don't cover
	@$(BIN)/coverage erase
	@$(MAKE) --no-print-directory test COVERAGE=yes
	@$(MAKE) --no-print-directory coverage-report

coverage-report: $(VENV)/dev.stamp
	@$(BIN)/coverage combine --quiet && $(BIN)/coverage report

FUZZ_MINUTES ?= 10

fuzz: $(VENV)/dev.stamp ## fuzz the server for FUZZ_MINUTES (10), or until an input breaks it
	@FUZZ_MINUTES=$(FUZZ_MINUTES) tests/fuzz.sh $(BIN)/python $(ARGS)

CHAOS_MINUTES ?= 10

chaos: $(VENV)/dev.stamp ## attack a running server for CHAOS_MINUTES (10); to repeat a run: CHAOS_SEED=…
	@CHAOS_MINUTES=$(CHAOS_MINUTES) $(BIN)/python -m pytest -n0 -s --show-capture=no tests/server/test_chaos.py $(ARGS)

lint: $(VENV)/dev.stamp ## check style and likely mistakes with ruff
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/dev.stamp ## format the code with ruff
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

check: lint ## run the checks of CI, without the tests: ruff, mypy strict, layers
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/dev.stamp ## run the benchmarks, and write bench/results.md
	@$(BIN)/python -m bench

screenshots: $(VENV)/dev.stamp ## take the screenshots in docs/ (needs Chromium)
	@$(BIN)/python -m tests.browser.screenshots

clean: ## remove the virtual environment and the caches of tools
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed. Set its path: make PYTHON=/path/to/python3.12 …" >&2; exit 1; }
	@echo "Creating the virtual environment in $(VENV) …"
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "This Python has no venv module. On Debian and Ubuntu, run: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/run.stamp: requirements.txt | $(BIN)/python
	@echo "Installing the server's requirements …"
	@$(PIP) -r requirements.txt && $(OWN_FLASK) && touch $@

$(VENV)/dev.stamp: requirements-dev.txt requirements.txt | $(BIN)/python
	@echo "Installing the requirements for development …"
	@$(PIP) -r requirements-dev.txt && $(OWN_FLASK) && touch $(VENV)/run.stamp $@
