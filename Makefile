# The verbs of this project. `make demo` and `make test` set up all they need; Python >= 3.11, make and pip are assumed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CHECKS := tests/test_alerts.py tests/test_collector.py tests/test_compose.py tests/test_dashboards.py tests/test_parity.py
PYTHON_FOLDERS := instrumentation dashboards tests examples scripts

.DEFAULT_GOAL := help
.PHONY: help demo test check lint generate stack digests lock bench clean

help: ## say what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# One environment, from the hashed lock; made again when the lock changes.
$(READY): requirements/test.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## see a multi-agent app retry, wait, fail and recover, in this terminal
	$(BIN)/python examples/demo.py

test: $(READY) ## set up what is missing and pass the tests
	$(BIN)/python scripts/envs.py
	$(BIN)/python scripts/servers.py
	$(BIN)/python scripts/generate.py --check
	$(BIN)/ruff check $(PYTHON_FOLDERS)
	$(BIN)/mypy
	$(BIN)/python -m pytest

check: $(READY) ## what is generated is fresh; style, types, configurations, rules and dashboards hold
	$(BIN)/python scripts/generate.py --check
	$(BIN)/ruff check $(PYTHON_FOLDERS)
	$(BIN)/mypy
	$(BIN)/python scripts/servers.py
	$(BIN)/python -m pytest -q $(CHECKS)

lint: $(READY) ## style only
	$(BIN)/ruff check $(PYTHON_FOLDERS)

generate: $(READY) ## write what is generated: triggers, docs/signals.md, docs/settings.md, .env.example, dashboards
	$(BIN)/python scripts/generate.py

stack: $(READY) ## start the real servers, and say where to look
	$(BIN)/python -m watchkeep stack up

digests: $(READY) ## pin the images of docker-compose.yml to their digests; needs docker and a network
	$(BIN)/python scripts/pin_digests.py

lock: $(READY) ## resolve requirements/*.in anew, with hashes and without a registry's address
	@for name in $(basename $(notdir $(wildcard requirements/*.in))); do \
	  $(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-header \
	    requirements/$$name.in -o requirements/$$name.txt || exit 1; done

bench: $(READY) ## what a call costs, in instructions, beside a floor
	$(BIN)/python tests/bench/bench.py

clean: ## remove environments and caches
	rm -rf .venv .venvs .mypy_cache .pytest_cache .ruff_cache .hypothesis
