# Sets the project up and runs it. `make` alone lists the targets.
#
# Everything lands in this folder: .tools/ holds uv at the version below, .venv/ the Python environment.

UV_VERSION := 0.13.9
EXTRAS ?= atari envpool minatar dev
UV_SYNC_FLAGS ?=
PRESET ?= cartpole
NP ?= $(shell test "$$(env -u OMP_NUM_THREADS nproc)" -ge 4 && echo 4 || echo 2)
ARGS ?=
FORM ?= full

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

empty :=
space := $(empty) $(empty)
UV := .tools/uv-$(UV_VERSION)/bin/uv
# One stamp per choice of extras and flags: another choice is installed anew.
STAMP := .venv/.setup$(subst $(space),,$(addprefix -,$(EXTRAS) $(UV_SYNC_FLAGS)))

# The interpreters that may be asked, best first; PYTHON=/path/to/python goes before them.
PYTHON_CANDIDATES := $(PYTHON) .venv/bin/python python3.12 python3.11 python3.10 python3
# Horovod's launcher starts `python` and `mpirun` from PATH; Open MPI refuses root without the two variables.
IN_VENV = env PATH="$(CURDIR)/.venv/bin:$$PATH" $(AS_ROOT)
AS_ROOT := $(if $(filter 0,$(shell id -u)),OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1)

# Shell code: horovodrun imports TensorFlow, which without GPUs reports each CUDA library that it does not find.
QUIET_TENSORFLOW = [ -e /dev/nvidia0 ] || export TF_CPP_MIN_LOG_LEVEL="$${TF_CPP_MIN_LOG_LEVEL:-3}"

# Shell code: sets $$python to the first candidate of a supported version, or ends with the remedy.
define FIND_PYTHON
python=; \
for candidate in $(PYTHON_CANDIDATES); do \
  if "$$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' >/dev/null 2>&1; then \
    python=$$("$$candidate" -c 'import sys; print(sys.executable)'); break; \
  fi; \
done; \
if [ -z "$$python" ]; then \
  echo "error: no Python 3.10, 3.11 or 3.12 found (TensorFlow 2.18 runs on no other)." >&2; \
  echo "  Install one, e.g.: sudo apt-get install python3 python3-venv" >&2; \
  echo "  or name one:       make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; \
  exit 1; \
fi
endef

# Shell code: ends with the remedy where the machine cannot build the environment at all.
define CHECK_MACHINE
if [ "$$(uname -sm)" != "Linux x86_64" ]; then \
  echo "error: this is $$(uname -sm); TensorFlow, Horovod and Open MPI are locked for Linux on x86-64 only." >&2; exit 1; \
fi; \
for tool in "$${CC:-gcc}" "$${CXX:-g++}"; do \
  if ! command -v $$tool >/dev/null; then \
    echo "error: $$tool not found; Horovod is compiled from source and needs a C and a C++ compiler." >&2; \
    echo "  Debian, Ubuntu: sudo apt-get install g++        Fedora, RHEL: sudo dnf install gcc-c++" >&2; exit 1; \
  fi; \
done
endef

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo 'Variables: NP (ranks), PRESET (train), ARGS (appended to train, test, test-learning, test-faults, bench),'
	@echo '           FORM (of test-faults), EXTRAS (optional dependencies, now "$(EXTRAS)"), PYTHON (interpreter for the environment).'

.PHONY: setup
setup: $(STAMP) ## install everything into .venv (the first time compiles Horovod: 3 to 10 minutes)

.PHONY: train
train: $(STAMP) ## train the preset on NP ranks, e.g. make train NP=4 PRESET=lunarlander ARGS="--seed 2"
	launch/local.sh -np $(NP) -- --preset $(PRESET) $(ARGS)

.PHONY: test
test: $(STAMP) ## run the tests that need no training to converge, e.g. make test ARGS="-k replay"
ifeq ($(strip $(ARGS)),)
# Single processes share two cores; ranks have the machine to themselves.
	$(IN_VENV) .venv/bin/python -m pytest tests/unit -m "not slow" -n 2
	$(IN_VENV) .venv/bin/python -m pytest tests/parallel -m "not slow and not faults"
else
	$(IN_VENV) .venv/bin/python -m pytest -m "not learning and not launch and not slow" $(ARGS)
endif

.PHONY: test-slow
test-slow: $(STAMP) ## run the tests of single processes and ranks that `make test` leaves out for their time
	$(IN_VENV) .venv/bin/python -m pytest tests/unit tests/parallel -m slow $(ARGS)

