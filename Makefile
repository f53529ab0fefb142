# Everything runs in .venv, which the first target makes; nothing has to be installed by hand but Python and make.
PYTHON ?= python3
BIN := .venv/bin
TOGETHER := OMP_WAIT_POLICY=passive  # threads that spin while they wait take the cores from other processes
OLDEST := torch==2.11.0 torchvision==0.26.0 'triton==3.6.0; sys_platform == "linux"'  # see pyproject.toml

.DEFAULT_GOAL := help
.PHONY: run test test-oldest accelerator accelerator-wheels fuzz check format bench pictures help clean

run: .venv/installed ## train, evaluate and infer on the embedded digits, with traces under runs/
	$(BIN)/python -m train $(ARGS)

test: .venv/installed ## the test suite, in two processes (ARGS="-n 0 FILE": in one)
	$(TOGETHER) $(BIN)/python -m pytest -n 2 $(ARGS)

test-oldest: .venv-oldest/installed ## the test suite under the oldest torch that pyproject.toml allows
	$(TOGETHER) .venv-oldest/bin/python -m pytest -n 2 $(ARGS)

accelerator: .venv/installed ## prove everything on this machine's GPU (ARGS="limit_s=480 device=cpu": the same, shrunk)
	$(BIN)/python -m tests.accelerator $(ARGS)

accelerator-wheels: .venv/installed ## fetch what a GPU machine without a network lacks into .wheels/ (ARGS=3.12: its Python)
	$(BIN)/python -m tests.accelerator.wheels $(ARGS)

fuzz: .venv/installed ## 10,000 odd inputs of each kind and 280 runs, bounded in time and memory (ARGS="traces --seed 1")
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
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/' | sort

clean: ## remove the virtual environment and caches; runs/ and data/ stay
	rm -rf .venv .venv-oldest .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

.venv/installed: pyproject.toml
	@echo "installing torch and others into .venv: some minutes, on Linux several GB (without a GPU: see Start in README.md)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --upgrade pip
	$(BIN)/python -m pip install -qq --editable '.[dev]'
	@touch $@

.venv/bench: .venv/installed
	$(BIN)/python -m pip install -qq --editable '.[bench]'
# A tab of TensorBoard: in the environment itself, every TensorBoard here would load it.
	$(BIN)/python -m pip install -qq --upgrade --no-deps --target .venv/peers torch-tb-profiler==0.4.3
	@touch $@

# All of .venv but torch: what differs is torch's doing, and its CUDA libraries are not downloaded again. With tensorboard
# and ourselves come their commands, which start the Python that they are installed for.
.venv-oldest/installed: .venv/installed
	$(BIN)/python -m venv .venv-oldest
	$(BIN)/python -c "import site; print(f'import site; site.addsitedir({site.getsitepackages()[0]!r})')" \
	  > $$(.venv-oldest/bin/python -c "import site; print(site.getsitepackages()[0])")/venv.pth
	.venv-oldest/bin/python -m pip install -qq --no-deps --ignore-installed $(OLDEST) tensorboard --editable .
	@touch $@
