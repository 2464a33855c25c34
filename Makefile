# make demo | test | test-browser | test-raw | lint | lab | exercises | lock
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RAW := .venv-raw

.PHONY: install demo test test-fast test-browser test-raw lint format lab exercises lock clean

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

demo: install
	$(BIN)/xai-brain run experiment=demo

test: install
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=300 notebooks/*.ipynb

test-fast: install
	$(BIN)/python -m pytest -m "not slow"

# In JupyterLab, with Debian's chromium; its last line is what it measured, as JSON.
test-browser: install
	XAI_BRAIN_TIMING=1 $(BIN)/python -m pytest tests/browser
	@cat tests/browser/measured.json

# Raw heads: antspyx wants an older numpy than the lock has, so that its tests have an environment of their own.
test-raw: $(RAW)/.installed
	XAI_BRAIN_RAW=1 $(RAW)/bin/python -m pytest tests/test_raw_heads.py

$(RAW)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(RAW)
	grep -vE '^(numpy|scipy|pandas|scikit-learn)==' requirements.lock > $(RAW)/constraints.txt
	$(RAW)/bin/python -m pip install --quiet --upgrade pip
	$(RAW)/bin/python -m pip install --quiet -c $(RAW)/constraints.txt torch==2.13.0 -e '.[raw]' pytest pytest-timeout hypothesis
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lab: install
	$(BIN)/jupyter lab notebooks

# Notebooks without their solutions, for a course: notebooks/exercises/*.ipynb
exercises: install
	$(BIN)/python notebooks/make_exercises.py

# Versions for everybody: no build labels of one machine, no index.
lock: install
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --extra dev --extra lab --extra render --extra sweeps --extra models --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	  --output-file requirements.lock pyproject.toml
	sed -i -E 's/^(torch==[0-9.]+)\+cpu/\1/' requirements.lock

clean:
	rm -rf $(VENV) $(RAW) build dist outputs
