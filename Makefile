# Everything a fresh clone needs: Python 3.11 or 3.12, make, git and a package index.
PYTHON := $(shell for p in python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := $(CURDIR)/.venv/bin
ENV := .venv/made-from-the-lock
CONFIG ?= config/demo.yaml
RUN = $$(python -c "import yaml; print(yaml.safe_load(open('$(CONFIG)'))['run'])")

export PATH := $(BIN):$(PATH)

.PHONY: help env demo finetune test lint format report contact-sheet lock clean bench-posteriors build-and-check-demo lint-and-test study-heads study-calibration write-study-heads write-study-calibration study-runs study-rings write-study-rings

help:
	@echo "make demo           the whole pipeline on simulated galaxies, from record to report"
	@echo "make finetune       a classifier from LABELS=labels.csv IMAGES=folder, or LABELS=folders by class"
	@echo "make test           lint and tests"
	@echo "make lint           ruff, snakefmt and snakemake --lint"
	@echo "make report         run what the report of CONFIG=config/….yaml shows, and write it as one HTML file"
	@echo "make contact-sheet  every figure of the run of CONFIG on one PNG"
	@echo "make env            .venv from the pinned, hash-checked envs/cpu.lock.txt"
	@echo "make lock           resolve envs/cpu.in anew (needs uv)"
	@echo "make bench-posteriors  speed of all that posteriors say, into docs/posteriors.md (15 min)"
	@echo "make study-heads    the heads of train.head on a simulated survey, into docs/heads.md (an hour)"
	@echo "make study-calibration  the coverage of each head and of remedies, into docs/calibration.md (an hour)"
	@echo "make study-rings    240 real ring galaxies, finetuned from simulations, into docs/rings.md (half an hour)"
	@echo "make clean          delete .venv, results, logs and benchmarks; what was downloaded stays"

env: $(ENV)

$(ENV): envs/cpu.lock.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed and was not found on the PATH."; exit 1; }
	$(PYTHON) -m venv --clear .venv
	pip install --quiet --disable-pip-version-check --require-hashes -r envs/cpu.lock.txt
	@touch $@

demo:
	@$(or $(PYTHON),python3) tests/timed.py demo $(MAKE) --no-print-directory build-and-check-demo CONFIG=config/demo.yaml

build-and-check-demo: $(ENV)
	@$(MAKE) --no-print-directory report
	@python tests/check_demo.py results/demo

# Names of the variables that were typed: a NAME of the environment means something else.
TYPED = $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))

finetune: $(ENV)
	@PYTHONPATH=workflow/scripts python -m zoolib.quick_finetune $(TYPED)

test:
	@$(or $(PYTHON),python3) tests/timed.py test $(MAKE) --no-print-directory lint-and-test

lint-and-test: lint
	python -m pytest

lint: $(ENV)
	ruff check --quiet .
	ruff format --check --quiet .
	snakefmt --check Snakefile rules
	snakemake --lint

format: $(ENV)
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

# The page is written anew only if something that it shows is younger.
report: $(ENV)
	snakemake --configfile $(CONFIG)
	@page=results/$(RUN)/report.html; \
	if [ -f $$page ] && [ -z "$$(find results/$(RUN) -newer $$page -type f -print -quit)" ]; then \
		echo "$$page is up to date"; \
	else \
		snakemake --configfile $(CONFIG) --report $$page; \
	fi

contact-sheet: $(ENV)
	PYTHONPATH=workflow/scripts python -m zoolib.figures.contact_sheet results/$(RUN) results/$(RUN)/contact_sheet.png

bench-posteriors: $(ENV)
	@python tests/timed.py bench-posteriors python benchmarks/bench_posteriors.py

study-heads study-calibration study-rings: $(ENV)
	@python tests/timed.py $@ $(MAKE) --no-print-directory write-$@

# The runs are the same: whichever study comes second finds them made.
write-study-heads write-study-calibration: study-runs
	@python benchmarks/study.py $(@:write-study-%=%)

study-runs: $(ENV)
	for head in dirichlet dirichlet_wide multinomial; do \
		snakemake --configfile config/study.yaml --config run=study_$$head "train={\"head\": \"$$head\"}" -- predict evaluate || exit 1; \
	done

# The real galaxies are used in place.
RINGS := results/study_rings/evaluate
write-study-rings: $(ENV)
	@mkdir -p data && ln -sfn "$(abspath $(or $(ZOO_REAL_DATA),../shared/data))" data/real
	snakemake --configfile config/study_rings.yaml -- $(RINGS)/scratch/galaxies.parquet $(RINGS)/frozen/galaxies.parquet $(RINGS)/finetuned/galaxies.parquet $(RINGS)/labels/label_counts.png
	@python benchmarks/study_rings.py

lock:
	cd envs && uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate cpu.in -o cpu.lock.txt

clean:
	rm -rf .venv .snakemake results logs benchmarks/*/
