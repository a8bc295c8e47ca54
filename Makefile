# A fresh clone needs Python 3.11 or 3.12, make, git and a package index. `make help` lists the commands.
# Studies, speeds and pictures are measured and drawn by benchmarks/Makefile.
PYTHON := $(shell for p in python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
# make 3.81, which Macs have, looks for commands on the PATH below only if a shell other than its own default runs them.
SHELL := /bin/bash
CONFIG ?= config/demo.yaml
RUN = $$(python -c "import yaml; print(yaml.safe_load(open('$(CONFIG)'))['run'])")
# Prints the time and the peak memory at the end. It also runs without .venv.
TIMED = @$(or $(PYTHON),python3) tests/tools/timed.py
INSTALL := pip install --quiet --disable-pip-version-check --require-hashes
# Nothing is installed. connection-pool alone has no wheel, on no system.
INSTALLS_ON_A_MAC := uv pip install --quiet --dry-run --target build/mac --python-platform aarch64-apple-darwin --only-binary :all: --no-binary connection-pool --require-hashes -r envs/cpu.lock.txt
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade
# Each is an empty file, written when the packages of a lock are in .venv. The image of envs/Dockerfile needs no .venv.
ifndef ZOO_IMAGE
export PATH := $(CURDIR)/.venv/bin:$(PATH)
USER_ENV := .venv/made-from-the-lock
endif
GPU_ENV := .venv/made-from-the-gpu-lock
DEV_ENV := .venv/made-from-the-dev-lock
PARITY_ENV := .venv/made-from-the-parity-lock
# Sphinx has an environment of its own, which sees the packages of .venv too.
DOCS_ENV := .venv-docs/made-from-the-lock

.PHONY: help env env-gpu env-dev env-parity demo build-and-check-demo finetune predict docs test lint-and-test test-docs test-preemption test-faults test-slurm test-slurm-accounting lint format report contact-sheet resources estimate lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-22s %s\n", $$1, $$2 }' Makefile

env: $(USER_ENV) ## make .venv with all that a run needs
env-gpu: $(GPU_ENV) ## make .venv with TensorFlow for the V100s of a cluster instead
env-dev: $(DEV_ENV) ## add to .venv what the tests and linters need
env-parity: $(PARITY_ENV) ## add torch and timm, which only some tests and benchmarks need

define new_environment
@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed and was not found on the PATH."; exit 1; }
$(PYTHON) -m venv --clear .venv
$(INSTALL) -r $<
endef

$(USER_ENV): envs/cpu.lock.txt
	$(new_environment)
	@touch $@

# All other targets accept this environment as the user's.
$(GPU_ENV): envs/gpu.lock.txt
	$(new_environment)
	@touch $(USER_ENV) $@

$(DEV_ENV): envs/dev.lock.txt $(USER_ENV)
	$(INSTALL) -r $<
	@touch $@

# Without dependencies: tf_keras would bring a second TensorFlow. An index has only the torch that needs CUDA, so
# the first call takes the one in pip's own folders (PIP_FIND_LINKS) if there is one.
$(PARITY_ENV): envs/parity.lock.txt $(USER_ENV)
	sed -n '/^torch==/,/[^\\]$$/p' $< >.venv/torch.txt
	$(INSTALL) --no-index --no-deps -r .venv/torch.txt 2>/dev/null || true
	$(INSTALL) --no-deps -r $<
	@touch $@

demo: ## the complete pipeline on simulated galaxies, from record to report; fails if the model does not learn
	$(TIMED) $@ $(MAKE) --no-print-directory build-and-check-demo CONFIG=config/demo.yaml

build-and-check-demo: report
	@python tests/tools/check_demo.py results/demo

# The names of the variables that were typed: a NAME of the environment means something else.
TYPED = $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))

finetune: $(USER_ENV) ## a classifier from LABELS=labels.csv IMAGES=folder, or from LABELS=folder with a folder for each class
	@PYTHONPATH=workflow/scripts python -m zoolib.quick.finetune $(TYPED)

predict: $(USER_ENV) ## posteriors for IMAGES=folder by MODEL=folder; after new images type it again
	@PYTHONPATH=workflow/scripts python -m zoolib.quick.predict $(TYPED)

