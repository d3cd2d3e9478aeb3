# Everything here needs Python 3.11 or later and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STATE := .modelwire

.PHONY: help venv demo test check chaos bench up down clean lock schemas

help:
	@echo "make demo    train, release, shadow, canary, undo, check: on a real Kafka broker"
	@echo "make test    all tests, on a real Kafka broker and a real S3 server"
	@echo "make check   format, lint, types, import contracts"
	@echo "make chaos   the long tests, then one run of kills and faults: REQUESTS= KILLS= BROKER_KILLS= SEED="
	@echo "make bench   measure the loop, swaps, stalls, memory, poison, panels, the trainer, the sink and audit queries"
	@echo "make up      start the local stack (make down stops it)"
	@echo "make clean   remove the virtual environment, caches and the local stack's state"

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "error: '$(PYTHON)' is not Python 3.11 or later; say which one is: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "error: this Python cannot make virtual environments; install its venv package (Debian: python3-venv)" >&2; exit 1; }
	@echo "making $(VENV) from requirements.lock" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

venv: $(STAMP)

demo: $(STAMP)
	@$(BIN)/modelwire demo $(ARGS)

# Several at once, since most of a test is waiting. Each has a broker and an S3 server of its own.
WORKERS ?= 2

test: $(STAMP)
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

check: $(STAMP)
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/mypy

# The sizes reach the run as environment variables. Its last line is a JSON object.
chaos: $(STAMP)
	@status=0; $(BIN)/python -m pytest -m "chaos or slow" $(ARGS) || status=$$?; \
	  $(BIN)/python -m tests.chaos.run || status=$$?; exit $$status

bench: $(STAMP)
	@$(BIN)/python -m bench.loop $(ARGS)
	@$(BIN)/python -m bench.fold
	@$(BIN)/python -m bench.swaps
	@$(BIN)/python -m bench.stalls
	@$(BIN)/python -m bench.shadow
	@$(BIN)/python -m bench.loader
	@$(BIN)/python -m bench.poison
	@$(BIN)/python -m bench.sink
	@$(BIN)/python -m bench.panel
	@$(BIN)/python -m bench.trainer
	@$(BIN)/python -m bench.audit_query

up: $(STAMP)
	@$(BIN)/modelwire up

down: $(STAMP)
	@$(BIN)/modelwire down

clean:
	@if [ -x $(BIN)/modelwire ] && [ -d $(STATE) ]; then $(BIN)/modelwire down; fi
	rm -rf $(VENV) $(STATE) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# For developers: after a change of pyproject.toml's dependencies, or of schemas/.
lock: $(STAMP)
	@$(BIN)/python -m pip install --quiet pip-tools
	@$(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --allow-unsafe --strip-extras --extra local --extra dev --output-file requirements.lock pyproject.toml

# What is generated and checked in.
schemas: $(STAMP)
	@$(BIN)/python -m schemas.publish
	@$(BIN)/python -m modelwire.settings_page
