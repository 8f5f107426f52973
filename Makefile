# `make` by itself lists what there is.
#
# PYTHON=python3.12          builds the environments from that interpreter (3.11 to 3.13)
# ROUNDHOUSE_ENGINE=cpu      installs the CPU engine though there is a GPU (auto, cpu, cuda)
# ARGS="-k stream"           more arguments for pytest, or for a benchmark
# BENCH="--quick"            more arguments for the benchmarks
# MINUTES=60                 how long a soak run loads the server
# IMAGE_ARGS="--build-arg …"  more arguments for `docker build`
# PEERS="litellm portkey"    only these of the gateways that benchmarks compare with

SHELL := /bin/sh
SETUP := $(or $(PYTHON),python3) scripts/setup.py
BIN := .venv/bin
IMAGE_LABELS = --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null || echo unknown)

.DEFAULT_GOAL := help
.PHONY: help serve test test-fast check setup setup-engine format schema docs lock upgrade bench bench-peers bench-engine soak helm-render image image-check clean

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: ## set up what is missing and serve configs/quickstart.yaml
	@$(SETUP) server engine
	@exec $(BIN)/roundhouse serve configs/quickstart.yaml

test: ## set up what is missing and run every test, real vLLM included, with the coverage floor
	@$(SETUP) --optional dev weights engine node
	$(BIN)/pytest --cov --durations=10 $(ARGS)

test-fast: ## the tests that need neither an engine nor Node
	@$(SETUP) dev
	$(BIN)/pytest -m "not engine and not node" $(ARGS)

check: ## what CI runs besides the tests: style, types, import floors, house rules, generated files
	@$(SETUP) dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/test_house.py
	$(BIN)/python -m server.config.schema_json --check configs/schema.json
	$(BIN)/python -m server.config.reference --check docs/configuration.md
	$(BIN)/python -m scripts.metrics_page --check
	$(BIN)/python -m scripts.dashboards --check
	$(BIN)/python -m scripts.providers_page --check
	$(BIN)/python -m server.registry.check
	$(BIN)/python -m scripts.registry_page --check
	$(BIN)/python -m scripts.helm_readme --check

setup: ## the environments alone: server, development tools, engine
	@$(SETUP) --optional dev engine

setup-engine: ## .venv-engine alone
	@$(SETUP) engine

format: ## let ruff format, and mend what it can
	@$(SETUP) dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schema: ## write the JSON schemas in configs/ anew
	@$(SETUP) dev
	$(BIN)/python -m server.config.schema_json --write configs/schema.json
	$(BIN)/python -m server.registry.check --schema configs/cards.schema.json

docs: schema ## write all that is made from the code: the schema, tables of keys, metrics, dashboards, providers
	$(BIN)/python -m server.config.reference --write docs/configuration.md
	$(BIN)/python -m scripts.metrics_page
	$(BIN)/python -m scripts.dashboards
	$(BIN)/python -m scripts.providers_page
	$(BIN)/python -m scripts.registry_page
	$(BIN)/python -m scripts.helm_readme

lock: ## write the locks anew; pins that still fit stay
	@$(SETUP) dev
	$(BIN)/python scripts/lock.py

upgrade: ## write the locks anew with the newest of everything that is seven days old
	@$(SETUP) dev
	$(BIN)/python scripts/lock.py --upgrade

bench: ## Roundhouse beside the gateways that are installed: tables, JSON and plots, about 20 minutes
	@$(SETUP) dev
	@$(BIN)/python -m benchmarks $(BENCH)

bench-peers: ## install the gateways that benchmarks compare with: LiteLLM, Portkey, two routers
	@$(or $(PYTHON),python3) benchmarks/peers/install.py $(PEERS)

bench-engine: ## a real vLLM on the CPU, directly and through Roundhouse; nothing else should run
	@$(SETUP) dev engine
	$(BIN)/python -m benchmarks.engine $(ARGS)

soak: ## 1,000 streams against a faulty upstream: leaks, lag, lost chunks; 10 minutes, or MINUTES=60
	@$(SETUP) dev
	$(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),10) $(ARGS)

helm-render: ## print the manifests of the Helm chart's examples, or of ARGS=one-gpu
	@$(SETUP) dev >&2
	@$(BIN)/python -m scripts.helm_render $(ARGS)

image: ## docker build of both images: roundhouse:cuda, on vLLM's, and roundhouse:gateway
	docker build -f Dockerfile.cuda --target gateway -t roundhouse:gateway $(IMAGE_LABELS) $(IMAGE_ARGS) .
	docker build -f Dockerfile.cuda --target cuda -t roundhouse:cuda $(IMAGE_LABELS) $(IMAGE_ARGS) .

image-check: ## lint, build and run the images without Docker: each step as it is, in namespaces; needs root
	@$(SETUP) dev
	$(BIN)/hadolint Dockerfile.cuda
	$(BIN)/pytest tests/image $(ARGS)

clean: ## remove the environments and all that tools have written
	rm -rf .venv .venv-engine .bench .setup.lock tests/node/node_modules tests/node/npm-ci.log
	rm -rf build dist .coverage .coverage.* htmlcov .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
