# make demo | test | test-all | test-browser | test-raw | test-slurm | test-wheel | test-minimum | coverage | gpu | lint
# | notebooks | docs | slides | package | review | lab | exercises | lock
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RAW := .venv-raw
MINIMUM := .venv-minimum
PYTEST := $(BIN)/python -m pytest
EXECUTED := docs/_executed
GALLERY := docs/_gallery/gallery.json
# one process per core, each with one thread: more than four need much memory for little time
PARALLEL := --numprocesses=logical --maxprocesses=4 --dist=worksteal

.PHONY: install demo test test-all test-browser test-raw test-slurm test-wheel test-minimum coverage gpu lint format notebooks docs \
  slides package review lab exercises lock clean

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

demo: install
	$(BIN)/xai-brain run experiment=demo

# What a new user runs: some minutes.
test: install
	$(PYTEST) $(PARALLEL) -m "not slow"
	$(PYTEST) --nbmake --nbmake-timeout=300 notebooks/00_start_here.ipynb
	@echo "Passed: the fast tests and notebook 00. Not run, because they take about an hour and need Chromium," \
	  "SLURM and a second environment: slow tests, notebooks 01 to 10, browser, raw heads, SLURM (make test-all);" \
	  "and tests that download ($(PYTEST) -m network)."

# Everything but lint. XAI_BRAIN_REQUIRE_ALL=1 makes a test fail that would be skipped, as for a missing program.
# What uses one core or waits runs two at a time; the output of each appears when it is complete.
test-all: install
	XAI_BRAIN_KILLS=10 $(PYTEST) $(PARALLEL) -m "not (browser or slurm)"
	$(MAKE) notebooks
	$(MAKE) --jobs=2 --output-sync=target test-raw test-browser test-slurm test-wheel

# JupyterLab and the site, in Debian's chromium; its last line is what it measured, as JSON.
test-browser: docs
	$(PYTEST) tests/browser
	@cat tests/browser/measured.json

# A sweep on a SLURM of one node, which this machine starts.
test-slurm: install
	$(PYTEST) -m slurm

# The wheel in an empty environment: downloads what it needs.
test-wheel: install
	$(PYTEST) -m network tests/test_package.py

# On a machine with a GPU: what the CPU cannot test, then figures, as JSON in the last line.
gpu: install
	$(PYTEST) -m gpu tests
	$(BIN)/python benchmarks/gpu.py

# Raw heads: antspyx wants an older numpy than the lock has, so that its tests have an environment of their own.
test-raw: $(RAW)/.installed
	XAI_BRAIN_RAW=1 $(RAW)/bin/python -m pytest tests/test_raw_heads.py

$(RAW)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(RAW)
	grep -vE '^(numpy|scipy|pandas|scikit-learn)==' requirements.lock > $(RAW)/constraints.txt
	$(RAW)/bin/python -m pip install --quiet --upgrade pip
	$(RAW)/bin/python -m pip install --quiet -c $(RAW)/constraints.txt torch==2.13.0 -e '.[raw]' pytest pytest-timeout hypothesis
	touch $@

# The oldest versions that pyproject.toml allows. Warnings are no errors: these versions warn of what is past.
test-minimum: $(MINIMUM)/.installed
	$(MINIMUM)/bin/python -m pytest $(PARALLEL) --override-ini filterwarnings=default -m "not slow" $$(cat tests/minimum_tests.txt)

$(MINIMUM)/.installed: tests/minimum_versions.txt pyproject.toml
	$(PYTHON) -m venv $(MINIMUM)
	$(MINIMUM)/bin/python -m pip install --quiet --upgrade pip
	$(MINIMUM)/bin/python -m pip install --quiet -c tests/minimum_versions.txt -e . hypothesis jupyterlab monai nbformat pytest pytest-timeout pytest-xdist
	touch $@

# Lines that the tests run, in all processes that they start: fast and slow tests, without notebooks and browser.
# OC_CAUSE=0: OmegaConf shortens its messages while lines are traced, otherwise.
coverage: install
	rm -f .coverage .coverage.*
	OC_CAUSE=0 $(PYTEST) $(PARALLEL) -m "not (browser or slurm)" --cov --cov-report=
	$(BIN)/coverage report --sort=cover
	$(BIN)/coverage json --quiet -o build/coverage.json

# Wheel and sdist in dist/, and their metadata.
package: install
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m pip install --quiet twine
	$(BIN)/python -m twine check --strict dist/*

# The guidelines of Scientific Python; exceptions and their reasons are in pyproject.toml.
review: install
	$(BIN)/python -m pip install --quiet repo-review sp-repo-review
	$(BIN)/repo-review .

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Copies of the notebooks are executed, which is their test; their outputs are pages of the site.
notebooks: install
	rm -rf $(EXECUTED)
	mkdir -p $(EXECUTED)
	cp -r notebooks/*.ipynb notebooks/images $(EXECUTED)
	OMP_NUM_THREADS=1 $(PYTEST) $(PARALLEL) --nbmake --overwrite --nbmake-timeout=1200 --timeout=2400 $(EXECUTED)/*.ipynb
	touch $(EXECUTED)/.executed

$(EXECUTED)/.executed: $(wildcard notebooks/*.ipynb)
	$(MAKE) notebooks

# Pictures of all methods, about a minute of computing time
$(GALLERY): docs/_ext/gallery.py $(wildcard xai_brain/attribution/methods/*.py)
	OMP_NUM_THREADS=1 $(BIN)/python docs/_ext/gallery.py

# The documentation as a site that needs no network: docs/_build/html/index.html. Warnings are errors.
docs: install $(EXECUTED)/.executed $(GALLERY)
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build/html
	@echo "The site is docs/_build/html/index.html."

# Slides of the notebooks for a course, which need no network: docs/_build/slides/*.slides.html
slides: install $(EXECUTED)/.executed
	$(BIN)/python docs/_ext/slides.py

lab: install
	$(BIN)/jupyter lab notebooks

# Notebooks without their solutions, for a course: notebooks/exercises/*.ipynb
exercises: install
	$(BIN)/python notebooks/make_exercises.py

# Versions for everybody: no build labels of one machine, no index.
lock: install
	$(BIN)/python -m pip install --quiet pip-tools dependency-groups
	$(BIN)/python -m dependency_groups dev --output $(VENV)/dev.in
	$(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --extra docs --extra lab --extra sweeps --extra models --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	  --output-file requirements.lock pyproject.toml $(VENV)/dev.in
	sed -i -E -e 's/^(torch==[0-9.]+)\+cpu/\1/' -e '/^(#|$$)/d' requirements.lock

clean:
	rm -rf $(VENV) $(RAW) $(MINIMUM) build dist outputs docs/_build docs/_gallery $(EXECUTED)
