# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check format clean

demo: .venv/demo  ## fine-tune on real images, BatchNorm and StochNorm side by side
	$(BIN)/stochnorm demo

test: .venv/dev check  ## lint, types, tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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
