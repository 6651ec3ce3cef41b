# Everything runs from .venv, which holds exactly what requirements.lock names.
# A machine needs only python3 with venv, make and git.

PYTHON ?= python3
UV_VERSION := 0.13.8
BIN := .venv/bin
UV := $(BIN)/uv --quiet
UV_READY := .venv/.uv-$(UV_VERSION)
READY := .venv/.ready

# Without this pyright asks the network at every run whether it is the newest.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help demo test conformance check bench soak docs lock clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 13

demo: $(READY) ## set everything up in .venv, start a server and the proxy before it, say how to try them
	@$(BIN)/shadowcat demo

# Two at a time, because half of all tests wait for a process most of the time; a file's tests share what it sets up.
test: $(READY) ## run the tests; ARGS="-k sse" picks some
	@$(BIN)/python -m tests.provision redis-server nginx faketime curl chromium npm
	@$(BIN)/pytest --numprocesses 2 --dist loadfile $(ARGS)

conformance: $(READY) ## run the official suite direct and through the proxy, in every form, and compare
	@$(BIN)/python -m tests.provision npm
	@$(BIN)/python -m tests.conformance $(ARGS)

check: $(READY) ## formatting, lint, types, import rules
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/pyright
	@$(BIN)/pytest --quiet tests/test_layers.py

bench: $(READY) ## measure against nginx and others, in one run
	@$(BIN)/python -m tests.provision nginx wrk redis-server
	@$(BIN)/python -m bench.provision
	@$(BIN)/python -m bench $(ARGS)

soak: $(READY) ## run the long checks that have no place in make test
	@$(BIN)/python -m bench.soak $(ARGS)

docs: $(READY) ## write what of docs/reference comes from the code
	@$(BIN)/python -m tests.reference

lock: $(UV_READY) ## resolve the newest releases into requirements.lock
	@$(UV) pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
		--upgrade --generate-hashes --custom-compile-command "make lock" --output-file requirements.lock
	@$(UV) pip compile bench/bridges/requirements.in --universal --python-version 3.11 \
		--upgrade --generate-hashes --custom-compile-command "make lock" --output-file bench/bridges/requirements.lock

clean: ## remove .venv and every cache
	@rm -rf .venv .pytest_cache .ruff_cache .hypothesis dist
	@find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(UV_READY):
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

# sync also removes what the lock no longer names. The build backend comes from the lock, hence no isolation.
$(READY): $(UV_READY) requirements.lock pyproject.toml
	@echo "setting up .venv"
	@$(UV) pip sync --python $(BIN)/python --require-hashes requirements.lock
	@$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
