# `make help` lists the targets. Variables that you may set:
#   PYTHON      the interpreter that creates .venv (3.11 to 3.14)
#   TORCH_ARGS  further arguments for the installation of torch, for example
#               TORCH_ARGS="--index-url https://download.pytorch.org/whl/cpu" for the build without CUDA
#   DATA        a file for `make demo` (.npz, .csv or .parquet)
#   PYTEST_ARGS further arguments for pytest
#   TEST_WORKERS how many processes share the tests' files (2; 0: this one)
#   SUITE       what `make bench` measures (quick; see benchmarks/suites)
#   BENCH_ARGS  further arguments for `make bench` and its kin
#   FUZZ_SECONDS how long `make fuzz` tries each parser (60)
#   FUZZ_TARGETS which ones (all)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# torch and torchvision must be builds of one kind, so both are installed first and from the same place.
TORCH := $(shell grep -E '^torch(vision)?==' constraints.txt)

SECUREAD_DATA ?= $(abspath $(wildcard ../shared/data))
ifneq ($(strip $(SECUREAD_DATA)),)
export SECUREAD_DATA
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long check format bench bench-engines-scripts bench-ckks bench-forest bench-federation bench-poisoning bench-skab bench-sharing bench-averaging bench-latency bench-paillier bench-plan fuzz models clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(INSTALLED)  ## create .venv and install everything (nothing to do when nothing changed)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 15) else \
	  "securead needs Python 3.11 to 3.14, not %d.%d: make setup PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@$(BIN)/python -c 'from importlib.metadata import version as v; import sys; \
	  sys.exit(any(v(p).split("+")[0] != n for p, n in (a.split("==") for a in sys.argv[1:])))' $(TORCH) 2>/dev/null \
	  || $(BIN)/pip install --disable-pip-version-check $(TORCH) $(TORCH_ARGS)
	$(BIN)/pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[all,dev]"
	@touch $@

demo: setup  ## train, serve and score on real data (DATA=path uses yours); results in demo-output/
	$(BIN)/securead demo $(if $(DATA),--data "$(DATA)") --out demo-output

TEST_WORKERS ?= 2
test: setup  ## the tests that take seconds, a file at a time on TEST_WORKERS processes (2; 0 for none)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long" -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

test-long: setup  ## the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS) || test $$? -eq 5  # 5: none is marked long

check: setup  ## formatting, lint, types and the rules of the architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

format: setup  ## rewrite the code as `make check` wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

SUITE ?= quick
BENCH_OUT = bench-output/$(notdir $(basename $(SUITE)))
# A run goes into a folder of its own; what an earlier `make bench` left there is replaced, unless it is to go on.
bench: setup  ## a suite of measurements (SUITE=quick: minutes), its report in bench-output/SUITE/report.html
	$(if $(findstring --resume,$(BENCH_ARGS)),,rm -rf "$(BENCH_OUT)")
	$(BIN)/securead bench "$(SUITE)" --out "$(BENCH_OUT)" $(BENCH_ARGS)

bench-engines-scripts: setup  ## encrypted scoring beside TenSEAL and SEAL, by the scripts that the README quotes
	$(BIN)/python benchmarks/ckks_batch.py --out bench-output/ckks_batch.json $(BENCH_ARGS)
	$(BIN)/python benchmarks/bfv_lookup.py --out bench-output/bfv_lookup.json $(BENCH_ARGS)

bench-ckks: setup  ## encrypted scoring on one core beside TenSEAL's two ways, and AUROC (needs SECUREAD_DATA)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/ckks.py --out bench-output/ckks.json $(BENCH_ARGS)

bench-forest: setup  ## the private forest beside scikit-learn's, and its encrypted look-ups (needs SECUREAD_DATA)
	$(BIN)/python benchmarks/forest.py --out bench-output/forest.json $(BENCH_ARGS)

FUZZ_SECONDS ?= 60
fuzz: setup  ## mutate messages at every parser (FUZZ_SECONDS each; installs the extra fuzz); crashes in fuzz-output/
	$(BIN)/pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[fuzz]"
	targets="$(or $(FUZZ_TARGETS),$$($(BIN)/python tests/fuzz/fuzz.py --list))" || exit 1; \
	for target in $$targets; do $(BIN)/python tests/fuzz/fuzz.py $$target --seconds $(FUZZ_SECONDS) \
	  --corpus fuzz-output/$$target || exit 1; done

bench-skab: setup  ## windows of SKAB's sensors: the federated autoencoder at four levels of privacy (needs SECUREAD_DATA)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/skab.py --out bench-output/skab.json $(BENCH_ARGS)

bench-poisoning: setup  ## one bad site of seven: attacks on four detectors, with and without each defence
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/poisoning.py --out bench-output/poisoning.json $(BENCH_ARGS)

bench-federation: setup  ## a forest among three sites over Flower with TLS and masked sums, beside one process and one site
	$(BIN)/python benchmarks/federation.py --out bench-output/federation.json $(BENCH_ARGS)

bench-sharing: setup  ## secret-shared scoring over TLS beside stock CrypTen, with links of a LAN and a WAN
	$(BIN)/python benchmarks/sharing.py --out bench-output/sharing.json $(BENCH_ARGS)

bench-paillier: setup  ## Paillier: blind lookups in published tables, and packed sums beside unpacked phe
	$(BIN)/python benchmarks/paillier.py --out bench-output/paillier.json $(BENCH_ARGS)

bench-averaging: setup  ## FedAvg, FedProx, FedAdam and updates in few bits over sites that differ (needs SECUREAD_DATA)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/federated_averaging.py --out bench-output/averaging.json $(BENCH_ARGS)

bench-latency: setup  ## one record at a time over HTTP under ckks-row, beside the batch engine and TenSEAL
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/latency.py --out bench-output/latency.json $(BENCH_ARGS)

bench-plan: setup  ## the planner's predictions beside measured requests, and the figures of latency, depth, pool and kernels
	$(BIN)/python benchmarks/plan.py --out bench-output/plan.json $(BENCH_ARGS)

models: setup  ## train every recipe of the zoo into bundles/ (payments need SECUREAD_DATA)
	$(BIN)/python -m securead.bench.zoo --out bundles

clean:  ## remove what the other targets wrote, except .venv
	rm -rf build dist demo-output bench-output fuzz-output .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find securead tests examples benchmarks protocols models -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
