# Every target makes what it needs; a bare Python 3.11+ and make are enough.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests wait more than they compute: three at a time keep two cores busy.
JOBS ?= 3

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(READY) ## Make the virtual environment from the lock

# pip checks every hash of the lock; the project itself is installed in place, without looking anything up.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "byok needs Python 3.11 or newer (set PYTHON=…)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: demo
demo: $(READY) ## See the main job: register, probe, evaluate, judge, bill, on simulated endpoints
	$(BIN)/byok demo

# The report page is tested in a real browser, and the control plane on a real PostgreSQL: Debian's, installed where they are missing.
.PHONY: programs
programs:
	@{ command -v chromium && ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1 || { \
		as_root=$$([ "$$(id -u)" -eq 0 ] || echo sudo); \
		$$as_root apt-get update -qq && \
		$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium postgresql; \
	} || echo "chromium or postgresql could not be installed: the tests that need them will fail until they are"

.PHONY: test
test: $(READY) programs ## Run the tests, but for the slow ones (11 minutes on 2 cores)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow" $(PYTEST_ARGS)

# Whole runs through a real server and worker, interrupted in every way, with a search for keys in all that they leave; and what takes long to
# find out: limits that are learnt in simulated time, and a ledger that eight processes write into.
.PHONY: test-slow
test-slow: $(READY) programs ## Run the slow tests: interrupted, killed and scaled runs, and the search for leaked keys (14 minutes)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m slow $(PYTEST_ARGS)

.PHONY: test-kill
test-kill: $(READY) ## Kill whole chains at fifty random moments, and check what is on record against the endpoints' counters (8 minutes)
	BYOK_TEST_KILLS=50 $(BIN)/python -m pytest -s tests/e2e/test_killed_at_random.py $(PYTEST_ARGS)

# What cannot be simulated is run for real, each group by a target of its own.
.PHONY: test-nginx
test-nginx: $(READY) ## Run the tests of a real nginx as reverse proxy: TLS, client certificates, buffering, limits (2 minutes)
	@PATH="$$PATH:/usr/sbin"; command -v nginx >/dev/null 2>&1 || { \
		as_root=$$([ "$$(id -u)" -eq 0 ] || echo sudo); \
		$$as_root apt-get update -qq && \
		$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light; \
	} || echo "nginx could not be installed: its tests will fail until it is"
	PATH="$$PATH:/usr/sbin" $(BIN)/python -m pytest tests/outside/nginx $(PYTEST_ARGS)

SDK := .venv-sdk
$(SDK)/.ready: requirements-sdk.lock
	$(PYTHON) -m venv $(SDK)
	$(SDK)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-sdk.lock
	@touch $@

.PHONY: test-sdk
test-sdk: $(READY) $(SDK)/.ready ## Check what the sandbox says with the typed SDKs of the providers (1 minute)
	BYOK_BIN=$(abspath $(BIN))/byok $(SDK)/bin/python -m pytest -c tests/outside/sdk/pytest.ini tests/outside/sdk $(PYTEST_ARGS)

MLFLOW := .venv-mlflow
$(MLFLOW)/.ready: requirements-mlflow.lock
	$(PYTHON) -m venv $(MLFLOW)
	$(MLFLOW)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-mlflow.lock
	@touch $@

.PHONY: test-mlflow
test-mlflow: $(READY) $(MLFLOW)/.ready ## Run the tests of real MLflow gateways (900 MB, 6 minutes)
	BYOK_MLFLOW_VENV=$(abspath $(MLFLOW)) $(BIN)/python -m pytest tests/outside/mlflow $(PYTEST_ARGS)

DBT := .venv-dbt
$(DBT)/.ready: requirements-dbt.lock
	$(PYTHON) -m venv $(DBT)
	$(DBT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-dbt.lock
	@touch $@

.PHONY: test-dbt
test-dbt: $(READY) $(DBT)/.ready ## Run the example dbt project on a real snapshot (200 MB, 1 minute)
	BYOK_DBT_VENV=$(abspath $(DBT)) $(BIN)/python -m pytest tests/outside/dbt $(PYTEST_ARGS)

FOCUS := .venv-focus
# The validator needs Python 3.12 or newer, and is published as source only, like one of what it needs; their hashes are checked all the same.
FOCUS_PYTHON ?= $(shell for one in python3.13 python3.12 python3 "$$HOME"/.pyenv/versions/3.1[23].*/bin/python; do \
	"$$one" -c 'import sys; sys.exit(not (3, 12) <= sys.version_info < (3, 14))' 2>/dev/null && echo "$$one" && break; done)
$(FOCUS)/.ready: requirements-focus.lock
	@[ -n "$(FOCUS_PYTHON)" ] || { echo "focus-validator needs Python 3.12 or 3.13, and none was found: set FOCUS_PYTHON=/path/to/python3.12"; exit 1; }
	$(FOCUS_PYTHON) -m venv $(FOCUS)
	$(FOCUS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
		--no-binary focus-validator,pandasql -r requirements-focus.lock
	@touch $@

.PHONY: test-focus
test-focus: $(READY) $(FOCUS)/.ready ## Check the FOCUS export with the FinOps Foundation's validator (500 MB, 2 minutes)
	BYOK_FOCUS_VENV=$(abspath $(FOCUS)) $(BIN)/python -m pytest tests/outside/focus $(PYTEST_ARGS)

.PHONY: test-live
test-live: $(READY) ## Run the whole chain on a server of your own: BYOK_LIVE_BASE_URL, BYOK_LIVE_MODEL, BYOK_LIVE_KEY
	$(BIN)/python -m pytest tests/outside/live $(PYTEST_ARGS)

.PHONY: lint
lint: $(READY) ## Check style, imports and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: format
format: $(READY) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: docs
docs: $(READY) ## Write the data dictionary and the dbt sources anew, from the database's own comments
	$(BIN)/byok schema show --format markdown > docs/data-dictionary.md.part && mv docs/data-dictionary.md.part docs/data-dictionary.md
	$(BIN)/byok schema show --format dbt > docs/dbt/models/sources.yml.part && mv docs/dbt/models/sources.yml.part docs/dbt/models/sources.yml

.PHONY: lock
lock: $(READY) ## Resolve the dependencies anew into the lock files
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --no-emit-index-url --python-version 3.11 \
		--group dev pyproject.toml --output-file requirements.lock --custom-compile-command "make lock"
	for group in sdk mlflow; do $(BIN)/uv pip compile --quiet --generate-hashes --universal --no-emit-index-url --python-version 3.11 \
		tests/outside/$$group/requirements.in --output-file requirements-$$group.lock --custom-compile-command "make lock"; done
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --no-emit-index-url --no-strip-extras --python-version 3.11 \
		tests/outside/dbt/requirements.in --output-file requirements-dbt.lock --custom-compile-command "make lock"
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --no-emit-index-url --python-version 3.12 \
		tests/outside/focus/requirements.in --output-file requirements-focus.lock --custom-compile-command "make lock"

.PHONY: bench
bench: $(READY) programs ## Run the benchmarks (results: benchmarks/README.md)
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/warehouse.py
	$(BIN)/python benchmarks/keystore.py
	$(BIN)/python benchmarks/ledger.py --write

.PHONY: clean
clean: ## Remove what the other targets made
	rm -rf $(VENV) $(SDK) $(MLFLOW) $(DBT) $(FOCUS) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info \
		docs/dbt/target docs/dbt/logs docs/dbt/.user.yml docs/dbt/marts.duckdb
