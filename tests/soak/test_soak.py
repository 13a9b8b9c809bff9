"""The short form of the soak: one fault of some kinds at a random moment; nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals and fork")
def test_one_fault_of_each_kind_loses_nothing() -> None:
    kinds = ["signals", "full_disk", "cache", "images"]
    command = [sys.executable, Path(__file__).with_name("soak.py"), "--rounds", "1", "--kinds", ",".join(kinds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    assert len(rows) == len(kinds)
    assert all(row[1] == row[2] != "0" and row[3] == "0" for row in rows), done.stdout + done.stderr
