from __future__ import annotations

import os
import subprocess
import sys

import pytest

from stochnorm.nn.cpu.memory import keep_freed_memory

SCRIPT = """
import resource
import torch
from stochnorm.nn.cpu.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2**20) for _ in range(32)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if {keep}:
    assert keep_freed_memory()
faults()
print(faults())
"""


def faults_of_a_second_allocation(keep: bool) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", SCRIPT.format(keep=keep)]
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout)


@pytest.mark.skipif(sys.platform != "linux" or "glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="no glibc")
def test_a_second_step_takes_few_page_faults() -> None:
    # The heap is in pieces, so that some tensors find no place in it the second time.
    assert 2 * faults_of_a_second_allocation(keep=True) < faults_of_a_second_allocation(keep=False)


def test_the_users_own_settings_go_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not keep_freed_memory()
