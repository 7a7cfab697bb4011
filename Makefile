# make demo: see it work on real data.  make test: the fast tests.  Both set up .venv by themselves.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all check format clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.test-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/.test-all-installed: $(VENV)/.test-installed
	$(BIN)/python -m pip install --quiet --editable '.[test-all]'
	touch $@

$(VENV)/.dev-installed: $(VENV)/.test-installed
	$(BIN)/python -m pip install --quiet --editable '.[test,dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m fmknn demo

test: $(VENV)/.test-installed
	$(BIN)/python -m pytest -q

test-all: $(VENV)/.test-all-installed
	$(BIN)/python -m pytest -q -m "slow or server"

check: $(VENV)/.dev-installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

format: $(VENV)/.dev-installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
