# Commands of the project. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
export PYTHONDONTWRITEBYTECODE := 1
# In a shell that sourced `.sandbox/env` these name a file that comes and goes with a sandbox.
ifneq (,$(findstring /.sandbox/,$(SSL_CERT_FILE)))
unexport SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
endif

.DEFAULT_GOAL := help
.PHONY: help sandbox sandbox-down sandbox-status dashboards rehearse prices recover test lint types unit verify-chart prove clean

help: ## Lists the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Marked like all processes of the sandbox, so that `make sandbox-down` in another shell finds what is at work.
SANDBOX := OVH_VLLM_SANDBOX="$$PWD/.sandbox" $(RUN) -m sandbox

sandbox: $(VENV)/.ready ## Starts the local cloud, runs `pulumi up`, asks the model one question, prints what was built
	@$(SANDBOX) up $(if $(SETTINGS),--settings $(SETTINGS))

sandbox-down: $(VENV)/.ready ## Destroys the sandbox stack and ends every process of the sandbox
	@$(SANDBOX) down

sandbox-status: $(VENV)/.ready ## Tells what runs in the sandbox and what it would cost
	@$(SANDBOX) status

dashboards: $(VENV)/.ready ## Writes the dashboards with the sandbox's data as one HTML page: make dashboards [RANGE=15m] [OUTPUT=page.html]
	@$(SANDBOX) dashboards $(if $(RANGE),--range $(RANGE)) $(if $(OUTPUT),--output $(OUTPUT))

prices: $(VENV)/.ready ## Renews components/prices.json from OVHcloud's public catalogue
	@$(RUN) -m components.price_catalogue

rehearse: $(VENV)/.ready ## Runs a stack on virtual time under some traffic: make rehearse STACK=prod [TRAFFIC=article] [SEED=1] [SWEEP=no] [CALIBRATION=file] [OUTPUT=page.html] [JSON=file.json]
	@test -n "$(STACK)" || { echo "which stack? make rehearse STACK=prod" >&2; exit 2; }
	@$(RUN) -m autoscaling --stack "$(STACK)" $(if $(TRAFFIC),--traffic "$(TRAFFIC)") $(if $(SEED),--seed "$(SEED)") $(if $(filter no,$(SWEEP)),--no-sweep) $(if $(CALIBRATION),--calibration "$(CALIBRATION)") $(if $(OUTPUT),--output "$(OUTPUT)") $(if $(JSON),--json "$(JSON)")

recover: ## The way back after a killed or interrupted update: make recover STACK=dev
	@test -n "$(STACK)" || { echo "which stack? make recover STACK=dev" >&2; exit 2; }
	-pulumi cancel --yes -s $(STACK)
	pulumi refresh --yes --skip-preview --clear-pending-creates -s $(STACK)
	pulumi up --yes --skip-preview --continue-on-error -s $(STACK)

test: lint types unit ## Lint, strict types and the test suite

lint: $(VENV)/.ready
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

types: $(VENV)/.ready
	@$(VENV)/bin/mypy

unit: $(VENV)/.ready
	@$(RUN) -m sandbox.toolchain
	@$(RUN) -m pytest -n 2 --dist loadfile

verify-chart: $(VENV)/.ready ## Checks the values against the real chart: make verify-chart CHART=<folder, archive or oci://…>
	@$(RUN) -m sandbox.toolchain
	@$(RUN) -m pytest tests/chart --chart-required

prove: $(VENV)/.ready ## The long proofs; results go to docs/proof
	@$(RUN) -m tests.prove.accuracy
	@$(RUN) -m tests.prove.faults

clean: ## Removes the virtual environment and caches of this checkout (run `make sandbox-down` first)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Made on a new machine and again whenever a requirements file changes; the stamp is the last thing made.
$(VENV)/.ready: requirements.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is %s; name another one: make PYTHON=python3.12 …" % sys.version.split()[0])'
	@$(PYTHON) -m sandbox.toolchain.environment
	@touch $@
