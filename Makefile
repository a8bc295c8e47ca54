# Everything a fresh clone needs: Python 3.11 or 3.12, make, git and a package index.
PYTHON ?= $(shell command -v python3.12 >/dev/null && python3.12 --version >/dev/null 2>&1 && echo python3.12 || echo python3.11)
ENV := .venv/.made-from-the-lock
BIN := $(CURDIR)/.venv/bin
SNAKEMAKE := $(BIN)/snakemake
CONFIG ?= config/config.yaml
TIMED := $(BIN)/python tests/timed.py

export PATH := $(BIN):$(PATH)

.PHONY: help env demo test lint format report contact-sheet lock clean

help:
	@echo "make demo           the whole pipeline on simulated galaxies, from record to report (12 minutes at most)"
	@echo "make test           lint and tests (20 minutes at most)"
	@echo "make lint           ruff, snakefmt and snakemake --lint"
	@echo "make report         the report of CONFIG=config/…yaml as one HTML file"
	@echo "make contact-sheet  every figure of the demo on one PNG"
	@echo "make env            .venv from the pinned, hash-checked envs/cpu.lock.txt"
	@echo "make lock           resolve envs/cpu.in anew (needs uv)"

env: $(ENV)

$(ENV): envs/cpu.lock.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r envs/cpu.lock.txt
	touch $@

demo:
	@$(PYTHON) tests/timed.py demo sh -c "$(MAKE) --no-print-directory env && $(BIN)/python tests/demo.py"

test:
	@$(PYTHON) tests/timed.py test sh -c "$(MAKE) --no-print-directory env lint && $(BIN)/python -m pytest"

lint: $(ENV)
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	snakemake --lint --quiet

format: $(ENV)
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

report: $(ENV)
	$(SNAKEMAKE) --configfile $(CONFIG) report
	$(SNAKEMAKE) --configfile $(CONFIG) --report $$($(BIN)/python tests/report_path.py $(CONFIG))

contact-sheet: $(ENV)
	PYTHONPATH=workflow/scripts $(BIN)/python -m zoolib.figures.contact_sheet results/demo results/demo/contact_sheet.png

lock:
	cd envs && uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate cpu.in -o cpu.lock.txt

clean:
	rm -rf .venv .snakemake results logs benchmarks/*/
