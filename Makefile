PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
export TF_CPP_MIN_LOG_LEVEL ?= 2
export KERAS_BACKEND := tensorflow

.PHONY: help demo test test-all test-matrix lint docs clean

help:
	@echo "make demo         tune a digit classifier, draw it and export it"
	@echo "make test         lint, and the tests without the slow ones"
	@echo "make test-all     lint, and all tests"
	@echo "make test-matrix  some tests on every Python with the oldest and newest Keras"
	@echo "make lint         ruff and mypy"
	@echo "make docs         the documentation site, in docs/_build/html"
	@echo "make clean        remove what these made"

demo: $(STAMP)
	$(BIN)/python examples/digits.py

test: $(STAMP) lint
	$(BIN)/python -m pytest -n 2

test-all: $(STAMP) lint
	$(BIN)/python -m pytest -n 2 -m ""

test-matrix:
	tools/test_matrix.sh

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DOCS_STAMP)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[examples,test]'
	touch $(STAMP)

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $(DOCS_STAMP)

clean:
	rm -rf $(VENV) .venv-matrix *.egg-info .pytest_cache .ruff_cache .mypy_cache
	rm -rf docs/_build docs/reference docs/gallery
