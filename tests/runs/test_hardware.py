"""Device and processes of a run."""

from __future__ import annotations

from pathlib import Path

from processes import torchrun

_SCRIPT = """
import atexit
import os
import pathlib
import torch.distributed as dist
from stochnorm.runs.hardware import launch

place = pathlib.Path(__file__).with_name("rank" + os.environ["RANK"])

def end():  # registered first, so it runs last
    said = "left" if not dist.is_initialized() else "still in the group"
    place.write_text(said)

atexit.register(end)
launch("cpu", "32")
assert dist.is_initialized() and dist.get_world_size() == 2
"""


def test_processes_leave_their_group_at_their_end(tmp_path: Path) -> None:
    """Threads of a gloo group that is not destroyed abort a process, at times, after its work is done."""
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    torchrun(script)
    assert [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)] == ["left", "left"]
