# Everything starts from a machine with only Python 3.11: each target makes the environment it needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
JOBS   ?= 2
# Neighbouring tests share what they wait for, so each process takes a stretch of them.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.PHONY: install ablations smoke test test-slow test-all coverage docs types lint clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip
# What an earlier version left here would name its models to commands that run in this folder.
	rm -rf harness.egg-info
	$(PIP) install --quiet --constraint constraints.txt --editable ".[test,docs,dashboard,postgres,slurm]"
# RecBole without its dependencies, among which is an old Ray that the harness has no use for (see README).
	$(PIP) install --quiet --constraint constraints.txt --no-deps recbole
	touch $@

# Into runs/, so that the reference results under results/ are neither taken for this run nor touched by it.
ablations: install
	$(BIN)/harness run --study ablations --out runs

smoke: install
	$(BIN)/harness run --study ablations --preset smoke --out runs

# In minutes; with the long simulations and property tests, test-all takes twice as long.
test: install
	$(PYTEST) -m "not slow" $(PYTEST_OPTIONS)

test-slow: install
	$(PYTEST) -m slow $(PYTEST_OPTIONS)

test-all: test test-slow

# The tests with what they reach, subprocesses included: a table here, the lines in build/coverage/index.html.
coverage: install
	$(PYTEST) --cov --cov-report=term:skip-covered --cov-report=html $(PYTEST_OPTIONS)

# The site, into build/site. Its reference pages are made from the code at every build; a warning is an error.
docs: install
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --write-all -d build/doctrees docs build/site

types: install
	$(BIN)/python -m mypy

lint: types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build .coverage* .mypy_cache *.egg-info
