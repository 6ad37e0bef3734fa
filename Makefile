# Every target sets itself up; the second time that takes no time.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format bench

IN_ENV := source .venv/env.sh &&
# Many small networks: one thread each, and two processes of tests, are faster than a pool of threads each.
PYTEST := OMP_NUM_THREADS=1 python3 -m pytest

help:
	@echo "make demo      the node on real footage: ARGS='VIDEO_OR_FOLDER --fps 10', results in demo_out/"
	@echo "make test      fast tests            make test-all  with faults, load and soak"
	@echo "make lint      ruff and mypy         make format    what ruff can mend"
	@echo "make bench     every benchmark in its quick form, one JSON line each"

setup:
	@tools/setup

demo: setup
	@$(IN_ENV) python3 tools/demo.py $(ARGS)

test: setup
	@$(IN_ENV) $(PYTEST) -n 2 -m "not slow" test $(ARGS)

test-all: setup
	@$(IN_ENV) $(PYTEST) test $(ARGS)

lint: setup
	@$(IN_ENV) ruff check . && ruff format --check . && mypy

format: setup
	@$(IN_ENV) ruff check --fix . ; ruff format .

bench: setup
	@$(IN_ENV) for name in convert "node --quick" "network --quick" "dense --quick" "accuracy --quick"; do python3 -m bench.$$name || exit 1; done
