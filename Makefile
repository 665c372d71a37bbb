# `make help` lists what there is. Everything runs in a virtual environment that make sets up.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
export OMP_NUM_THREADS ?= 2
SUITE  ?= paper
RECIPES_OF_paper := experiments/table1_zero_shot
RECIPES_OF_mini  := experiments/table1_zero_shot experiments/real_photographs $(wildcard experiments/ablation_*)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long test-slow check format docs bench gpu reproduce clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-11s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "crane needs Python 3.10 or newer; name one: make PYTHON=python3.11 ..."; exit 1; }
ifdef CPU
	@test -n "$(TORCH_CPU_INDEX)" || { echo "CPU=1 needs TORCH_CPU_INDEX=ADDRESS, the address of" \
		"PyTorch's builds for the CPU, which pytorch.org/get-started shows for pip and CPU"; exit 1; }
endif
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "Python's venv module is missing; on Debian: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
ifdef CPU
	PIP_INDEX_URL=$(TORCH_CPU_INDEX) $(BIN)/python -m pip install --quiet --constraint constraints.txt torch torchvision
endif
	@echo "installing crane and what it needs (with PyTorch about 6 GB, or 1.5 GB with CPU=1; some minutes)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	@touch $@

setup: $(READY)  ## Set up the environment; CPU=1 takes PyTorch's build without CUDA

demo: $(READY)  ## Train Crane and Crane+ on one domain, test on others, draw heat maps (no downloads)
	$(BIN)/crane demo

test: $(READY)  ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-long: $(READY)  ## Run the longer tests: whole sweeps, suites and commands
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m 'long and not slow'

test-slow: $(READY)  ## Run the tests that take minutes or gigabytes
	$(BIN)/python -m pytest -m slow

check: $(READY)  ## Check format, lint, types, import layers and spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(READY)  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)  ## Build the documentation site in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY)  ## Measure speed and memory (40 minutes); writes benchmarks/README.md
	$(BIN)/python -m benchmarks

gpu:  ## Check and measure on a GPU (8 minutes, PYTHON's own packages); writes benchmarks/gpu.md
	PYTHONPATH=src:$$PYTHONPATH $(PYTHON) -m benchmarks.on_gpu --device cuda

reproduce: $(READY)  ## Make the paper's table again; with SUITE=mini every experiment in small
	$(BIN)/crane reproduce $(RECIPES_OF_$(SUITE)) suite=$(SUITE)

clean:  ## Remove the environment and everything that runs left here
	rm -rf $(VENV) runs outputs multirun site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
