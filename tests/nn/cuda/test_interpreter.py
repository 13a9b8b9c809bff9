"""The Triton kernels on machines without a GPU: Triton's interpreter runs them, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("tests", "least"),
    [("test_fused.py", 50), ("test_trust.py", 5), ("test_batch_instance.py", 50), ("test_fusion.py", 4)],
)
def test_the_kernels_pass_their_tests_in_tritons_interpreter(
    tests: str, least: int, request: pytest.FixtureRequest
) -> None:
    """The interpreter must be chosen before anything imports Triton, which then computes nothing else."""
    pytest.importorskip("triton")
    if request.config.getoption("--device") != "cpu":
        pytest.skip("the kernels themselves run on the device")
    here = Path(__file__).parent
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(here / tests)],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=here.parents[2],
    )
    assert finished.returncode == 0, finished.stdout[-8000:]
    passed = int(finished.stdout.split(" passed")[0].split()[-1])
    assert passed >= least
