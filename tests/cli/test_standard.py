"""Standard output may be a pipe that nobody reads any more, closed, or full: the command goes on."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stochnorm.cli.main import main
from stochnorm.cli.standard import Lasting
from stochnorm.errors import ran_out, reason_of
from stochnorm.runs.directory import Run

COMMAND = [sys.executable, "-m", "stochnorm"]
FULL = "error: cannot write standard output: No space left on device; the command did the rest\n"


class Failing(io.StringIO):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.left = number, 2

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


def piped(arguments: list[str], shell: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the shell, in which `$STOCHNORM` is the command line of stochnorm."""
    words = " ".join([*COMMAND, *arguments])
    return subprocess.run(
        ["/bin/bash", "-c", f"set -o pipefail; {shell.replace('$STOCHNORM', words)}"],
        cwd=folder, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("lines", [1])
def test_head_ends_a_command_without_a_word(tmp_path: Path, lines: int) -> None:
    done = piped(["ls", "methods"], f"$STOCHNORM | head -{lines}", tmp_path)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", lines)


def test_a_full_output_is_named_and_a_closed_one_is_not_needed(tmp_path: Path) -> None:
    full = piped(["ls", "presets"], "$STOCHNORM > /dev/full", tmp_path)
    assert (full.returncode, full.stderr) == (1, FULL)
    closed = piped(["ls", "presets"], "$STOCHNORM >&-", tmp_path)
    assert (closed.returncode, closed.stderr) == (0, "")


@pytest.mark.parametrize(("number", "status"), [(errno.EPIPE, 0), (errno.ENOSPC, 1)])
def test_a_training_without_a_reader_is_finished(
    photos: Path,
    tmp_path: Path,
    tiny_options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    status: int,
) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(number))
    assert main(["finetune", str(photos), *tiny_options, "--no-report", "--out", str(tmp_path / "run")]) == status
    assert Run(tmp_path / "run").read_result()["test"]
    said = capsys.readouterr().err
    assert ("cannot write standard output" in said) == bool(status)
    assert said.count("\n") == status


def test_letters_that_the_encoding_lacks_are_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    Lasting(stream).write("鳥 bird\n")
    assert raw.getvalue() == b"\\u9ce5 bird\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        ValueError("a wrapped one"),
    ],
)
def test_memory_that_ran_out_is_one_line_that_says_what_to_do(error: Exception) -> None:
    if isinstance(error, ValueError):
        error.__cause__ = MemoryError()
    assert ran_out(error)
    text = reason_of(error)
    assert text.startswith("memory ran out (")
    assert text.endswith(
        "); give a smaller --batch-size (or --accumulate 2), fewer --workers, or a smaller --image-size"
    )
    assert "\n" not in text


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory/x.png: cannot be read as an image (it is cut off)"),
        FileNotFoundError("bad_alloc: no such folder"),
        OSError(errno.EACCES, "Permission denied", "out of memory.csv"),
    ],
)
def test_a_name_that_speaks_of_memory_is_no_want_of_it(error: Exception) -> None:
    assert not ran_out(error)


def test_a_link_that_goes_round_is_named(tmp_path: Path, run_command: Callable[..., Any]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    done = run_command("finetune", tmp_path, "--out", tmp_path / "loop")
    assert done.returncode == 1
    assert "loop' is a link that goes round; remove it, or name another place" in done.stderr


def test_want_of_memory_is_not_taken_for_a_damaged_file(
    photos: Path, tmp_path: Path, config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stochnorm.models import weight_files, weights
    from stochnorm.training import checkpoint

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")

    for suffix in ("safetensors", "pth"):
        (tmp_path / f"x.{suffix}").write_bytes(b"\x80\x02\x8a\0\0\0\0\0{")
    monkeypatch.setattr(weight_files, "load_file", fail)
    monkeypatch.setattr("torch.load", fail)
    monkeypatch.setattr(checkpoint.zipfile, "ZipFile", fail)
    for read in (
        lambda: weights.read_state_dict(tmp_path / "x.safetensors"),
        lambda: weights.read_state_dict(tmp_path / "x.pth"),
        lambda: checkpoint.damage_of(tmp_path / "x.pth"),
    ):
        with pytest.raises((RuntimeError, MemoryError), match=r"can't allocate memory|not enough memory"):
            read()
