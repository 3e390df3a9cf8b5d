# `make` alone lists what there is. Every target sets up what it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PARITY := .venv-parity
BENCH  := $(VENV)/.ready-bench
JOBS   ?= 2
CODE   := orchestrator trainers dashboards benchmarks tests docs

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
BENCHMARKS := head_only mixed_depth all_layers floor overhead startup inference feed

.PHONY: help setup sweep check test road road-pythons test-slow growth gpu-check worker-memory parity space serve-test search-quality bench format docs dist clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: $(READY) ## make .venv with everything pinned by constraints.txt

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "orch needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another with make PYTHON=...")'
	@echo "setting up $(VENV): about 3 GB of packages the first time, a few minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]' || { echo 'setting up failed; remove $(VENV) and run make again' >&2; exit 1; }
	@touch $@

sweep: $(READY) ## the quick sweep: digits, no download, about a minute on two cores; a fresh folder each time
	@$(BIN)/orch sweep quick --fresh

check: $(READY) ## format, lint, types, architecture, docs
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python docs/make_cli_reference.py --check
	@$(BIN)/python docs/make_file_reference.py --check
	@$(BIN)/python docs/make_backbone_table.py --check
	@$(BIN)/python docs/make_costs_table.py --check
	@$(BIN)/python docs/make_architecture.py --check
	@$(BIN)/python docs/make_third_party.py --check

test: $(READY) ## the tests, without the slow ones, in JOBS processes (2)
	@$(BIN)/python -m pytest -m "not slow" --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

road: $(READY) ## outside the checkout, editable and as a wheel: every command that the documents print
	@$(BIN)/python -m tests.road.walk --install both --documents

road-pythons: $(READY) ## the wheel under each other Python from 3.11 to 3.13 that is here, or PYTHONS="3.12 3.13"
	@$(BIN)/python -m tests.road.walk --install wheel --pythons "$(PYTHONS)"

test-slow: $(READY) ## the slow tests alone, in JOBS processes (2); half an hour to an hour
	@$(BIN)/python -m pytest -m slow --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder --ignore tests/test_growth.py

growth: $(READY) ## photos in ten instalments, a sweep and a promotion after each; about an hour on two idle cores
	@$(BIN)/python -m pytest -m slow --capture no --timeout 7200 tests/test_growth.py

gpu-check: $(READY) ## on a machine with an NVIDIA GPU: memory shares, precision, features, speeds; at most 8 minutes
	@$(BIN)/python -m tests.support.gpu_check

worker-memory: $(READY) ## memory of a warm worker over 500 small trials of 20 architectures
	@$(BIN)/python -m benchmarks.training.worker_memory

parity: ## converted backbones against PyTorch with the same weights; sets up a second environment with torch the first time
	@test -e $(PARITY)/.ready || { echo "setting up $(PARITY): torch and timm, about 8 GB"; $(PYTHON) -m venv $(PARITY) \
	  && $(PARITY)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[parity]' && touch $(PARITY)/.ready; }
	@$(PARITY)/bin/python -m tests.support.parity

space: $(READY) ## every backbone and every head through an epoch of orch sweep full, on digits
	@$(BIN)/python -m benchmarks.space_coverage

serve-test: $(READY) ## a clean environment serves a champion over HTTP and answers a photo
	@$(BIN)/python -m tests.support.serve_test

search-quality: $(READY) ## samplers and schedulers against planted optima; writes docs/search-quality.md
	@$(BIN)/python -m benchmarks.search_quality

bench: $(BENCH) ## every benchmark at a small size, about eleven minutes; needs ORCH_DATA and ORCH_WEIGHTS; writes benchmarks/RESULTS.md
	@failed=; for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name --small || failed="$$failed $$name"; done; \
	  test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

$(BENCH): $(READY)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

format: $(READY) ## format, and fix what ruff can fix
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)

docs: $(READY) ## write again what is generated from the code: cli, backbones, tables of file.md, architecture, THIRD_PARTY.md
	@$(BIN)/python docs/make_cli_reference.py
	@$(BIN)/python docs/make_file_reference.py
	@$(BIN)/python docs/make_backbone_table.py
	@$(BIN)/python docs/make_architecture.py
	@$(BIN)/python docs/make_third_party.py

dist: $(READY) ## an sdist and a wheel in dist/, with every sub-package and data file
	@rm -rf dist build
	@$(BIN)/python -m build --outdir dist . > /dev/null
	@rm -rf build *.egg-info
	@$(BIN)/python -m tests.support.check_dist

clean: ## remove caches and builds; runs/, mlflow.db and .venv stay
	@rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	@find orchestrator trainers dashboards search_spaces tests docs -name __pycache__ -prune -exec rm -rf {} +
