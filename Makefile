# Every target makes its own .venv when it is missing or older than its pins.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin

# Two threads: what the time limits in the docs assume, and kind to shared machines. Override from the environment.
export OMP_NUM_THREADS ?= 2
export MKL_NUM_THREADS ?= $(OMP_NUM_THREADS)
export TOKENIZERS_PARALLELISM ?= false
# of pytest
WORKERS ?= 2

.PHONY: help venv demo test lint types format bench reproduce-quick docs clean

help:
	@echo "make demo    sudoku, molecules, garments and books: tables and pictures in demo-output/; OPTIONS=--quick is faster"
	@echo "make test    fast tests: CPU, offline"
	@echo "make lint    ruff check, ruff format --check, pyright"
	@echo "make types   pyright alone"
	@echo "make format  let ruff rewrite the files"
	@echo "make docs    the pages of docs/ and the API from its docstrings as HTML, in site/; offline"
	@echo "make reproduce-quick  a tenth of the samples behind the tables of molecules, garments and sudoku, compared with them"
	@echo "make bench   time and memory inside schedulers, and of whole generations"

venv: $(STAMP)

# The build tools come first and are pinned as well, so that nothing is resolved outside constraints.txt.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch hatchling editables
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e ".[dev]"
	@touch $@

# glibc gives large freed blocks back to the system at once; keeping them saves page faults in every forward pass
demo: export MALLOC_MMAP_MAX_ := 0
demo: export MALLOC_TRIM_THRESHOLD_ := 17179869184
demo: $(STAMP)
	$(BIN)/python examples/demo.py --output-dir demo-output $(OPTIONS)

# one thread for each worker: more would wait for each other
test: export OMP_NUM_THREADS := 1
test: export MKL_NUM_THREADS := 1
test: $(STAMP)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

lint: $(STAMP) types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/generation.py --dtype bfloat16

reproduce-quick: $(STAMP)
	$(BIN)/python benchmarks/reproduce_quick.py

docs: $(STAMP)
	$(BIN)/python -W error docs/build.py site

clean:
	rm -rf $(VENV) demo-output methods-output reproduce-quick site dist .pytest_cache .ruff_cache .hypothesis