$(DOCS_ENV): envs/docs.lock.txt $(USER_ENV)
	python -m venv --clear .venv-docs
	.venv-docs/bin/$(INSTALL) -r $<
	python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		>$$(.venv-docs/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pipeline.pth
	@touch $@

docs: $(DOCS_ENV) ## the documentation site: site/index.html
	@rm -rf site
	@PYTHONPATH=workflow/scripts .venv-docs/bin/python docs/site/build_site.py site
	@echo "Open site/index.html in a browser."

test: ## lint and tests; those of the documents are test-docs
	$(TIMED) $@ $(MAKE) --no-print-directory lint-and-test

# Two processes share two cores. The pipelines that they start have the threads of their rules.
PYTEST := OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 python -m pytest -n 2

lint-and-test: lint
	$(PYTEST)

test-docs: $(DEV_ENV) $(DOCS_ENV) ## the commands of the documents, the examples, and the site and the report in Chromium
	$(TIMED) $@ env $(PYTEST) tests/documents $(wildcard tests/explore)

test-preemption: $(DEV_ENV) ## trainings cut at CUTS=10 random moments (SEED=1) end like trainings without cuts (5 min)
	$(TIMED) $@ python tests/tools/preemption.py $(or $(CUTS),10) $(or $(SEED),1)
test-faults: $(DEV_ENV) ## kills, damage and errors at drawn moments (SEED=1; 8 min); FAULTS=200 visits every case (hours)
	$(TIMED) $@ python tests/faults/run.py $(or $(FAULTS),0) $(or $(SEED),1)
test-slurm: $(DEV_ENV) ## config/test.yaml on a SLURM of this machine, with the faults of a cluster (root, Debian; 15 min)
	$(TIMED) $@ python -m pytest tests/slurm/test_slurm.py
test-slurm-accounting: $(DEV_ENV) ## the same run on a SLURM with accounting (slurmdbd, MariaDB; 5 min)
	$(TIMED) $@ python -m pytest tests/slurm/test_slurm_accounting.py

lint: $(DEV_ENV) ## ruff, snakefmt and snakemake --lint
	ruff check --quiet .
	ruff format --check --quiet .
	snakefmt --check Snakefile rules
	snakemake --lint
format: $(DEV_ENV) ## let ruff and snakefmt rewrite the code
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

report: $(USER_ENV) ## run CONFIG=config/….yaml and write its report as one HTML file, if anything in it is newer
	snakemake --configfile $(CONFIG)
	@page=results/$(RUN)/report.html; \
	if [ -f $$page ] && [ -z "$$(find results/$(RUN) -newer $$page -type f | head -n 1)" ]; then echo "$$page is up to date"; \
	else snakemake --configfile $(CONFIG) --report $$page; fi

contact-sheet: $(USER_ENV) ## every figure of the run of CONFIG on one PNG
	PYTHONPATH=workflow/scripts python -m zoolib.figures.contact_sheet results/$(RUN) results/$(RUN)/contact_sheet.png
resources: $(USER_ENV) ## memory, time and CPUs that each rule asks for and has used, after a run of CONFIG
	@python benchmarks/resources.py $(CONFIG)
estimate: $(USER_ENV) ## jobs, downloads, disk and hours of a run of CONFIG before it starts, on this machine or on GPUS=4
	@python benchmarks/estimate.py $(CONFIG) $(if $(filter command,$(firstword $(origin GPUS))),"$(GPUS)")

# The hash in the last line is that of torch's wheel without CUDA, which only PyTorch's own index has.
lock: ## resolve all envs/*.in to the newest versions, for Linux and Macs (needs uv)
	cd envs && $(LOCK) cpu.in -o cpu.lock.txt
	$(INSTALLS_ON_A_MAC) --python-version 3.11
	$(INSTALLS_ON_A_MAC) --python-version 3.12
	cd envs && $(LOCK) -c cpu.lock.txt dev.in -o dev.lock.txt
	cd envs && $(LOCK) -c cpu.lock.txt docs.in -o docs.lock.txt
	cd envs && $(LOCK) -c cpu.lock.txt --no-emit-package tensorflow-cpu cpu.in gpu.in -o gpu.lock.txt
	cd envs && $(LOCK) --no-deps parity.in -o parity.lock.txt
	sed -i "s/^torch==2.13.0 .*/&\n    --hash=sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b \\\\/" envs/parity.lock.txt

clean: ## delete the environments, the site, results, logs and benchmark tables; downloads stay
	rm -rf .venv .venv-docs site build .snakemake results logs benchmarks/*/
