# Everything runs in .venv, which the first target makes; nothing has to be installed by hand but Python and make.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: run test fuzz check format bench pictures help clean

run: .venv/installed ## train, evaluate and infer on the embedded digits, with traces under runs/
	$(BIN)/python -m train $(ARGS)

test: .venv/installed ## the test suite
	$(BIN)/python -m pytest $(ARGS)

fuzz: .venv/installed ## 2,000 odd inputs of each kind, bounded in time and memory (ARGS="traces --seed 1")
	$(BIN)/python -m tests.fuzz $(ARGS)

check: .venv/installed ## lint (Python and JavaScript), format check and strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/oxlint profiling

bench: .venv/bench ## the benchmarks, against the peers that the `bench` extra installs
	$(BIN)/python -m tests.bench $(ARGS)

pictures: .venv/installed ## the README's pictures of the tab, from runs/ (ARGS=FOLDER for others); makes the runs that it lacks
	$(BIN)/python -m tests.tab.pictures $(ARGS)

format: .venv/installed ## let ruff rewrite the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/' | sort

clean: ## remove the virtual environment and caches; runs/ and data/ stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --upgrade pip
	$(BIN)/python -m pip install -qq --editable '.[dev]'
	@touch $@

.venv/bench: .venv/installed
	$(BIN)/python -m pip install -qq --editable '.[bench]'
# A tab of TensorBoard: in the environment itself, every TensorBoard here would load it.
	$(BIN)/python -m pip install -qq --upgrade --no-deps --target .venv/peers torch-tb-profiler==0.4.3
	@touch $@
