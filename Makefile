# Each target that needs them sets up what it needs first; nothing is installed again until the requirements change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check

# By itself flask reads .env and .flaskenv of all directories above, and runs what FLASK_APP names there.
OWN_FLASK := printf '%s\n' '\#!/bin/sh' '[ -n "$$FLASK_APP" ] || [ -f wsgi.py ] || echo "Run flask in the directory of S3 Image Server to get its commands: cd $(CURDIR)" >&2' 'FLASK_SKIP_DOTENV=1 exec "$(CURDIR)/$(BIN)/python" -m flask "$$@"' >$(BIN)/flask

.DEFAULT_GOAL := help
.PHONY: help setup run dev test coverage fuzz chaos lint format check bench screenshots clean

help: ## show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(VENV)/dev.stamp ## install everything, for development

run: $(VENV)/run.stamp ## run the server on http://127.0.0.1:8000 (PORT=…, HOST=… change that)
	@exec $(BIN)/gunicorn wsgi:app

dev: $(VENV)/run.stamp ## run it with one worker that reloads when the code changes
	@WEB_CONCURRENCY=1 LOG_LEVEL=$${LOG_LEVEL:-DEBUG} exec $(BIN)/gunicorn --reload wsgi:app

test coverage fuzz chaos: export PYTHONDONTWRITEBYTECODE = # they start many processes, each of which would compile all

test: $(VENV)/dev.stamp ## run the tests (ARGS=… goes to pytest)
	@$(BIN)/python -m pytest $(ARGS)

coverage: $(VENV)/dev.stamp ## run the tests, and say which lines of app/ they miss
	@$(BIN)/python -m pytest --cov --cov-report=term $(ARGS)

FUZZ_MINUTES ?= 10

fuzz: $(VENV)/dev.stamp ## look for what breaks the server, for FUZZ_MINUTES (10) or until it is found
	@FUZZ_MINUTES=$(FUZZ_MINUTES) tests/fuzz.sh $(BIN)/python $(ARGS)

CHAOS_MINUTES ?= 10

chaos: $(VENV)/dev.stamp ## attack a running server for CHAOS_MINUTES (10); CHAOS_SEED=… does it again
	@CHAOS_MINUTES=$(CHAOS_MINUTES) $(BIN)/python -m pytest -n0 -s --no-cov --show-capture=no tests/server/test_chaos.py $(ARGS)

lint: $(VENV)/dev.stamp ## ruff: style and likely mistakes
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/dev.stamp ## let ruff put the code in order
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

check: lint ## what CI checks besides the tests: ruff, mypy strict, the layers
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/dev.stamp ## measure the figures in bench/results.md anew
	@$(BIN)/python -m bench

screenshots: $(VENV)/dev.stamp ## take the pictures in docs/ anew (wants Chromium)
	@$(BIN)/python -m tests.browser.screenshots

clean: ## remove the virtual environment and what tools left
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; point to it: make PYTHON=/path/to/python3.12 …" >&2; exit 1; }
	@echo "Making the virtual environment in $(VENV) …"
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "This Python has no venv. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/run.stamp: requirements.txt | $(BIN)/python
	@echo "Installing what the server needs …"
	@$(PIP) -r requirements.txt && $(OWN_FLASK) && touch $@

$(VENV)/dev.stamp: requirements-dev.txt requirements.txt | $(BIN)/python
	@echo "Installing what tests and checks need …"
	@$(PIP) -r requirements-dev.txt && $(OWN_FLASK) && touch $(VENV)/run.stamp $@
