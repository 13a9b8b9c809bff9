"""Processes that begin with stochnorm imported, forked from one that has done nothing else: the same without the wait.

A fixture's or a test's, in place of ``subprocess``, where it does not matter how a process comes to its imports.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import IO, Any

PIPE = subprocess.PIPE
LONGEST = 250.0  # seconds that a process may take

_context: Any = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["stochnorm.training.finetune", "stochnorm.comparison.compare", "stochnorm.evaluation.predict", "stochnorm.report"]
)


class Popen:
    """As ``subprocess.Popen`` of this interpreter, with ``-m MODULE`` or ``-c CODE``, and with text in pipes."""

    def __init__(
        self,
        command: Sequence[object],
        *,
        stdin: int | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: IO[Any] | None = None,
        env: Mapping[str, str] | None = None,
        text: bool = True,
        start_new_session: bool = False,
    ) -> None:
        assert command[0] == sys.executable
        assert text
        self.stdin: IO[str] | None = None
        self.stdout: IO[str] | None = None
        streams = [Connection(os.open(os.devnull, os.O_RDWR)) for _ in range(3)]
        if stdin == PIPE:
            end, other = os.pipe()
            streams[0], self.stdin = Connection(end), os.fdopen(other, "w")
        if stdout == PIPE:
            other, end = os.pipe()
            streams[1], self.stdout = Connection(end), os.fdopen(other)
        for number, file in ((1, stdout), (2, stderr)):
            if file is not None and not isinstance(file, int):
                streams[number] = Connection(os.dup(file.fileno()))
        environment = dict(os.environ if env is None else env)
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        parts = [str(part) for part in command[1:]]
        arguments = (parts, streams, environment, os.getcwd(), start_new_session, ignored)  # noqa: PTH109
        self._process = _context.Process(target=_run, args=arguments)
        self._process.start()
        for stream in streams:
            stream.close()
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode  # type: ignore[no-any-return]

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float = LONGEST) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a warm process", timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def run(command: Sequence[object], **environment: str) -> subprocess.CompletedProcess[str]:
    """As ``subprocess.run``, with what it prints."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = Popen(command, stdout=output, stderr=errors, env=os.environ | environment)
        try:
            status = process.wait()
        finally:
            process.kill()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess([*map(str, command)], status, output.read(), errors.read())


def _run(
    command: list[str],
    streams: list[Connection],
    environment: dict[str, str],
    directory: str,
    new_session: bool,
    ignores_interrupts: bool,
) -> None:
    """In the process: make it what a new one would be."""
    global _context
    if new_session:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
    if _context.get_start_method() == "fork":
        os.closerange(3, 1024)  # the pipes of others, which would not end while they are held here
    _context = multiprocessing.get_context("fork")  # for what it starts itself: it is warm
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (for as long as the process lasts)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    signal.signal(signal.SIGINT, signal.SIG_IGN if ignores_interrupts else signal.default_int_handler)

    import torch

    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", torch.get_num_threads())))
    kind, what, *arguments = command
    sys.argv = [kind, *arguments]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(what, {"__name__": "__main__"})  # noqa: S102


@atexit.register
def _end_all() -> None:
    for process in multiprocessing.active_children():
        process.kill()
