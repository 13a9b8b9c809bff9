"""Commands import what computes only once their arguments are known to be right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run_and_list(args: str, folder: Path) -> tuple[str, set[str]]:
    """Return what the command prints and the modules that it has imported then."""
    code = "import sys\nfrom stochnorm.cli.main import main\ntry: main(sys.argv[1:])\nfinally: print(*sys.modules)"
    command = [sys.executable, "-c", code, *args.split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, timeout=120)
    *printed, modules = done.stdout.splitlines()
    return "\n".join([*printed, done.stderr]), set(modules.split())


HEAVY = {"torch", "numpy", "timm", "torchvision", "lightning_fabric", "matplotlib", "scipy", "optuna"}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("--help", "usage: stochnorm [-h]"),
        ("finetune --help", "usage: stochnorm finetune"),
        ("finetune photos --stepps 3", "Unrecognized options: --stepps"),
    ],
)
def test_help_and_wrong_options_wait_for_tyro_alone(args: str, said: str, tmp_path: Path) -> None:
    printed, modules = run_and_list(args, tmp_path)
    assert said in printed
    assert not modules & {*HEAVY, "rich"}


@pytest.mark.parametrize("args", ["finetune photos --p 2", "tune photos --p 2", "compare photos --p 2"])
def test_values_out_of_range_do_not_wait_for_torch(args: str, tmp_path: Path) -> None:
    printed, modules = run_and_list(args, tmp_path)
    assert "error: p must be in [0, 1], got 2.0" in printed
    assert not modules & HEAVY


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("finetune photos --settings nowhere.json", "No such file or directory: nowhere.json"),
        ("predict nowhere x.png --csv missing/out.csv", "cannot write missing/out.csv"),
        ("lists photos lists --rate 200", "rate must be in (0, 100], got 200.0"),
        ("doctor resnet18 photos --out missing/check", "cannot write missing/check.png"),
        ("report", "no runs given"),
        ("ls methods", "Kou et al., NeurIPS 2020"),
    ],
)
def test_a_command_looks_at_its_arguments_before_it_imports_what_computes(args: str, said: str, tmp_path: Path) -> None:
    printed, modules = run_and_list(args, tmp_path)
    assert said in printed
    assert not modules & HEAVY
