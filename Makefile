# Two commands set everything up on a machine that has Python (3.11 or newer), pip and make:
#   make train    trains the small model on the shipped text
#   make test     runs the tests
# On a machine with an NVIDIA GPU, make test-gpu and make bench-gpu run its tests and measure it beside PyTorch.
# All create the virtual environment on first use. Variables are given on the command line: make train PYTHON=python3.12

PYTHON := python3
VENV := .venv
# The run's folder; empty: the first free runs/NAME-1. More options of `minilong train` and of pytest:
OUT :=
TRAIN_ARGS :=
PYTEST_ARGS :=
BENCH_ARGS :=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet --editable

.DEFAULT_GOAL := help
.PHONY: help train test test-gpu bench-gpu lint clean

help:
	@echo 'make train      install into $(VENV), train the small model on Pride and Prejudice, print a sample'
	@echo 'make test       install into $(VENV), run the tests'
	@echo 'make test-gpu   on a machine with an NVIDIA GPU: install CuPy for its driver, run the tests of tests/device'
	@echo 'make bench-gpu  beside PyTorch on the GPU, in about six minutes; a short table comes last'
	@echo 'make lint       style (ruff) and types (mypy)'
	@echo 'make clean      remove .venv and caches; runs/ stays'
	@echo 'Variables: PYTHON=python3.12  VENV=folder  OUT=folder  TRAIN_ARGS="--steps 100"  PYTEST_ARGS="-k engine"'

train: $(VENV)/.installed-run
	$(BIN)/minilong train $(if $(OUT),--out $(OUT)) $(TRAIN_ARGS)

# A process a core; a file's tests stay in one, since they share what is made once.
test: $(VENV)/.installed-test
	$(BIN)/pytest --numprocesses auto --dist loadfile $(PYTEST_ARGS)

test-gpu: $(VENV)/.installed-gpu
	$(BIN)/pytest tests/device $(PYTEST_ARGS)

bench-gpu: $(VENV)/.installed-gpu
	$(BIN)/python -m bench.gpu $(BENCH_ARGS)

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

# The driver's CUDA version decides between the two builds of CuPy, which exclude each other.
$(VENV)/.installed-gpu: pyproject.toml $(VENV)/.installed-test
	@cuda=$$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9][0-9]*\).*/\1/p' | head -n 1); \
	case "$$cuda" in \
	  '') echo 'no NVIDIA driver was found: nvidia-smi does not run, or names no CUDA version'; exit 2 ;; \
	  [0-9] | 1[01]) echo "the driver supports CUDA $$cuda, and CuPy needs 12 or later: update the driver"; exit 2 ;; \
	  12) extra=cuda12 ;; \
	  *) extra=cuda13 ;; \
	esac; \
	echo "installing CuPy ($$extra) into $(VENV) (once, a minute or two)"; \
	$(INSTALL) ".[test,$$extra]"
	@touch $@
