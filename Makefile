# One command for a person and for CI. Everything is installed into .venv, at the versions in constraints.txt.
# The newest Python in PATH that the tests run on; one that does not start, as a version manager's stand-in may not, is passed over.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
# The build back end is pinned by it too.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start some three hundred interpreters, each of which would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

NATIVE := pinecone_embed_async/_wire/native

.PHONY: demo test test-pythons lint types unit unit-programs unit-cluster unit-others test-long simulate fuzz fuzz-native numbers planted-bugs drawn-faults coverage docs help-page picture dist bench bench-docs clean

demo: $(VENV)/.cli
	$(BIN)/pinecone-embed demo

# Two things at a time: two cores have enough to do then, for much of it is waiting for programs to start. The cluster goes
# first, beside the type checkers, for its tests measure by the clock how much of a quota is used; the longest goes next.
BESIDE := --no-print-directory --jobs=2 --keep-going

test: lint
	$(MAKE) $(BESIDE) unit-cluster types unit-programs unit-others

# The tests on each declared Python that is in PATH, the lowest declared versions, other event loops. Takes about half an hour.
test-pythons: $(VENV)/.dev
	$(BIN)/nox

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(VENV)/.dev
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo --no-cache

unit:
	$(MAKE) $(BESIDE) unit-cluster unit-programs unit-others

# What mostly starts programs and waits for them, with as much of what computes as makes two halves that take equally long; what
# needs Ray's cluster, the whole of it first; and the others.
PROGRAMS := tests/cli tests/benchmarks tests/wire tests/rate_limit tests/simulation tests/sync tests/jobs tests/emulator
CLUSTER := tests/integrations/ray

unit-programs: $(VENV)/.dev
	$(BIN)/pytest --quiet $(PROGRAMS)

unit-cluster: $(VENV)/.dev
	$(BIN)/pytest --quiet $(CLUSTER)/test_whole.py $(CLUSTER)

unit-others: $(VENV)/.dev
	$(BIN)/pytest --quiet $(PROGRAMS:%=--ignore=%) $(CLUSTER:%=--ignore=%)

# The same properties with many more examples, and what is marked `long`. Takes about half an hour.
test-long: $(VENV)/.dev
	$(BIN)/pytest --hypothesis-profile=long --timeout=3600 -m "fuzz or long"

# Everything that benchmarks/ measures, in half an hour; on a machine that has nothing else to do.
bench: $(VENV)/.dev
	mkdir -p benchmarks/results
	$(BIN)/python -m benchmarks --json benchmarks/results/latest.json --plots benchmarks/results

# The tables and plots of docs/ from the last run of `make bench`.
bench-docs: $(VENV)/.dev
	$(BIN)/python -m benchmarks --write-docs benchmarks/results/latest.json

# The whole client in a simulation, from as many seeds as you like; the tests run the first thousand.
SEEDS ?= 10000
START ?= 0
simulate: $(VENV)/.dev
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --start $(START)

# What both decoders make of drawn bodies, as many as you like; the tests take the first three thousand.
BODIES ?= 100000
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.wire --bodies $(BODIES) --start $(START)

# The native module's rows under clang's coverage-guided fuzzer and sanitizers. Takes five minutes.
CLANG ?= clang
INPUTS ?= 10000000
fuzz-native: $(VENV)/.dev
	mkdir -p build/fuzz/corpus
	$(BIN)/python -m tests.wire.odd_bodies build/fuzz/corpus
	$(CLANG) -std=c11 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o build/fuzz/native \
		tests/wire/native_fuzz.c $(NATIVE)/numbers.c $(NATIVE)/rows.c -lm
	build/fuzz/native -runs=$(INPUTS) -max_len=600 -artifact_prefix=build/fuzz/ build/fuzz/corpus

# A hundred million random numbers, bit by bit. Takes ten minutes.
numbers: $(VENV)/.dev
	$(BIN)/pytest --quiet --timeout=3600 -m long tests/wire/test_numbers.py

# Whether the simulation and the tests find bugs that are planted on purpose. Takes half an hour.
planted-bugs: $(VENV)/.dev
	$(BIN)/python scripts/planted_bugs.py

# Whether they find small faults that are drawn by seed. Takes one to two hours.
COUNT ?= 200
SEED ?= 1
drawn-faults: $(VENV)/.dev
	$(BIN)/python scripts/drawn_faults.py --count $(COUNT) --seed $(SEED)

# What no test reaches, by line and branch.
coverage: $(VENV)/.dev
	$(BIN)/pytest --cov --cov-report=term --cov-report=html

# Warnings are errors; the tests check the links of README and the other files that are not on the site.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/pytest --quiet tests/test_docs.py -k links

help-page: $(VENV)/.dev
	$(BIN)/python scripts/command_line_help.py > docs/command-line-help.md

picture: $(VENV)/.dev
	$(BIN)/python scripts/draw_job.py docs/job.svg

# The wheel is tried in an environment of its own that holds nothing but what the wheel asks for; one for a platform must
# have the native module.
dist: $(VENV)/.dev
	rm -rf dist $(VENV)-dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m venv $(VENV)-dist
	$(VENV)-dist/bin/pip install --quiet dist/*.whl
	cd dist && ../$(VENV)-dist/bin/python -I ../scripts/smoke.py

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make needs Python 3.11, 3.12 or 3.13: put one in PATH, or say which with PYTHON=" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# What the package is built from.
BUILT_FROM := pyproject.toml setup.py constraints.txt $(wildcard $(NATIVE)/*.[ch])

# A dev install has everything that the command line needs.
$(VENV)/.cli: $(BIN)/python $(BUILT_FROM)
	$(BIN)/pip install --quiet --editable ".[cli]"
	touch $@

$(VENV)/.dev: $(BIN)/python $(BUILT_FROM)
	$(BIN)/pip install --quiet --editable ".[dev,bench]"
	touch $@ $(VENV)/.cli

$(VENV)/.docs: $(VENV)/.dev
	$(BIN)/pip install --quiet --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage* htmlcov dist build site
