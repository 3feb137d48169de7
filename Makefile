# Set TORCH_INDEX=https://download.pytorch.org/whl/cpu on a laptop: PyTorch's ordinary wheel for Linux is the CUDA build.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LAKE ?= ./lake
DATA ?=
WORKERS ?= auto
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadscope --no-loadscope-reorder
CODE := understudy components pipelines feature_repo benchmarks images tests

.DEFAULT_GOAL := help

$(VENV)/.ready: requirements/local.txt pyproject.toml
	@command -v java >/dev/null || { echo "error: expected Java 17 (for Spark), found no java; install it, such as openjdk-17-jre-headless" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements/local.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.PHONY: install
install: $(VENV)/.ready ## create the environment

.PHONY: demo
demo: install ## the main job: weeks of a simulated feed; with DATA= two releases from real logs (LAKE=)
	$(BIN)/understudy demo --lake "$(LAKE)" $(if $(DATA),--data "$(DATA)")

.PHONY: lint
lint: install ## style and types
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy understudy components pipelines

.PHONY: test-unit
test-unit: install ## one process's logic: no Spark, no servers but loopback HTTP (WORKERS=)
	$(PYTEST) tests/unit -m "not slow"

.PHONY: test-integration
test-integration: install ## real Spark, Feast, Redis, servers (WORKERS=)
	$(PYTEST) tests/integration -m "not slow"

.PHONY: test
test: lint ## lint, types, unit and integration tests
	$(PYTEST) -m "not slow"

.PHONY: test-slow
test-slow: install ## what test-all has beyond test: whole runs, kills, containers
	$(PYTEST) -m slow tests/e2e/test_loop.py tests/e2e/test_kill.py tests

.PHONY: test-all
test-all: lint ## every test
	$(PYTEST)

.PHONY: deps-test
deps-test: ## install the programs that tests start, or say how
	$(PYTHON) tests/support/programs.py

.PHONY: bench
bench: install ## the comparisons behind the README's numbers (DATA=)
	$(BIN)/python benchmarks/refresh.py --data "$(DATA)"
	$(BIN)/python benchmarks/trees.py --data "$(DATA)"
	$(BIN)/python benchmarks/distillation.py --data "$(DATA)"
	$(BIN)/python benchmarks/loader.py --data "$(DATA)"
	$(BIN)/python benchmarks/training.py --data "$(DATA)"
	$(BIN)/python benchmarks/serving.py --data "$(DATA)"
	$(BIN)/python benchmarks/weekly.py
	$(BIN)/python benchmarks/rollouts.py
	$(BIN)/python benchmarks/collector.py
	$(BIN)/python benchmarks/point_in_time.py
	$(BIN)/python benchmarks/simulator.py
	$(BIN)/python benchmarks/position.py
	$(BIN)/python benchmarks/closed_loop.py

.PHONY: images
images: ## container images of every role, and what they weigh (ROLE=, ENGINE=, BASE=, TAG=, VARIANT=)
	./images/build.sh

.PHONY: lock
lock: install ## resolve the exact versions of every role anew (needs uv)
	./requirements/lock.sh

.PHONY: clean
clean: ## remove what was built; the lake stays
	rm -rf build local_outputs .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