.PHONY: test-elastic
test-elastic: $(STAMP) ## run the tests of ranks that come and go, some of them as root only (5 minutes)
	$(IN_VENV) .venv/bin/python -m pytest tests/parallel/test_parallel_elastic.py $(ARGS)

.PHONY: test-learning
test-learning: $(STAMP) ## run the tests that train until solved (slow)
	$(IN_VENV) .venv/bin/python -m pytest tests/learning -m learning $(ARGS)

.PHONY: test-faults
test-faults: $(STAMP) ## inject every fault for real: kills, stops, damage, fuzz (FORM=full about 25 minutes, FORM=short 7)
ifeq ($(FORM),short)
	$(IN_VENV) .venv/bin/python -m pytest tests/parallel -m "faults and not slow" $(ARGS)
else
	$(IN_VENV) HVD_DQN_FAULTS=full HVD_DQN_FUZZ_SECONDS=60 .venv/bin/python -m pytest -m faults $(ARGS)
endif

.PHONY: test-launch
test-launch: $(STAMP) ## run the tests on real hosts and schedulers (as root: installs Debian packages for them)
	tests/launch/install
	$(IN_VENV) .venv/bin/python -m pytest -m launch tests/launch $(ARGS)

.PHONY: lint
lint: $(STAMP) ## check style, formatting, types and shell scripts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/shellcheck --external-sources $(SHELL_SCRIPTS)

.PHONY: docs
docs: $(STAMP) ## build the documentation as a site in site/, with every warning an error
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

.PHONY: format
format: $(STAMP) ## rewrite the Python files in the project's format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

.PHONY: bench
bench: .bench/peers/.made ## run every measurement in bench/, beside other libraries: hours, and 6 GB for the libraries
	@$(MAKE) --no-print-directory setup EXTRAS="$(EXTRAS) bench"
	@for script in $$(find bench -maxdepth 1 -name '*.py' | sort); do \
	  echo "== $$script"; $(IN_VENV) .venv/bin/python "$$script" $(ARGS); \
	done

.bench/peers/.made: bench/peers/requirements.txt bench/peers/install.sh | $(UV)
	bench/peers/install.sh $(UV)
	@touch $@

.PHONY: clean
clean: ## remove caches and build products; .venv, .tools and runs stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist ./*.egg-info
	find . \( -name .venv -o -name .tools -o -name runs -o -name .git \) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# Every file below these folders whose first line names a shell.
SHELL_SCRIPTS = $(shell find .ci launch tests bench -type f -exec \
  awk 'FNR == 1 && /^\#!.*[\/ ](ba)?sh( |$$)/ {print FILENAME} {exit}' {} \; 2>/dev/null)

# A uv of our own, at a known version, whatever else is installed.
$(UV):
	@$(CHECK_MACHINE); \
	$(FIND_PYTHON); \
	target=.tools/uv-$(UV_VERSION); rm -rf "$$target"; mkdir -p .tools; \
	if "$$python" -c 'import ensurepip' 2>/dev/null && "$$python" -m venv "$$target"; then \
	  "$$target/bin/python" -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); \
	elif rm -rf "$$target"; "$$python" -m pip --version >/dev/null 2>&1; then \
	  "$$python" -m pip install --quiet --disable-pip-version-check --target "$$target" uv==$(UV_VERSION); \
	else \
	  echo "error: $$python has neither ensurepip nor pip." >&2; \
	  echo "  Debian, Ubuntu: sudo apt-get install python3-venv        Fedora, RHEL: sudo dnf install python3-pip" >&2; exit 1; \
	fi

# uv keeps the compiled Horovod in its cache: deleting .venv does not cost the compilation again.
$(STAMP): pyproject.toml uv.lock $(wildcard hvd_dqn/*/*.[ch] packaging/*) | $(UV)
	@$(CHECK_MACHINE); \
	$(FIND_PYTHON); \
	echo "installing into .venv with $$("$$python" --version)"; \
	UV_PYTHON_PREFERENCE=only-system UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=.venv \
	  $(UV) sync --locked $(addprefix --extra ,$(EXTRAS)) $(UV_SYNC_FLAGS) \
	  $$(if [ "$$python" != "$(CURDIR)/.venv/bin/python" ]; then echo "--python $$python"; fi)
	@grep -q TF_CPP_MIN_LOG_LEVEL .venv/bin/activate || echo '$(QUIET_TENSORFLOW)' >> .venv/bin/activate
	@rm -f .venv/.setup*; touch $@
