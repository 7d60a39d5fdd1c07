# Everything runs in its own environments: .venv (development) and .venv-demo. They are made when they
# are first needed, and again when the Python or the pins change; see scripts/venv.sh.

PYTHON ?= python3
FRAMEWORK ?= starlette
PORT ?= 8000
PYTEST_ARGS ?=
# One more than most machines for tests have processors: many tests wait for servers.
WORKERS ?= 3
KILLS ?= 200
FLOOD ?= 1000000
RUNS ?= 1
SECTIONS ?=
PATHS_ARGS ?=
export FRAMEWORK PORT
# Tests start hundreds of processes. Let them keep what they compile.
unexport PYTHONDONTWRITEBYTECODE

MAKEFLAGS += --no-print-directory
BIN := .venv/bin
SPHINX := $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
SOURCES := $(shell find src tests examples -name '*.py' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help env env-demo env-servers env-compat env-unedited env-floors demo test check bench paths chaos servers compat unedited matrix floors dist package docs pins clean

help: ## show this list
	@echo 'make TARGET [PYTHON=python3.11]'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' Makefile

env:
	@sh scripts/venv.sh '$(PYTHON)' .venv requirements/dev.txt

env-demo:
	@sh scripts/venv.sh '$(PYTHON)' .venv-demo requirements/demo.txt

env-servers:
	@sh scripts/venv.sh '$(PYTHON)' .venv-servers requirements/servers.txt

env-compat:
	@sh scripts/venv.sh '$(PYTHON)' .venv-compat requirements/compat.txt

env-unedited:
	@sh scripts/venv.sh '$(PYTHON)' .venv-unedited requirements/unedited.txt

# The oldest Python: newer ones have no binaries of old packages.
env-floors:
	@sh scripts/venv.sh python3.11 .venv-floors requirements/floors.txt

demo: env-demo ## serve the example with a fresh database and keys (FRAMEWORK=flask, PORT=8000)
	@.venv-demo/bin/python -m examples.demo

test: env ## run all tests (PYTEST_ARGS='-k token -x', WORKERS=6)
	@$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

# The whole suite with branch coverage, which takes longer. The result is stale once a source file changes.
.coverage: $(SOURCES) pyproject.toml requirements/dev.txt
	@rm -f .coverage .coverage.*
	@$(BIN)/python -m pytest -q --cov --cov-report= --cov-fail-under=0 -n $(WORKERS) || { status=$$?; rm -f .coverage; exit $$status; }

check: env ## run every gate, stopping at the first that fails
	@echo '== ruff format' && $(BIN)/ruff format --check --quiet . \
		|| { echo 'to format them: $(BIN)/ruff format .'; exit 1; }
	@echo '== ruff check' && $(BIN)/ruff check --quiet .
	@echo '== mypy' && $(BIN)/mypy --no-error-summary
	@echo '== pyright' && $(BIN)/pyright --warnings
	@echo '== import-linter' && $(BIN)/lint-imports --no-logo
	@echo '== coverage' && $(MAKE) -s .coverage && $(BIN)/coverage report
	@echo '== docs' && $(SPHINX)
	@echo '== every gate passed'

bench: env ## measure what keyguard costs a request (RUNS=3, SECTIONS='warm cold')
	@$(BIN)/python -m benchmarks.run --runs $(RUNS) $(SECTIONS)

paths: env ## count keyguard's calls on four paths (PATHS_ARGS=--trace lists them, --write puts them into the docs)
	@$(BIN)/python scripts/paths.py $(PATHS_ARGS)

# A campaign has a timeout by its rounds, which may be longer than that of the whole process.
PATIENTLY := -o faulthandler_timeout=0

chaos: env ## run the campaigns: kills, floods, races of processes on every store (KILLS=200, FLOOD=1000000)
	@CHAOS_KILLS=$(KILLS) CHAOS_FLOOD=$(FLOOD) $(BIN)/python -m pytest tests/chaos -s -q $(PATIENTLY)
	@CAMPAIGNS=1 CHAOS_KILLS=$(KILLS) $(BIN)/python -m pytest -q -n $(WORKERS) $(PATIENTLY)

servers: env-servers ## run the guard behind every server, and write docs/servers.md (needs a C compiler)
	@.venv-servers/bin/python -m tests.servers.page
	@SERVERS=all .venv-servers/bin/python -m pytest tests/servers -n $(WORKERS)

compat: env-compat env-unedited ## run the own tests of three frameworks and two applications, bare and behind keyguard
	@.venv-compat/bin/python scripts/compat.py starlette flask werkzeug flaskr
	@.venv-unedited/bin/python scripts/compat.py httpbin

unedited: env-unedited ## serve Datasette, MLflow, httpbin and pypiserver behind keyguard, without a line of code
	@.venv-unedited/bin/python scripts/unedited.py

matrix: ## run tests with each Python, and the lowest and newest version of every package
	@sh scripts/matrix.sh

# Old packages use features that newer libraries beneath them have deprecated, and Starlette 0.40's client
# for tests leaves streams open.
floors: env-floors ## run the most telling tests with the oldest Python and the lowest version of every package
	@.venv-floors/bin/python -m pytest -n $(WORKERS) -W ignore::DeprecationWarning \
		-W ignore:Unclosed:ResourceWarning \
		tests/adapters tests/stores/test_contract.py $(PYTEST_ARGS)

dist: env ## build wheel and source archive into dist/, check them, and install each extra alone
	@sh scripts/dist.sh $(BIN)/python

package: env ## build wheel and source archive, check them, and run the README's examples with the wheel: dist in short
	@sh scripts/dist.sh $(BIN)/python short

docs: env ## build the documentation into docs/_build/html
	@$(SPHINX)
	@echo 'docs/_build/html/index.html'

pins: ## resolve pyproject.toml anew into requirements/*.txt (needs Debian 12's Python)
	@sh scripts/pins.sh '$(PYTHON)'

clean: ## remove the environments and everything that was built
	@rm -rf .venv .venv-demo .venv-servers .venv-compat .venv-unedited .venv-floors .compat .matrix build dist docs/_build htmlcov \
		.coverage .coverage.* .coverage-partial* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
