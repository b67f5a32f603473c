# discod. `make` alone lists the targets. PYTHON=/path/to/python3 chooses another Python (>= 3.11).
.DEFAULT_GOAL := help
VENV ?= .venv
PY := $(VENV)/bin/python
ARGS ?=
BENCHMARKS := $(filter-out __main__,$(basename $(notdir $(shell grep -l "^if __name__" benchmarks/*.py))))
SHELL_SCRIPTS := $(filter-out %.py %__pycache__,$(wildcard scripts/*)) .ci/run $(wildcard deploy/*.sh)

.NOTPARALLEL:
.PHONY: help run test check lint format demo bench test-faults soak fuzz fuzz-dns docs lock clean env-run env-dev env-fuzz packages

help: ## List the targets
	@sed -n 's/^\([a-z%-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

run: env-run ## Start the daemon on its embedded default: memory store, DNS on 127.0.0.1:5354
	@exec $(VENV)/bin/discod run --config discod/example.toml

test: env-dev packages lint ## Everything: lint, types, unit, conformance and lab tests (lab: as root)
	$(PY) -m pytest $(ARGS)

check: env-dev lint ## What needs no root: lint, types, unit and conformance tests
	$(PY) -m pytest -m "not lab" $(ARGS)

lint: env-dev ## ruff, mypy, shellcheck where present
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	@if command -v shellcheck >/dev/null; then shellcheck $(SHELL_SCRIPTS); \
	else echo "shellcheck is not there: shell scripts are not checked"; fi

format: env-dev ## Format the code, and mend what ruff can mend
	$(VENV)/bin/ruff format
	$(VENV)/bin/ruff check --fix

demo: env-run packages ## Three hosts, three etcds, real dockerds; how fast the dead leave DNS (root)
	@exec $(PY) -m demo $(ARGS)

bench: env-run packages ## All benchmarks in short form; results in build/bench/ (root)
	@for name in $(BENCHMARKS); do $(PY) -m benchmarks.$$name --short $(ARGS) || exit; done

bench-%: env-run packages ## One benchmark, e.g. make bench-failover
	@exec $(PY) -m benchmarks.$(subst -,_,$*) $(ARGS)

test-faults: env-dev packages ## The fault suite alone, with its table: what users see during and after each fault (root)
	$(PY) -m pytest tests/lab/faults $(ARGS)

soak: env-dev packages ## Hours of random operations and faults, e.g. ARGS="--hours 2" (root)
	$(PY) -m tests.lab.soak $(ARGS)

fuzz: env-fuzz ## Coverage-guided fuzzing of every input; e.g. ARGS="store -max_total_time=600"
	$(PY) -m tests.fuzz $(if $(filter-out -%,$(ARGS)),,all) $(or $(ARGS),-max_total_time=120)

fuzz-dns: env-fuzz ## Coverage-guided fuzzing of DNS; e.g. ARGS="query -max_total_time=600"
	$(PY) -m tests.fuzz $(or $(ARGS),-max_total_time=60)

docs: env-dev ## Write docs/metrics.md anew from the code
	$(PY) scripts/metrics_table.py docs/metrics.md

lock: ## Write the lock files anew; UPGRADE=trio or UPGRADE=all brings packages up to date
	scripts/lock $(UPGRADE)

clean: ## Remove what make made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

env-run:
	@scripts/venv $(VENV) run

env-dev:
	@scripts/venv $(VENV) dev

env-fuzz: env-dev
	@scripts/venv $(VENV) fuzz

# Without root the lab cannot run: pytest then says what it leaves out (and fails under CI).
packages:
	@if [ "$$(id -u)" = 0 ]; then scripts/system-packages; \
	else echo "not root: system packages are neither checked nor installed"; fi
