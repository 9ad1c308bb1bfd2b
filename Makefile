# Everything runs in a virtual environment of its own, made on first use.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test lint docs bench bench-gpu audit-dependencies clean

demo: $(STAMP)        ## the main job on data that need no download; ends with two reports
	$(BIN)/confide demo --out demo

test: lint            ## checks, then all tests but the slow and the GPU ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not gpu"

lint: $(STAMP)        ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(STAMP)        ## the documentation as a site in site/
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	$(BIN)/mkdocs build --strict

bench: $(STAMP)       ## speed and memory on the CPU, ten minutes: benchmarks/results and docs/performance.md
	$(BIN)/python benchmarks/cost.py
	$(BIN)/python benchmarks/training.py --cases table tiny small_cnn
	$(BIN)/python benchmarks/encoding.py
	$(BIN)/python benchmarks/inversion_assignment.py --phantoms 60 --width 512 --budget quick --problems 50
	$(BIN)/python benchmarks/page.py

bench-gpu: $(STAMP)   ## training on a CUDA device: benchmarks/results and docs/performance.md
	$(BIN)/python benchmarks/gpu.py
	$(BIN)/python benchmarks/page.py

audit-dependencies: $(STAMP)  ## known flaws of what is installed, asked of PyPI; fails if a package cannot be asked for
	$(BIN)/python -m pip freeze --exclude-editable > $(VENV)/installed.txt
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet "pip-audit>=2.7,<3"
	$(VENV)/audit/bin/pip-audit --strict --disable-pip --no-deps -r $(VENV)/installed.txt

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) site dist
