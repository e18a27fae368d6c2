# What a developer types; CONTRIBUTING.md says more. Needs make and Python 3.10 or later, nothing else.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
FUZZ_VENV ?= .venv-fuzz
TARGET ?= all
RUNS ?= 100000
INPUT ?=

.PHONY: help demo setup test lint types layers check bench fuzz schema clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "ckptd needs Python 3.10 or later: none found" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.developing: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

setup: $(VENV)/.developing ## make the environment for developing, in .venv

demo: $(VENV)/.installed ## train a small model under ckptd's eyes, and kill it
	$(BIN)/ckptd demo

test: $(VENV)/.developing ## all tests but the benchmarks
	$(BIN)/pytest

lint: $(VENV)/.developing ## formatting, ruff, spelling
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/codespell ckptd client tests docs config systemd *.md Makefile

types: $(VENV)/.developing ## mypy, strict
	$(BIN)/mypy

layers: $(VENV)/.developing ## which room may import which
	$(BIN)/lint-imports

check: lint types layers test ## all that must be green

bench: $(VENV)/.developing ## the figures, as ratios taken in one run
	$(BIN)/python -m pytest -q -s tests/bench

$(FUZZ_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(FUZZ_VENV)
	$(FUZZ_VENV)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(FUZZ_VENV)/bin/python -m pip install --quiet --editable '.[ml-dtypes,snappy]' 'atheris>=3.0.0'
	@touch $@

fuzz: $(FUZZ_VENV)/.installed ## damage files of every kind RUNS times, by coverage; PYTHON must be one that atheris has a wheel for
	PYTHONPATH=tests $(FUZZ_VENV)/bin/python -m fuzz.run $(TARGET) --runs $(RUNS) $(if $(INPUT),--file $(INPUT))

schema: $(VENV)/.installed ## write config/ckptd.schema.json anew from ckptd/config/keys.py
	$(BIN)/python -m ckptd.config.schema > config/ckptd.schema.json

clean: ## remove what make has made
	rm -rf $(VENV) $(FUZZ_VENV) .fuzz build dist demo-run .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
