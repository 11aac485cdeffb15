# One command for a person and for CI. Everything is installed into .venv, at the versions in constraints.txt.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# The build back end is pinned by it too.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint types unit test-long bench clean

demo: $(VENV)/.cli
	$(BIN)/pinecone-embed demo

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python

unit: $(VENV)/.dev
	$(BIN)/pytest

# The same properties with many more examples, and what is marked `long`. Takes about half an hour.
test-long: $(VENV)/.dev
	$(BIN)/pytest --hypothesis-profile=long --timeout=3600 -m "fuzz or long"

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/throughput.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# A dev install has everything that the command line needs.
$(VENV)/.cli: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --editable ".[cli,fast]"
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --editable ".[dev,bench]"
	touch $@ $(VENV)/.cli

$(VENV)/.bench: $(VENV)/.dev
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
