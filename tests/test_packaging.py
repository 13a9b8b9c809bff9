"""The package as it is built, installed and cited."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import stochnorm

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are built on Linux")
def test_a_kernel_that_cannot_be_built_is_a_warning(tmp_path: Path) -> None:
    """As without a compiler, or with a broken one."""
    pytest.importorskip("setuptools", minversion="77")
    shutil.copy(ROOT / "setup.py", tmp_path)
    shutil.copytree(ROOT / "src/stochnorm/nn/cpu", tmp_path / "src/stochnorm/nn/cpu", ignore=lambda *_: ["__pycache__"])
    compilers = dict.fromkeys(("CC", "CXX", "LDSHARED", "LDCXXSHARED"), "false")
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", "built", "--build-temp", "temp"]
    built = subprocess.run(
        command, cwd=tmp_path, env=os.environ | compilers, capture_output=True, text=True, timeout=120, check=False
    )
    assert built.returncode == 0, built.stderr
    assert 'building extension "stochnorm.nn.cpu._kernel" failed' in built.stderr
    assert not list((tmp_path / "built").rglob("*.so"))


def test_the_version_stands_in_three_places_alike() -> None:
    (project,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    citation = loaded(ROOT / "CITATION.cff")
    assert stochnorm.__version__ == project == citation["version"]
    assert citation["preferred-citation"]["title"] == "Stochastic Normalization"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_hosted_workflow_calls_targets_that_the_makefile_has_and_may_only_read(path: Path) -> None:
    workflow = loaded(path)
    assert workflow["permissions"] == {"contents": "read"}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    targets = {match for step in steps for match in re.findall(r"^make ([\w-]+)", step.get("run", ""))}
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert targets <= known
    assert targets or any("cibuildwheel" in step.get("uses", "") for step in steps)


def test_the_lowest_versions_are_those_of_the_dependencies() -> None:
    command = [sys.executable, ROOT / ".ci/lowest.py"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert "torch==2.9" in lines
    assert "pillow==11" in lines
    text = (ROOT / "pyproject.toml").read_text().partition("dependencies = [")[2].partition("\n]")[0]
    assert len(lines) == len(re.findall(r'^    "', text, flags=re.MULTILINE))


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_an_issue_template_is_read(path: Path) -> None:
    content = loaded(path)
    assert path.stem == "config" or {"name", "description", "body"} <= content.keys()
