"""The examples run as they are in examples/; those of libraries that are not installed are skipped."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NEEDS = {
    "pytorch": "torch",
    "lightning_swa": "pytorch_lightning",
    "huggingface": "transformers",
    "fastai_learner": "fastai",
}


def test_every_example_is_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*NEEDS, "groceries"}


@pytest.mark.parametrize("name", NEEDS)
def test_an_example_learns(name: str, tmp_path: Path) -> None:
    """Twice as well as chance, of twelve classes, after three passes over the images."""
    if importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", EXAMPLES / f"{name}.py", "--epochs", "3"],
        capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = re.search(r"test accuracy ([0-9.]+) %", done.stdout)
    assert found is not None
    assert float(found[1]) > 2 * 100 / 12
    if name == "pytorch":
        state = torch.load(tmp_path / "groceries.pt", weights_only=True)
        assert any(key.endswith("running_var") for key in state)
        assert all(torch.isfinite(value).all() for value in state.values())
