# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-gpu check bench format clean

demo: .venv/demo  ## fine-tune on real images, BatchNorm and StochNorm side by side
	$(BIN)/stochnorm demo

test: .venv/dev check  ## lint, types, tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

test-gpu: .venv/dev  ## the tests that compute on a device, on a CUDA GPU
	$(BIN)/pytest -m gpu --device cuda

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

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv

.venv/dev: pyproject.toml | .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev,demo]'
	touch $@

.venv/demo: pyproject.toml | .venv
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

.venv:
	$(PYTHON) -m venv .venv
