# Commands of the project. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# In a shell that sourced `.sandbox/env` these name a file that comes and goes with a sandbox; the commands that
# act on a stack act on that sandbox there.
ON_A_STACK := preview deploy drift doctor loadtest recover
ifeq (,$(filter $(ON_A_STACK),$(MAKECMDGOALS)))
ifneq (,$(findstring /.sandbox/,$(SSL_CERT_FILE)))
unexport SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
endif
endif

# What a target cannot do without: names of variables, and an example of them.
needs = @$(foreach name,$(1),test -n "$($(name))" || { echo "$(name) is missing: make $@ $(2)" >&2; exit 2; };)

# Any other word would be taken for yes.
yes_or_no = @case "$($(1))" in ""|yes|no) ;; *) echo "$(1)=$($(1)): yes or no is needed" >&2; exit 2; esac

.DEFAULT_GOAL := help
.PHONY: help sandbox sandbox-down sandbox-status dashboards rehearse loadtest drill calibrate prices doctor preview deploy drift comment issue recover test lint types unit verify-chart prove clean

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

rehearse: $(VENV)/.ready ## Runs a stack on virtual time under some traffic: make rehearse STACK=prod [TRAFFIC=article] [SWEEP=no] [CALIBRATION=calibration.json]
	$(call needs,STACK,STACK=prod)
	$(call yes_or_no,SWEEP)
	@$(RUN) -m autoscaling --stack "$(STACK)" $(if $(TRAFFIC),--traffic "$(TRAFFIC)") $(if $(SEED),--seed "$(SEED)") $(if $(filter no,$(SWEEP)),--no-sweep) $(if $(CALIBRATION),--calibration "$(CALIBRATION)") $(if $(OUTPUT),--output "$(OUTPUT)") $(if $(JSON),--json "$(JSON)")

# Told neither stack nor address, it tests the sandbox, as a shell does that has read the sandbox's environment.
IN_THE_SANDBOX = environment=$$($(SANDBOX) environment) || { echo "or say what to test: STACK=prod or URL=https://host/v1" >&2; exit 1; }; . "$$environment";
loadtest: $(VENV)/.ready ## Tests the sandbox, STACK=prod or URL=https://host/v1 under load: make loadtest [TRAFFIC=article] [GOODPUT="ttft:2500 tpot:100"]
	$(call yes_or_no,STREAM)
	@$(if $(STACK)$(URL),,$(IN_THE_SANDBOX)) $(RUN) -m loadtest $(if $(URL),--url "$(URL)" $(if $(STACK),--stack "$(STACK)"),--stack "$(or $(STACK),sandbox)") $(if $(MODEL),--model "$(MODEL)") $(if $(TRAFFIC),--traffic "$(TRAFFIC)") $(if $(SEED),--seed "$(SEED)") $(if $(filter no,$(STREAM)),--no-stream) $(if $(GOODPUT),--goodput $(GOODPUT)) $(if $(TIMEOUT),--timeout "$(TIMEOUT)") $(if $(OUTPUT),--output "$(OUTPUT)")

drill: $(VENV)/.ready ## The whole story in minutes: a sandbox of its own, load, scale-up to 3 replicas, faster answers, back to 1
	@$(RUN) -m sandbox drill

calibrate: $(VENV)/.ready ## Measures a replica from a load test of it: make calibrate RESULT=loadtest.json > calibration.json
	$(call needs,RESULT,RESULT=loadtest.json > calibration.json)
	@$(RUN) -m autoscaling.calibrate "$(RESULT)"

doctor: $(VENV)/.ready ## Looks for what would stop a stack, before anything is bought: make doctor STACK=dev
	$(call needs,STACK,STACK=dev)
	@$(RUN) -m doctor "$(STACK)"

preview: $(VENV)/.ready ## What an update would change and cost: make preview STACK=dev [COMMENT=file.md] [PLAN=file]
	$(call needs,STACK,STACK=dev)
	@$(RUN) -m ci preview "$(STACK)" $(if $(COMMENT),--text "$(COMMENT)") $(if $(PLAN),--plan "$(PLAN)")

deploy: $(VENV)/.ready ## Updates a stack, as planned if a plan is given: make deploy STACK=dev [COMMENT=file.md] [PLAN=file]
	$(call needs,STACK,STACK=dev)
	@$(RUN) -m ci deploy "$(STACK)" $(if $(COMMENT),--text "$(COMMENT)") $(if $(PLAN),--plan "$(PLAN)")

drift: $(VENV)/.ready ## Fails when the cloud is not as the state says: make drift STACK=dev [COMMENT=file.md]
	$(call needs,STACK,STACK=dev)
	@$(RUN) -m ci drift "$(STACK)" $(if $(COMMENT),--text "$(COMMENT)")

comment: $(VENV)/.ready ## Puts a preview on a pull request: make comment STACK=dev COMMENT=file.md PULL_REQUEST=1
	$(call needs,STACK COMMENT PULL_REQUEST,STACK=dev COMMENT=file.md PULL_REQUEST=1)
	@$(RUN) -m ci comment "$(STACK)" --text "$(COMMENT)" --pull-request "$(PULL_REQUEST)"

issue: $(VENV)/.ready ## Opens or renews the issue about a stack's drift: make issue STACK=dev COMMENT=file.md
	$(call needs,STACK COMMENT,STACK=dev COMMENT=file.md)
	@$(RUN) -m ci issue "$(STACK)" --text "$(COMMENT)"

recover: $(VENV)/.ready ## The way back after a killed or interrupted update: make recover STACK=dev
	$(call needs,STACK,STACK=dev)
	@$(RUN) -m ci recover "$(STACK)"

test: lint types unit ## Lint, strict types and the test suite

lint: $(VENV)/.ready
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

types: $(VENV)/.ready
	@$(VENV)/bin/mypy

unit: $(VENV)/.ready
	@$(RUN) -m sandbox.toolchain
	@$(RUN) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

verify-chart: $(VENV)/.ready ## Checks the values against the real chart: make verify-chart CHART=<folder, archive or oci://…>
	$(call needs,CHART,CHART=<folder or archive or oci://…>)
	@$(RUN) -m sandbox.toolchain
	@$(RUN) -m pytest tests/chart --chart-required

prove: $(VENV)/.ready ## The long proofs; results go to docs/proof
	@$(RUN) -m tests.prove.accuracy
	@$(RUN) -m tests.prove.faults
	@$(RUN) -m tests.prove.rehearsal_speed
	@$(RUN) -m tests.prove.rehearsals
	@$(RUN) -m tests.prove.agreement
	@$(RUN) -m tests.prove.loadtest_overhead
	@$(RUN) -m tests.prove.preview_weight

clean: ## Removes the virtual environment and caches of this checkout (run `make sandbox-down` first)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Made on a new machine and again whenever a requirements file changes; the stamp is the last thing made.
$(VENV)/.ready: requirements.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is %s; name another one: make PYTHON=python3.12 …" % sys.version.split()[0])'
	@$(PYTHON) -m sandbox.toolchain.environment
	@touch $@
