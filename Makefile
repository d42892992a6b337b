# Two commands matter: `make quickstart`, then `make test`. PYTHON=/path/to/python3 chooses the interpreter.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help quickstart setup setup-test gpu test check soak bench clean

bin := .venv/bin
# One thread per worker: two test processes on two cores, and sums in the same order on every machine.
one_thread := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# Each process takes half of the files and then what the other has left: what a file prepares is prepared once.
two_processes := -n 2 --dist worksteal

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

quickstart: setup ## from a fresh clone to a reasoning model grown from nothing, and its report
	$(bin)/seekling run zero-tiny
	@echo "next:     $(bin)/seekling run r1-tiny   (the whole chain of DeepSeek-R1, its students included)"

setup: ## the environment alone: .venv with everything pinned
	@scripts/setup

setup-test:
	@scripts/setup --test

gpu: ## the same environment with the CUDA build of torch (about 3 GB to download)
	@scripts/setup --torch default
	$(bin)/seekling doctor

test: setup-test check ## every check and test
	@scripts/system-packages
	$(one_thread) $(bin)/pytest $(two_processes)

check: setup-test ## lint, format, types, floors
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports

# pytest exits with 5 when no test carries the mark; that is said aloud and is no failure.
soak: setup-test ## every count in full, long runs (45 minutes at most)
	@$(one_thread) $(bin)/pytest $(two_processes) -m soak --durations=10 || { code=$$?; [ $$code -eq 5 ] && echo "No soak test exists." || exit $$code; }

bench: setup ## measure zero-tiny and write bench/results
	$(bin)/python -m bench.zero_tiny

clean: ## remove the environment and caches; runs/ stays
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
