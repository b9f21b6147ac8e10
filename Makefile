# Thin targets: everything also works with the `atelier`, `dagster` and `dg` commands inside .venv.
DATASET ?= scenes
RECIPE ?= tiny
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
TARGET := --dataset $(DATASET) --recipe $(RECIPE)
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help setup demo study study-worlds study-captioners study-decoder study-ablations dev page check-dataset ingest smoke test chaos check fmt screenshots bench clean

help: ## what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade "pip>=24" -c constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt "torch==2.13.0" -e ".[dev]"
	@touch $@

setup: $(INSTALLED) ## create .venv from the pinned constraints

demo: $(INSTALLED) ## materialize the whole graph: make demo [DATASET=scenes]
	$(BIN)/atelier demo $(TARGET)

study: $(INSTALLED) ## every arm of the study of caption blends, two trainings side by side, then the report
	$(BIN)/atelier study $(TARGET)

WORLDS := scenes-low scenes-high scenes-styled
study-worlds: $(INSTALLED) ## raw captions, dsc-95 and the truth on worlds with less and more noise, and with styles and text (made for 64 px)
	set -e; for world in $(WORLDS); do \
	  env $${ATELIER_HOME:+ATELIER_HOME=$$ATELIER_HOME-$$world} \
	    $(BIN)/atelier study --dataset $$world --recipe $(RECIPE) --arms raw-seed0 oracle-seed0; \
	done

study-captioners: $(INSTALLED) ## captioners from 250, 500, 1,000 and 2,000 examples; prints a table
	$(BIN)/atelier study-captioners $(TARGET)

study-decoder: $(INSTALLED) ## diffusion decoder and student with three seeds, and their table
	$(BIN)/atelier study-decoder $(TARGET)

study-ablations: $(INSTALLED) ## the text-to-image model with one part changed, for equal minutes each; prints a table
	$(BIN)/atelier study-ablations $(TARGET)

dev: $(INSTALLED) ## Dagster UI, daemon and MLflow UI; AUTOMATION=1 switches sensors and schedules on
	$(if $(AUTOMATION),ATELIER_AUTOMATION=$(AUTOMATION)) $(BIN)/atelier dev $(TARGET)

page: $(INSTALLED) ## a web page that draws prompts with the champion
	$(BIN)/atelier page $(TARGET)

check-dataset: $(INSTALLED) ## what would be kept of a sample, and why not the rest: make check-dataset DATASET=mine
	$(BIN)/atelier check-dataset $(DATASET) --recipe $(RECIPE)

ingest: $(INSTALLED) ## materialize raw_pairs: make ingest DATASET=emoji
	$(BIN)/atelier ingest $(TARGET)

smoke: $(INSTALLED) ## the whole graph in seconds per stage
	$(BIN)/atelier demo --dataset scenes --recipe smoke

test: $(INSTALLED) ## the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

chaos: $(INSTALLED) ## kill writers at every step, jobs, run processes, daemons; prints what happened
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m chaos

check: $(INSTALLED) ## lint, format, architecture, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/pyright

fmt: $(INSTALLED) ## format and mend what can be mended
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

screenshots: $(INSTALLED) ## the README's pictures from a finished demo of scenes
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.screenshots --recipe $(RECIPE)

bench: $(INSTALLED) ## ratios against references measured in the same run
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks

clean: ## remove the virtual environment and caches, never .atelier
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache
