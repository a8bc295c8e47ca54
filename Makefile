# Everything a fresh clone needs: Python 3.11 or 3.12, make, git and a package index.
PYTHON := $(shell for p in python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := $(CURDIR)/.venv/bin
ENV := .venv/made-from-the-lock
CONFIG ?= config/demo.yaml
RUN = $$(python -c "import yaml; print(yaml.safe_load(open('$(CONFIG)'))['run'])")

export PATH := $(BIN):$(PATH)

.PHONY: help rulegraph env env-gpu env-parity parity resources demo finetune test test-preemption test-slurm test-slurm-accounting lint format report contact-sheet lock clean bench-posteriors build-and-check-demo lint-and-test study-heads study-calibration write-study-heads write-study-calibration study-runs study-rings write-study-rings study-scale write-study-scale

help:
	@echo "make demo           the whole pipeline on simulated galaxies, from record to report"
	@echo "make finetune       a classifier from LABELS=labels.csv IMAGES=folder, or LABELS=folders by class"
	@echo "make test           lint and tests"
	@echo "make test-preemption  trainings cut at CUTS=10 random moments (SEED=1) end like uncut ones (5 min)"
	@echo "make test-slurm     config/test.yaml on a SLURM of this machine, and what clusters do to jobs (root, Debian; 15 min)"
	@echo "make test-slurm-accounting  the same run where SLURM keeps accounts (slurmdbd, MariaDB; 5 min)"
	@echo "make lint           ruff, snakefmt and snakemake --lint"
	@echo "make report         run what the report of CONFIG=config/….yaml shows, and write it as one HTML file"
	@echo "make contact-sheet  every figure of the run of CONFIG on one PNG"
	@echo "make env            .venv from the pinned, hash-checked envs/cpu.lock.txt"
	@echo "make env-gpu        .venv with TensorFlow for the V100s of a cluster, from envs/gpu.lock.txt"
	@echo "make env-parity     torch and timm into .venv, which only tests and make parity need"
	@echo "make parity         our backbones beside timm's, into docs/parity.md (15 min, 12 GB)"
	@echo "make lock           resolve the three envs/….in anew (needs uv)"
	@echo "make resources      memory, time and CPUs that each rule asks for and took, after a run of CONFIG"
	@echo "make bench-posteriors  speed of all that posteriors say, into docs/posteriors.md (15 min)"
	@echo "make study-heads    the heads of train.head on a simulated survey, into docs/heads.md (an hour)"
	@echo "make study-calibration  the coverage of each head and of remedies, into docs/calibration.md (an hour)"
	@echo "make study-rings    240 real ring galaxies, finetuned from simulations, into docs/rings.md (half an hour)"
	@echo "make study-scale    time, memory and disk of predicting 10⁴ to 10⁶ galaxies, into docs/scale.md (10 min)"
	@echo "make rulegraph      pictures of the rules and of the jobs, into docs/ (needs Graphviz)"
	@echo "make clean          delete .venv, results, logs and benchmarks; what was downloaded stays"

env: $(ENV)

$(ENV): envs/cpu.lock.txt
	$(call install,$<)
	@touch $@

# One environment, under the same name: whatever else is made accepts it.
env-gpu: .venv/made-from-the-gpu-lock

.venv/made-from-the-gpu-lock: envs/gpu.lock.txt
	$(call install,$<)
	@touch $(ENV) $@

define install
@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed and was not found on the PATH."; exit 1; }
$(PYTHON) -m venv --clear .venv
pip install --quiet --disable-pip-version-check --require-hashes -r $(1)
endef

env-parity: $(ENV)-for-parity

# Without what they ask for: tf_keras would bring a second TensorFlow. Where pip's own folders
# (PIP_FIND_LINKS) have a torch, first that one: an index has it for CUDA alone, which it cannot do without.
$(ENV)-for-parity: envs/parity.lock.txt $(ENV)
	sed -n '/^torch==/,/[^\\]$$/p' $< >.venv/torch.txt
	pip install --quiet --disable-pip-version-check --no-index --no-deps --require-hashes -r .venv/torch.txt 2>/dev/null || true
	pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r envs/parity.lock.txt
	@touch $@

demo:
	@$(or $(PYTHON),python3) tests/tools/timed.py demo $(MAKE) --no-print-directory build-and-check-demo CONFIG=config/demo.yaml

build-and-check-demo: $(ENV)
	@$(MAKE) --no-print-directory report
	@python tests/tools/check_demo.py results/demo

# Names of the variables that were typed: a NAME of the environment means something else.
TYPED = $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))

finetune: $(ENV)
	@PYTHONPATH=workflow/scripts python -m zoolib.quick_finetune $(TYPED)

test:
	@$(or $(PYTHON),python3) tests/tools/timed.py test $(MAKE) --no-print-directory lint-and-test

lint-and-test: lint
	python -m pytest

test-preemption: $(ENV)
	@python tests/tools/timed.py $@ python tests/tools/preemption.py $(or $(CUTS),10) $(or $(SEED),1)

test-slurm: $(ENV)
	@python tests/tools/timed.py $@ python -m pytest tests/slurm/test_slurm.py

test-slurm-accounting: $(ENV)
	@python tests/tools/timed.py $@ python -m pytest tests/slurm/test_slurm_accounting.py

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

parity: env-parity
	@python tests/tools/timed.py parity python benchmarks/parity.py

bench-posteriors: $(ENV)
	@python tests/tools/timed.py bench-posteriors python benchmarks/bench_posteriors.py

study-heads study-calibration study-rings study-scale: $(ENV)
	@python tests/tools/timed.py $@ $(MAKE) --no-print-directory write-$@

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

write-study-scale: $(ENV)
	@python benchmarks/study_scale.py --data "$(abspath $(or $(ZOO_REAL_DATA),../shared/data))"

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
rulegraph: $(ENV)
	@python benchmarks/draw_graphs.py

lock:
	cd envs && $(LOCK) --upgrade cpu.in -o cpu.lock.txt
	cd envs && $(LOCK) --upgrade --no-emit-package tensorflow-cpu -c cpu.lock.txt cpu.in gpu.in -o gpu.lock.txt
	cd envs && $(LOCK) --upgrade --no-deps parity.in -o parity.lock.txt
	@# PyTorch's own index has the wheel without CUDA: its hash stands beside those of the plain wheels.
	sed -i "s/^torch==2.13.0 .*/&\n    --hash=sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b \\\\/" envs/parity.lock.txt

resources: $(ENV)
	@python benchmarks/resources.py $(CONFIG)

clean:
	rm -rf .venv .snakemake results logs benchmarks/*/
