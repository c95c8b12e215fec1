# One line a job; `make test` is what CI runs. PYTHON chooses the interpreter for the environment.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python -m

.PHONY: train test gpu bench lint build profile clean

train: $(VENV)/plots        ## install what a user needs and run the main job
	$(VENV)/bin/gpucnn train

test: $(VENV)/dev lint      ## install everything and pass all tests
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(RUN) pytest -n auto --dist worksteal

gpu:                        ## test, sanitize and benchmark on a GPU, with what PYTHON has installed
	$(PYTHON) -m profiling.gpu $(ARGS)

bench:                      ## benchmark the CPU, with what PYTHON has installed
	$(PYTHON) -m profiling.cpu $(ARGS)

lint: $(VENV)/dev
	$(RUN) ruff check
	$(RUN) ruff format --check

build: $(VENV)/dev          ## wheel and source distribution, in dist/
	$(RUN) build

profile: $(VENV)/dev
	nsys profile --trace cuda,nvtx --force-overwrite true --output train_nvtx \
	    $(VENV)/bin/python profiling/train_nvtx.py

$(VENV)/plots $(VENV)/dev: $(VENV)/%: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --editable ".[$*]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info runs
