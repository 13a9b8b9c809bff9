"""What a command stands on gives way: disk, memory, cache, images, standard output, clock."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from lab import Lab
from PIL import Image

from stochnorm.runs.directory import Run

__all__ = ["cache", "clock", "full_disk", "images", "memory", "output", "small_disk"]


def full_disk(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """A file may not grow beyond a random size: each write that is larger fails, as on a full disk."""
    largest = int(lab.whole.model.stat().st_size * 2.4)
    for _ in range(rounds):
        out = lab.place()
        size = int(largest ** lab.draw.uniform(0.2, 1))

        def limit(size: int = size) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        ended = lab.run(lab.finetune(out), limit)
        told = "" if ended.in_words else f"{size} bytes: {ended}"
        yield told or lab.finish(out), 1


def small_disk(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """A file system is full at a random size; then it is made larger, and the run goes on. Needs to mount one."""
    largest = int(lab.whole.model.stat().st_size * 5)
    for _ in range(rounds):
        disk = lab.place()
        disk.mkdir()
        if not _does("mount", "-t", "tmpfs", "-o", f"size={2**16}", "tmpfs", disk):
            return
        try:
            size = int(largest ** lab.draw.uniform(0.75, 1))
            assert _does("mount", "-o", f"remount,size={size}", disk)
            ended = lab.run(lab.finetune(disk / "run"))
            told = "" if ended.in_words and (not ended.status or "space" in ended.said) else f"{size} bytes: {ended}"
            assert _does("mount", "-o", f"remount,size={4 * largest}", disk)
            yield told or lab.finish(disk / "run"), 1
        finally:
            assert _does("umount", disk)


def _does(tool: str, *arguments: str | Path) -> bool:
    """Run a tool of the system; return whether it did what it was told."""
    found = shutil.which(tool)
    return found is not None and subprocess.run([found, *arguments], check=False).returncode == 0


def memory(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """The address space may grow by a random size only."""
    for _ in range(rounds):
        out = lab.place()
        more = int(lab.draw.uniform(0, 60) * 2**20)

        def limit(more: int = more) -> None:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))

        ended = lab.run(lab.finetune(out), limit)
        cause = ended.status == 0 or "memory" in ended.said
        told = "" if ended.in_words and cause else f"{more} bytes more: {ended}"
        yield told or lab.finish(out), 1


def cache(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """The cache of decoded images is removed, cut, filled with noise, or made read-only while a run reads it."""
    for _ in range(rounds):
        out = lab.place()
        process, said = lab.start(lab.finetune(out))
        lab.moment()
        way = lab.draw.choice(["remove", "cut", "noise", "read-only", "empty"])
        folder = lab.cache / "stochnorm/images"
        for file in folder.glob("*.images"):
            if way == "cut":
                os.truncate(file, lab.draw.randrange(file.stat().st_size))
            elif way == "empty":
                os.truncate(file, 0)
            elif way == "noise":
                (folder / "half.images").write_bytes(os.urandom(9000))
            elif way == "read-only":
                file.chmod(0o400)
        if way == "remove":
            shutil.rmtree(folder, ignore_errors=True)
        ended = lab.wait(process, said)
        yield (f"{way}: {ended}" if ended.status else lab.difference(Run(out)) or lab.finish(out)), 1


def images(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """Images are removed, cut or replaced while a run reads them; they come back, and the run goes on."""
    for _ in range(rounds):
        shutil.rmtree(lab.cache, ignore_errors=True)
        out = lab.place()
        saved = lab.folder / "saved"
        shutil.copytree(lab.photos, saved)
        arguments = lab.finetune(out)
        arguments[arguments.index("disk")] = lab.draw.choice(["disk", "none", "memory"])
        process, said = lab.start(arguments)
        lab.moment()
        stopped = lab.draw.random() < 0.5
        for file in lab.draw.sample(sorted(lab.photos.rglob("*.png")), 5):
            way = lab.draw.choice(["remove", "cut", "replace"])
            if way == "remove":
                file.unlink()
            elif way == "cut":
                os.truncate(file, 300)
            else:
                Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype="uint8")).save(file)
        if stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        ended = lab.wait(process, said)
        changed = lab.run(lab.finetune(out)) if stopped and (out / "images.csv").is_file() else None
        shutil.rmtree(lab.photos)
        saved.rename(lab.photos)
        fault = "" if stopped or ended.in_words else f"{ended}"
        if changed is not None and not changed.in_words:
            fault = f"{changed}"
        if not fault and ended.status == 0 and not stopped:
            shutil.rmtree(lab.cache, ignore_errors=True)  # finished on what it had read, or on what it then found
            yield "", 1
            continue
        yield fault or _again(lab, out), 1


def _again(lab: Lab, out: Path) -> str:
    """Go on with a run; one that began on other images says so, and is begun again."""
    ended = lab.run(lab.finetune(out))
    if ended.status and "images" in ended.said and ended.in_words:
        shutil.rmtree(out)
        ended = lab.run(lab.finetune(out))
    return f"{ended}" if ended.status else lab.difference(Run(out))


def output(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """Standard output is closed, full, or a pipe that nobody reads."""
    for number in range(rounds):
        out = lab.place()

        def change(way: int = number % 3) -> None:
            if way == 0:
                os.close(1)
                sys.stdout = None  # type: ignore[assignment]
            elif way == 1:
                os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
            else:
                ends = os.pipe()
                os.dup2(ends[1], 1)
                os.close(ends[0])
                os.close(ends[1])

        ended = lab.run(lab.finetune(out), change)
        right = ended.status == (1 if number % 3 == 1 else 0) and ("standard output" in ended.said) == (number % 3 == 1)
        yield (lab.difference(Run(out)) if right else f"{ended}"), 1


def clock(lab: Lab, rounds: int) -> Iterator[tuple[str, int]]:
    """The clock goes back by years between a run and its resumption, as files and Python see it."""
    for _ in range(rounds):
        out = lab.place()
        process, said = lab.start(lab.finetune(out))
        lab.moment()
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        lab.wait(process, said)
        for file in out.rglob("*"):
            os.utime(file, (4e9, 4e9))  # written in the future

        def back() -> None:
            now = time.time
            time.time = lambda: now() - 1e9

        ended = lab.run(lab.finetune(out), back)
        yield (f"{ended}" if ended.status else lab.difference(Run(out))), 1
