# Stratos in Python. `make run` and `make test` do all set-up themselves; `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
# The first of these that runs: a name on PATH may be a shim without a version behind it.
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python3.13; do $$p -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Everything the project fetches or builds for itself stays inside its own folder.
export STRATOS_TOOLS ?= $(CURDIR)/.tools

.DEFAULT_GOAL := help
.PHONY: help setup run localnet network test test-interop simulate soak check bench proto lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Stratos needs Python 3.11, 3.12 or 3.13 with venv, and none is on PATH: install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

NATIVE := $(VENV)/.native
$(NATIVE): chain/store/fast/core.c chain/crypto/fast/verify.c sds_node/fast/leaves.c tools/build_core.py $(READY)
	$(BIN)/python -m tools.build_core
	touch $@

setup: $(READY) $(NATIVE) ## create .venv from requirements.lock, build the native parts

run: setup ## a one-validator devnet: start it, show it, continue it next time (RESET=1 starts over)
	@$(BIN)/python -m tools.devnet $(if $(RESET),--reset)

localnet: setup ## four validators and a full node in .localnet (RESET=1 starts over; LOCALNET_ARGS="--block-time 500ms")
	@$(BIN)/python -m tools.localnet $(if $(RESET),--reset) $(LOCALNET_ARGS)

network: setup ## a chain, a meta node and six resource nodes in .network, each a process (RESET=1 starts over; SIZE=full: 4 and 12)
	@$(BIN)/python -m tools.network $(if $(RESET),--reset) $(if $(SIZE),--size $(SIZE)) $(NETWORK_ARGS)

# These share no process, port or clock with each other, so two files run at once; the rest starts networks that want both cores.
SIDE_BY_SIDE := $(addprefix tests/,abci api app codec crypto economics modules sds_node simulation)

test: setup ## every test that needs no long build, about 20 minutes on 2 cores
	$(BIN)/python -m chain.comet
	$(BIN)/python -m tools.run_tests -m "not interop" -n 2 --dist loadfile $(PYTEST_ARGS) --ignore=tests/sds_node/processes $(SIDE_BY_SIDE)
	$(BIN)/python -m tools.run_tests -m "not interop" $(PYTEST_ARGS) $(addprefix --ignore=,$(SIDE_BY_SIDE)) tests
	$(BIN)/python -m tools.run_tests -m "not interop" $(PYTEST_ARGS) tests/sds_node/processes

test-interop: setup ## the real clients and peers: simd, CosmJS, cosmpy, curl
	$(BIN)/python -m chain.comet
	$(BIN)/python -m tests.interop.peers
	$(BIN)/python -m tools.run_tests -m interop $(PYTEST_ARGS)

check: setup ## ruff, mypy strict, determinism, imports, docs, compiled descriptors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/lint_determinism.py
	$(BIN)/python tools/lint_imports.py
	$(BIN)/python tools/compile_proto.py --check
	$(BIN)/python -m tools.check_docs

simulate: setup ## random histories in three processes each (SEEDS=1-3 BLOCKS=10 OPS=30); findings are shrunk into build/
	$(BIN)/python -m tests.simulation run --seeds $(or $(SEEDS),1-3) --blocks $(or $(BLOCKS),10) --operations $(or $(OPS),30)

soak: setup ## the long runs: fuzzing, kills, all mutants; figures go to docs/soak.json (SOAK=name for one)
	$(BIN)/python -m tests.soak $(SOAK)

bench: setup ## figures against docs/benchmarks.md, as ratios within one run
	$(BIN)/python -m bench

proto: setup ## compile proto/ into chain/codec/descriptors.binpb
	$(BIN)/python tools/compile_proto.py

lock: setup ## resolve pyproject.toml anew into requirements.lock
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements.lock

clean: ## remove what set-up and builds made (devnet and localnet stay)
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
