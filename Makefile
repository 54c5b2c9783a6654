# Two commands set everything up on a machine that has Python (3.11 or newer), pip and make:
#   make train    trains the small model on the shipped text
#   make test     runs the tests
# Both create the virtual environment on first use. Variables are given on the command line: make train PYTHON=python3.12

PYTHON := python3
VENV := .venv
# The run's folder; empty: the first free runs/NAME-1. More options of `minilong train` and of pytest:
OUT :=
TRAIN_ARGS :=
PYTEST_ARGS :=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet --editable

.DEFAULT_GOAL := help
.PHONY: help train test lint clean

help:
	@echo 'make train    install into $(VENV), train the small model on Pride and Prejudice, print a sample'
	@echo 'make test     install into $(VENV), run the tests'
	@echo 'make lint     style (ruff) and types (mypy)'
	@echo 'make clean    remove .venv and caches; runs/ stays'
	@echo 'Variables: PYTHON=python3.12  VENV=folder  OUT=folder  TRAIN_ARGS="--steps 100"  PYTEST_ARGS="-k engine"'

train: $(VENV)/.installed-run
	$(BIN)/minilong train $(if $(OUT),--out $(OUT)) $(TRAIN_ARGS)

test: $(VENV)/.installed-test
	$(BIN)/pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy minilong

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find minilong tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# Installed again only when pyproject.toml changes. The stamps are touched last, so a failed attempt is repeated.

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "minilong needs Python 3.11 or newer, and $(PYTHON) is not; name one: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed-run: pyproject.toml $(VENV)/.created
	@echo 'installing into $(VENV) (once, about a minute)'
	$(INSTALL) '.[text,plot]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml $(VENV)/.created
	@echo 'installing into $(VENV) (once, about a minute)'
	$(INSTALL) '.[test]'
	@touch $@ $(VENV)/.installed-run
