# Clew. `make` alone lists the targets.
#
# Build results go to one folder outside the checkout, so that a fresh clone builds only what
# changed. Set CARGO_TARGET_DIR to use another.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/clew
export CARGO_TARGET_DIR ?= $(CACHE)/target
VENV := $(CACHE)/venv
PYTHON := $(VENV)/bin/python
CLEW := $(CARGO_TARGET_DIR)/debug/clew
DATA_DIR ?= .clew
ARGS ?=

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: run
run: build ## Start Clew on local disk (data in .clew, ARGS="--set key=value")
	$(CLEW) serve --data-dir $(DATA_DIR) $(ARGS)

NODES ?= 3

.PHONY: cluster
cluster: build ## Start a cluster of processes on this machine (data in .clew-cluster, NODES=3)
	.ci/cluster $(CLEW) .clew-cluster $(NODES) $(ARGS)

.PHONY: demo
demo: python ## Send a minute of realistic multi-service traces with the real SDKs
	$(PYTHON) loadtest/demo/shop.py $(ARGS)

.PHONY: build
build: system ## Build the binary
	cargo build --locked -p clew --bin clew

.PHONY: release
release: system ## Build the binary as it is shipped (slower build, faster program)
	cargo build --locked --release -p clew --bin clew

PREFIX ?= $(HOME)/.local

.PHONY: install
install: build ## Copy the binary that `make run` runs to PREFIX/bin (~/.local/bin)
	mkdir -p $(PREFIX)/bin
	install -m 755 $(CLEW) $(PREFIX)/bin/clew

.PHONY: test
test: unit e2e deploy-test ## Run every test

# All tests share one build, whose binaries can be told to fail and whose clock can be simulated.
TEST_BUILD := --locked --workspace --features clew/failpoints,clew-sim/simulation

.PHONY: unit
unit: system ## Run the tests of the crates, simulations of a cluster among them
	cargo test $(TEST_BUILD) --quiet

.PHONY: test-build
test-build: system
	cargo build $(TEST_BUILD) --bins --tests

.PHONY: e2e
e2e: test-build python ## Run the real binary against real clients, and kill it
	CLEW_BINARY=$(CLEW) CLEW_LOADTEST=$(CARGO_TARGET_DIR)/debug/clew-loadtest $(PYTHON) -m pytest -q -x -rs services/clew/tests/e2e $(ARGS)

DEPLOY_VENV := $(CACHE)/venv-deploy
DEPLOY_TOOLS := $(CACHE)/prometheus

.PHONY: deploy-test
deploy-test: test-build ## Test chart, image, dashboards, alerts and docs with helm, Prometheus and the binary
	@.ci/python $(DEPLOY_VENV) services/clew/tests/deploy/requirements.txt
	@.ci/prometheus $(DEPLOY_TOOLS)
	PATH="$$PATH:$(DEPLOY_TOOLS)/usr/bin" CLEW_BINARY=$(CLEW) CLEW_LOADTEST=$(CARGO_TARGET_DIR)/debug/clew-loadtest \
	  $(DEPLOY_VENV)/bin/python -m pytest -q -x -rs services/clew/tests/deploy $(ARGS)

.PHONY: generate
generate: build ## Make what is derived: schema and README of the chart, rules, dashboards, configuration page
	@.ci/python $(DEPLOY_VENV) services/clew/tests/deploy/requirements.txt
	$(DEPLOY_VENV)/bin/python docs/reference.py $(CLEW)
	$(DEPLOY_VENV)/bin/python helm/generate.py
	$(DEPLOY_VENV)/bin/python helm/monitoring/rules.py
	$(DEPLOY_VENV)/bin/python helm/monitoring/dashboards.py

.PHONY: loadtest
loadtest: build ## Load a fresh local server, check every answer (ARGS="--traces 50000")
	cargo build --locked -p clew-loadtest
	loadtest/local $(CARGO_TARGET_DIR)/debug $(ARGS)

# The optimised build takes long the first time; BENCH_PROFILE=dev is for a look at ratios.
BENCH_PROFILE ?= release
BENCH_PROGRAMS = $(CARGO_TARGET_DIR)/$(if $(filter dev,$(BENCH_PROFILE)),debug,$(BENCH_PROFILE))

.PHONY: bench-build
bench-build: system
	cargo build --locked --profile $(BENCH_PROFILE) --workspace --bins

.PHONY: bench
bench: bench-build ## Measure costs of ingest, storage, queries (ARGS="--json FILE --traces 5000")
	loadtest/pinned $(BENCH_PROGRAMS) bench --label $(shell git rev-parse --short HEAD) $(ARGS)

MINUTES ?= 10

.PHONY: soak
soak: bench-build ## Load a server for a while, kill it in between, check everything (MINUTES=10)
	$(BENCH_PROGRAMS)/clew-loadtest soak --duration $(MINUTES)m $(ARGS)

.PHONY: overload
overload: bench-build ## Offer a server twice what it can take, check what it acknowledged
	loadtest/pinned $(BENCH_PROGRAMS) overload $(ARGS)

.PHONY: bench-compare
bench-compare: bench-build ## Measure two commits, show both (A=main B=HEAD)
	loadtest/bench-compare $(BENCH_PROGRAMS) $(BENCH_PROFILE) $(A) $(B) $(ARGS)

.PHONY: bench-pieces
bench-pieces: system ## Measure the pieces of ingest and search alone (ARGS="block" for some)
	cargo bench --locked --workspace --profile $(BENCH_PROFILE) --bench pieces -- $(ARGS)

SEED ?= $(shell date +%s)

.PHONY: chaos
chaos: test-build python ## Harm a cluster under load in every way there is (SEED=7 MINUTES=10)
	CLEW_BINARY=$(CLEW) $(PYTHON) services/clew/tests/e2e/chaos.py --seed $(SEED) --minutes $(MINUTES)

SEEDS ?= 50
JOBS ?= $(shell nproc)
# Optimised, in a folder of its own, since a seed costs nothing but processor time.
SIM = CARGO_TARGET_DIR=$(CACHE)/target-sim \
  cargo run --locked --quiet --profile sim -p clew-sim --features simulation --

.PHONY: sim
sim: system ## Simulate a whole cluster under many seeds (SEEDS=50), or show one (SEED=7)
	$(SIM) $(if $(filter command,$(firstword $(origin SEED))),--seed $(SEED),--seeds $(SEEDS) --jobs $(JOBS)) $(ARGS)

.PHONY: verify
verify: system ## Check format, lints, layering, licences; changes nothing
	cargo fmt --all --check
	cargo clippy $(TEST_BUILD) --all-targets --quiet -- -D warnings
	.ci/deny

.PHONY: fix
fix: system ## Format, and apply what the lints can repair by themselves
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged --quiet
	cargo fmt --all

.PHONY: system
system: ## Install the system packages that are missing (Debian)
	@.ci/system

.PHONY: python
python: system
	@.ci/python $(VENV) services/clew/tests/e2e/requirements.txt

.PHONY: clean
clean: ## Remove build results and local data
	rm -rf $(CARGO_TARGET_DIR) $(DATA_DIR)
