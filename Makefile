# The commands of the book. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help env book test bench reproduce serve lint chapter lock clean

# Two threads are slower than one on matrices this small, and one makes the numbers repeatable.
export OMP_NUM_THREADS := 1

PYTHON ?=
JOBS ?= 2
PORT ?= 8000
NAME ?=
DEVICE ?= cpu
ONLY ?=

python := .venv/bin/python
tools := book/tools

help: ## list these commands
	@awk -F ' ## ' '/^[a-z]+:.* ## / { sub(/:.*/, "", $$1); printf "make %-10s %s\n", $$1, $$2 }' Makefile

env: ## make the environment in .venv, or bring it up to date (the other commands do it for you)
	@PYTHON='$(PYTHON)' bash $(tools)/environment.sh

book: env ## run the chapters and build the book in _build/html; prints the path to open
	@JOBS=$(JOBS) bash $(tools)/build.sh

# First what pyproject.toml chooses, the library and the chapters. What reads the built book or drives
# the browser comes last, so that pages are not measured while models train. All run, even if one fails.
test: env ## run every test: the library, every chapter, mistakes to be noticed, and the pages in a browser
	@bash $(tools)/browser.sh
	@JOBS=$(JOBS) bash $(tools)/build.sh
	@status=0; \
	$(python) -m pytest --nbval -n $(JOBS) || status=1; \
	$(python) -m pytest -n $(JOBS) -m mutants tests/test_mutants*.py || status=1; \
	REQUIRE_BROWSER=1 $(python) -m pytest -n $(JOBS) -m "book or browser" tests || status=1; \
	exit $$status

# One process, one after another. Seconds of single rounds are in _build/benchmarks-….json.
bench: env ## measure the library beside others: DEVICE=cuda on a GPU, ONLY=lime for one of them
	@mkdir -p _build
	@BENCH_DEVICE='$(DEVICE)' $(python) -m pytest tests/benchmarks -q -k '$(ONLY)' \
	  --dist=no --benchmark-enable --benchmark-only --benchmark-columns=median,iqr,rounds \
	  --benchmark-json='_build/benchmarks-$(DEVICE).json'

reproduce: book ## run the chapters a second time and compare with what the built book prints
	@$(python) $(tools)/reproduce.py --jobs $(JOBS)

serve: book ## show the book at http://127.0.0.1:8000 (PORT=… for another port)
	@$(python) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

lint: env ## ruff, codespell, and the book's own rules for chapters
	@status=0; \
	$(python) -m ruff check . || status=1; \
	$(python) -m codespell_lib || status=1; \
	$(python) $(tools)/chapter_lints.py || status=1; \
	exit $$status

chapter: ## start a chapter: make chapter NAME=23_my_topic
	@NAME='$(NAME)' && python="$$(PYTHON='$(PYTHON)' bash $(tools)/find_python.sh)" && \
	"$$python" $(tools)/new_chapter.py "$$NAME"

lock: ## write constraints.txt afresh, from the newest packages that requirements.txt allows
	@PYTHON='$(PYTHON)' bash $(tools)/lock.sh

clean: ## remove what the commands built, except .venv
	@rm -rf _build .pytest_cache .ruff_cache .hypothesis .benchmarks
	@find . -name .venv -prune -o -name .git -prune -o -type d -name __pycache__ -print0 | xargs -0r rm -rf
