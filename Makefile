# Everything runs in .venv, which the first target that needs it makes. The targets for GPUs, given WHEELS=FOLDER, run in
# .venv-gpu: on top of PYTHON and its PyTorch, with wheels from that folder and without a network.
PYTHON ?= python3
VENV_BIN ?= bin
BIN := .venv/$(VENV_BIN)
OUT ?= benchmarks/results/gpu
GPU := $(if $(WHEELS),.venv-gpu,.venv)

.PHONY: demo test test-core test-lowest docs dist audit soak test-gpu check bench bench-gpu gpu gpu-wheels format clean

demo: .venv/demo  ## compare ways to fine-tune on real photographs
	$(BIN)/stochnorm demo

test: .venv/dev check  ## lint, types, tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

CORE := tests/nn tests/regularizers tests/models tests/methods tests/data tests/runs tests/evaluation tests/cli
test-core: .venv/dev  ## the tests of the pure-Python parts, on any system
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal $(CORE)

test-lowest:  ## the same with the lowest versions that pyproject.toml allows, in .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) .ci/lowest.py > .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --constraint .venv-lowest/lowest.txt --editable '.[dev]'
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n auto --dist worksteal $(CORE)

docs: .venv/dev  ## the documentation site, in site/; a warning is an error
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

dist: | .venv  ## wheel and source archive, in dist/
	$(BIN)/python -m pip install --quiet build twine
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check dist/*

audit: .venv/dev  ## known vulnerabilities of what is installed
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --skip-editable

soak: .venv/dev  ## faults at random moments and damaged files, counted: docs/reliability.md; an hour on one core
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak/soak.py
	OMP_NUM_THREADS=1 STOCHNORM_SOAK_INPUTS=1000 $(BIN)/pytest --timeout 3600 tests/runs/test_damaged_directories.py

test-gpu: $(GPU)/dev  ## the tests that compute on a device, on a CUDA GPU
	$(GPU)/bin/python benchmarks/gpu.py --only-tests --out $(OUT)

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/dev  ## benchmarks/README.md, a quarter of an hour on two cores that nothing else uses
	$(BIN)/python benchmarks/startup.py --rounds 3
	$(BIN)/python benchmarks/layer.py --budget 65
	$(BIN)/python benchmarks/step.py --seconds 15
	$(BIN)/python benchmarks/methods.py
	$(BIN)/python benchmarks/depthwise.py
	$(BIN)/python benchmarks/attention.py
	$(BIN)/python benchmarks/bss.py
	$(BIN)/python benchmarks/epochs.py
	$(BIN)/python benchmarks/job.py
	$(BIN)/python benchmarks/serving.py --images 60
	$(BIN)/python benchmarks/grid.py --steps 50
	$(BIN)/python benchmarks/scaling.py --most 10000
	$(BIN)/python benchmarks/readme.py

bench-gpu: $(GPU)/dev  ## the benchmarks of a GPU, ten minutes at most
	$(GPU)/bin/python benchmarks/gpu.py --out $(OUT); status=$$?; $(GPU)/bin/python benchmarks/readme.py; exit $$status

gpu: $(GPU)/dev  ## test-gpu, then bench-gpu, 13 minutes at most: for a GPU that is at hand for a short time
	$(GPU)/bin/python benchmarks/gpu.py --tests --minutes 13 --out $(OUT)

gpu-wheels:  ## what a machine with PyTorch, but without a network, needs beside it: WHEELS=wheels there
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --platform any --dest wheels -r benchmarks/gpu_wheels.txt

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-gpu .venv-lowest site dist

.venv/dev: pyproject.toml | .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev,elpv]'
	touch $@

.venv/demo: pyproject.toml | .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv-gpu/dev: pyproject.toml benchmarks/gpu_wheels.txt
	$(PYTHON) benchmarks/gpu_environment.py .venv-gpu --wheels $(WHEELS)
	touch $@

.venv:
	$(PYTHON) -m venv .venv
