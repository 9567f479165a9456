# `make demo` runs the whole path on the embedded data set; `make test` runs lint, type check and all tests.
# Both need only Python 3.11 or newer and a package registry. PYTHON=/path/to/python chooses the interpreter.
# What they install is in requirements/*.lock, file by file with its SHA-256; `make lock` makes the locks again after a change of
# pyproject.toml, and `make lock UPGRADE=--upgrade` takes the newest releases that pyproject.toml allows.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKS := requirements
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
DEMO ?= demo
STUDY ?= study
# A file's tests stay in one worker, which shares its fixtures; tests/conftest.py puts the files with long tests first.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo study test test-fast lint soak lock clean

demo: $(VENV)/installed
	$(BIN)/python -m maskanim_jax.animate --checkpoint=puppets --example=$(DEMO)/first_minute
	$(BIN)/python -m maskanim_jax.weights vgg19
	$(BIN)/python -m maskanim_jax.main --config=configs/demo.py --workdir=$(DEMO) --mode=all

# Both systems on the sets whose shards are in data/ (puppets are drawn), side by side; hours. SETS=puppets,mgif,faces chooses.
study: $(VENV)/installed
	$(BIN)/python -m maskanim_jax.weights vgg19
	$(BIN)/python -m maskanim_jax.study --workdir=$(STUDY) --sets=$(or $(SETS),puppets)

test: $(VENV)/tested lint
	$(BIN)/python -m maskanim_jax.weights vgg19 || echo "without VGG-19's weights: the tests that need them are skipped"
	$(BIN)/python -m pytest $(PARALLEL)

# While developing: lint, and the tests that neither compile large programs nor start processes or a browser.
test-fast: $(VENV)/tested lint
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not subprocess and not browser"

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Kills a training 50 times and compares it with one that was left alone.
soak: $(VENV)/tested
	$(BIN)/python tests/tools/soak.py --kills=50

# The build tools are installed first and used as they are: otherwise pip would fetch its own choice of them, unlocked.
$(VENV)/installed: pyproject.toml $(LOCKS)/build.lock $(LOCKS)/core.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --require-hashes -r $(LOCKS)/build.lock
	$(INSTALL) --require-hashes --no-build-isolation -r $(LOCKS)/core.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/tested: $(VENV)/installed $(LOCKS)/test.lock
	$(INSTALL) --require-hashes --no-build-isolation -r $(LOCKS)/test.lock
	@touch $@

# One release of each package for every Python from 3.11 on, Linux (x86-64, arm64) and macOS (arm64).
COMPILE = build/lock/bin/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command 'make lock' $(UPGRADE)

lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' > build/build.in
	$(COMPILE) build/build.in --output-file $(LOCKS)/build.lock
	$(COMPILE) pyproject.toml --output-file $(LOCKS)/core.lock
	$(COMPILE) pyproject.toml --extra test --constraint $(LOCKS)/core.lock --output-file $(LOCKS)/test.lock

clean:
	rm -rf $(VENV) build *.egg-info
