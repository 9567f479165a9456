# `make demo` runs the whole path on the embedded data set; `make test` runs lint, type check and all tests.
# Both need only Python 3.11 or newer and a package registry. PYTHON=/path/to/python chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo test lint clean

demo: $(VENV)/installed
	$(BIN)/python -m maskanim_jax.weights vgg19
	$(BIN)/python -m maskanim_jax.main --config=configs/demo.py --workdir=$(DEMO) --mode=all

test: $(VENV)/tested lint
	$(BIN)/python -m maskanim_jax.weights vgg19 || echo "without VGG-19's weights: the tests that need them are skipped"
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
