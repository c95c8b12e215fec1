# One line a job; `make test` is what CI runs. PYTHON chooses the interpreter for the environment.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python -m

.PHONY: train test test-gpu lint build sanitize profile clean

train: $(VENV)/plots        ## install what a user needs and run the main job
	$(VENV)/bin/gpucnn train

test: $(VENV)/dev lint      ## install everything and pass all tests
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(RUN) pytest -n auto   # a worker a core, a thread a worker

test-gpu: $(VENV)/dev       ## the tests that need a CUDA GPU
	$(RUN) pytest -m gpu

lint: $(VENV)/dev
	$(RUN) ruff check
	$(RUN) ruff format --check

build: $(VENV)/dev          ## wheel and source distribution, in dist/
	$(RUN) build

sanitize: $(VENV)/dev       ## the short GPU set under NVIDIA's memory and race checkers
	for tool in memcheck racecheck initcheck synccheck; do \
	    compute-sanitizer --tool $$tool --error-exitcode 1 $(RUN) pytest -m gpu -q tests/operations || exit 1; done

profile: $(VENV)/dev
	nsys profile --trace cuda,nvtx --force-overwrite true --output train_nvtx \
	    $(VENV)/bin/python profiling/train_nvtx.py

$(VENV)/plots $(VENV)/dev: $(VENV)/%: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --editable ".[$*]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info runs
