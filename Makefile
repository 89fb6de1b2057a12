# Everything runs in .venv; PYTHON picks the interpreter it is made with (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help audit fuzz schemathesis openapi run run-cluster test test-servers test-faults test-tools sdk servers servers-stop check lint format types bench bench-cluster lock clean

help: ## Show what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(VENV)/.run ## Set everything up and serve on 127.0.0.1:8000 (PORT=… for another port)
	@$(if $(PORT),IOTFLOW_PORT=$(PORT)) $(BIN)/iotflow serve

# Two at once, as most tests wait for a process, a server or a clock; those of a file stay together.
test: $(VENV)/.dev ## Run all tests that need no server
	@$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not servers and not tools"

servers: ## Start PostgreSQL, Redis, Cassandra and a MongoDB stand-in; print their settings
	@$(PYTHON) deploy/local/servers.py start $(TOPOLOGY)

servers-stop: ## Stop the servers that were started; their data stay
	@$(PYTHON) deploy/local/servers.py stop

run-cluster: $(VENV)/.run ## Start the servers and serve on them (PORT=… for another port)
	@deploy/local/run-cluster.sh $(BIN)/iotflow serve $(if $(PORT),--port $(PORT))

test-servers: $(VENV)/.dev ## Run the tests that need servers; starts them first
	@$(PYTHON) deploy/local/servers.py start single redis-sentinel redis-cluster > /dev/null
	@$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "servers and not faults"

test-faults: $(VENV)/.dev ## Kill, freeze and restart servers under load (ROUNDS=…; about 35 minutes)
	@$(PYTHON) deploy/local/servers.py start single > /dev/null
	@$(if $(ROUNDS),FAULTS_ROUNDS=$(ROUNDS)) $(BIN)/pytest -rP -m faults

sdk: $(BIN)/python ## Generate the Python and the TypeScript client into build/sdk
	@$(BIN)/python deploy/sdk/build.py

test-tools: $(VENV)/.dev ## Run the tests of clients, devices and pages; as root on Debian it installs what they need
	@deploy/tools/install.sh $(abspath $(BIN))/python
	@$(MAKE) --no-print-directory sdk
	@$(BIN)/pytest -q -m tools

check: lint types test ## Everything that must hold before a commit

openapi: $(VENV)/.dev ## Renew docs/openapi.json, and say what a client would notice
	@$(BIN)/python -m tests.api.openapi_changes

lint: $(VENV)/.dev ## ruff, and the rules about who may import whom
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports

types: $(VENV)/.dev ## pyright, strict
	@$(BIN)/pyright

format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

audit: $(VENV)/.audit ## Look for known vulnerabilities in what is pinned (a warning without internet)
	@if [ -x $(VENV)/audit/bin/pip-audit ]; then $(VENV)/audit/bin/python deploy/audit/audit.py requirements.txt; fi

# Optional: what cannot be installed without internet must not fail a build.
$(VENV)/.audit: deploy/audit/requirements.txt | $(BIN)/python
	@$(BIN)/python -m venv $(VENV)/audit
	@if $(VENV)/audit/bin/pip install --quiet --disable-pip-version-check -r $<; then touch $@; \
		else echo "WARNING: dependencies were not audited: pip-audit cannot be installed." >&2; fi

fuzz: $(VENV)/.fuzz ## Fuzz what strangers' bytes go through (RUNS=… of each target)
	@PYTHONPATH=. $(VENV)/fuzz/bin/python -m tests.fuzz.fuzz --corpus $(VENV)/fuzz/corpus \
		--runs $(or $(RUNS),100000) $(TARGET)

$(VENV)/.fuzz: tests/fuzz/requirements.txt requirements.txt | $(BIN)/python
	@$(BIN)/python -m venv $(VENV)/fuzz
	@$(VENV)/fuzz/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(VENV)/fuzz/bin/pip install --quiet --disable-pip-version-check -r $<
	@$(VENV)/fuzz/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

schemathesis: $(VENV)/.dev ## A long run of Schemathesis on embedded stores (MINUTES=…)
	@$(BIN)/python -m tests.fuzz.schemathesis_run --minutes $(or $(MINUTES),15)

bench: $(VENV)/.run ## Measure the service against a plain FastAPI route (ARGS=… for options)
	@$(BIN)/iotflow bench $(ARGS)

bench-cluster: $(VENV)/.run ## The same on real servers, beside PostgreSQL alone and a naive app on it
	@deploy/local/run-cluster.sh $(BIN)/iotflow bench --systems configured,postgres,naive $(ARGS)

lock: $(VENV)/.dev ## Renew the pinned dependencies from pyproject.toml
	@$(BIN)/pip install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --universal --extra parquet $(LOCK_OPTIONS) \
		-o requirements.txt
	@$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --universal --extra parquet --group dev $(LOCK_OPTIONS) \
		-o requirements-dev.txt

clean: ## Remove the environment (never the data)
	rm -rf $(VENV)

# The lock names no registry, so that it works with any.
LOCK_OPTIONS := --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-header --generate-hashes

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("IoTFlow needs Python 3.11 or newer; set PYTHON=python3.11, say") if sys.version_info < (3, 11) else None'
	@echo "Making the environment in $(VENV) (once; about a minute) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt pyproject.toml | $(BIN)/python
	@echo "Installing dependencies ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	@echo "Installing what the tests need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@
