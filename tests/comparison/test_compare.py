"""Comparisons: only what is missing is done, and nothing that happens to the processes changes what comes out."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import warm
from stochnorm import FinetuneConfig, Grid, Record, Variant, compare, read_records
from stochnorm.comparison.tune import tune_variants
from stochnorm.files import write_text
from stochnorm.runs.directory import Run, RunInUseError
from stochnorm.runs.records import write_records

MakeGrid = Callable[..., Grid]
VANILLA, STOCHNORM = Variant("vanilla", {"method": "vanilla"}), Variant("ours", {"method": "stochnorm", "p": 0.3})
TOO_LARGE = Variant("too large", {"method": "vanilla", "batch_size": 1000})


@pytest.fixture
def tiny(tiny: dict[str, Any]) -> dict[str, Any]:
    return tiny | {"steps": 6, "eval_every": 2}


@pytest.fixture
def grid(config: Callable[..., FinetuneConfig]) -> MakeGrid:
    def make(data: Path, *variants: Variant, repeats: int = 2, **options: Any) -> Grid:
        return Grid(config(data, **options), variants or (VANILLA, STOCHNORM), repeats=repeats)

    return make


def outcome(record: Record) -> dict[str, Any]:
    """Return the parts that do not depend on the clock."""
    content = dict(vars(record))
    del content["cost"]
    return content


pytestmark = pytest.mark.usefixtures("warm_workers")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_a_grid_gives_a_record_a_run_and_is_not_repeated(photos: Path, tmp_path: Path, grid: MakeGrid) -> None:
    out = tmp_path / "out"
    first = compare(grid(photos), out, workers=2, quiet=True)
    assert not first.failures
    assert [record.variant for record in first.records] == ["vanilla", "ours"] * 2
    assert [record.settings["p"] for record in first.records] == [0.5, 0.3] * 2
    by_repeat = [first.records[i].repeat for i in range(4)]
    assert by_repeat[0] == by_repeat[1] != by_repeat[2] == by_repeat[3]
    splits = [(out / record.run / "split.csv").read_text() for record in first.records]
    assert splits[0] == splits[1] != splits[2] == splits[3]
    assert all(record.cost["peak_memory_gigabytes"] for record in first.records)

    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.json*")}
    more = compare(grid(photos, repeats=3), out, workers=2, quiet=True)
    assert more.records[:4] == first.records
    assert len(more.records) == 6
    changed = {path.name for path, stamp in times.items() if path.stat().st_mtime_ns != stamp}
    assert changed == {"labels.json"}
    found = {record.run: record for record in read_records([out])}
    assert found == {str(out / record.run): replace(record, run=str(out / record.run)) for record in more.records}
    (out / "labels.json").write_text("{half")
    with pytest.raises(ValueError, match=r"labels.json is damaged .*; rerun the same comparison"):
        read_records([out])
    compare(grid(photos, repeats=3), out, quiet=True)
    assert read_records([out]) == list(found.values())
    write_records(out / "records.jsonl", more.records)
    assert read_records([out / "records.jsonl"]) == more.records


def test_a_failed_run_stops_no_other_and_is_tried_again(photos: Path, tmp_path: Path, grid: MakeGrid) -> None:
    comparison = compare(grid(photos, VANILLA, TOO_LARGE, repeats=1), tmp_path / "out", workers=1, quiet=True)
    assert [record.variant for record in comparison.records] == ["vanilla"]
    (failure,) = comparison.failures
    assert failure.variant == "too large"
    assert failure.reason.startswith("batch_size 1000 is larger than the 18 training images")
    run = Run(tmp_path / "out" / failure.run)
    assert run.state == "failed"
    assert "Traceback" in json.loads(run.failure.read_text())["traceback"]

    # The cause is gone: the same call finishes the run, and the failure is forgotten.
    mended = grid(photos, VANILLA, repeats=1)
    (missing,) = mended.runs()
    directory = Run(mended.directory(missing, tmp_path / "out2"))
    directory.path.mkdir(parents=True)
    write_text(directory.failure, json.dumps({"reason": "disk full", "traceback": ""}))
    again = compare(mended, tmp_path / "out2", workers=1, quiet=True)
    assert not again.failures
    assert outcome(again.records[0]) == outcome(comparison.records[0])
    assert directory.state == "done"
    assert not directory.failure.exists()


def test_a_run_that_another_process_holds_is_waited_for(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grid: MakeGrid
) -> None:
    one = grid(photos, VANILLA, repeats=1)
    (run,) = one.runs()
    directory = Run(one.directory(run, tmp_path))
    code = (
        "from pathlib import Path; from stochnorm.runs.directory import Run\n"
        f"with Run(Path({str(directory.path)!r})).held():\n    print('held', flush=True); input()"
    )
    holder = warm.Popen([sys.executable, "-c", code], stdin=warm.PIPE, stdout=warm.PIPE)
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert directory.state == "running"
    with pytest.raises(RunInUseError, match="another process works on"), directory.held():
        pass
    waits = []

    def sleep(seconds: float) -> None:  # as long as there is nothing to do but the held run
        waits.append(seconds)
        if len(waits) == 1:
            assert holder.poll() is None
            print(file=holder.stdin, flush=True)
        time.sleep(seconds)

    monkeypatch.setattr("stochnorm.comparison.queue.time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    monkeypatch.setattr("stochnorm.comparison.queue._PATIENCE", 0.5)
    assert len(compare(one, tmp_path, workers=1, quiet=True).records) == 1
    assert waits
    assert holder.wait(60) == 0
    holder.stdin.close()
    holder.stdout.close()
    assert directory.state == "done"


def test_wrong_data_are_said_once_before_anything_runs(tmp_path: Path, grid: MakeGrid) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        compare(grid(Path("nowhere")), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_hyper_parameters_are_chosen_on_validation_with_the_same_budget(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grid: MakeGrid
) -> None:
    bss = Variant("bss", {"method": "bss"})
    tuned = tune_variants(grid(photos, VANILLA, bss, repeats=2), tmp_path, trials=3, workers=2, quiet=True)
    searches = sorted((tmp_path / "tune").glob("*/trials.csv"))
    assert len(searches) == 2
    assert all(len(path.read_text().splitlines()) == 1 + 3 for path in searches)
    assert not list((tmp_path / "tune").rglob("test_predictions.csv"))
    for variant, path in zip(tuned.variants, ("photos-vanilla-*", "photos-bss-*"), strict=True):
        (file,) = (tmp_path / "tune").glob(f"{path}/chosen.json")
        chosen = FinetuneConfig.load(file)
        assert variant.settings["lr"] == chosen.lr
        assert variant.settings.get("bss.eta") == (chosen.bss.eta if chosen.method == "bss" else None)


def test_ctrl_c_lets_running_ones_write_checkpoints(photos: Path, tmp_path: Path, tiny_options: list[str]) -> None:
    command = [
        sys.executable,
        "-m",
        "stochnorm",
        "compare",
        str(photos),
        *tiny_options[:-1],
        "--steps=4000",
        "--no-probe",
    ]
    command += ["--workers=1", "--threads=1"]
    process = subprocess.Popen(
        [*command, f"--out={tmp_path / 'out'}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "out").glob("runs/*/metrics.jsonl")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "stopping: running jobs write their checkpoints" in output
    assert errors.startswith("stopped after 0 of 6 runs; no work is lost\nresume with: stochnorm compare ")
    (checkpoint,) = (tmp_path / "out").glob("runs/*/checkpoint.pt")
    assert Run(checkpoint.parent).state == "stopped"


def test_what_runs_warn_of_is_said_once(photos: Path, tmp_path: Path, grid: MakeGrid) -> None:
    (photos / "red/000.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="skipped 1 of 30 images") as caught:
        comparison = compare(grid(photos), tmp_path, workers=2, quiet=True)
    assert len(comparison.records) == 4
    assert len(caught) == 1


def test_runs_span_processes(photos: Path, tmp_path: Path, grid: MakeGrid) -> None:
    comparison = compare(grid(photos, repeats=1), tmp_path, workers=1, threads=1, processes=2, quiet=True)
    assert not comparison.failures
    assert [record.environment["processes"] for record in comparison.records] == [2, 2]
    assert not list((tmp_path / "runs").glob(".*.json"))


def test_a_failure_of_a_run_that_spans_processes_has_its_reason(photos: Path, tmp_path: Path, grid: MakeGrid) -> None:
    odd = Variant("odd", {"method": "vanilla", "batch_size": 7})
    comparison = compare(grid(photos, odd, repeats=1), tmp_path, workers=1, threads=1, processes=2, quiet=True)
    assert "batch_size 7 is not a multiple of the 2 processes" in comparison.failures[0].reason


def test_ray_does_the_same_runs(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grid: MakeGrid) -> None:
    """On a Ray instance of this machine, with two workers."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        ours = compare(
            grid(photos, VANILLA, TOO_LARGE), tmp_path / "ray", executor_name="ray", workers=2, threads=1, quiet=True
        )
    assert {failure.reason.partition(" ")[0] for failure in ours.failures} == {"batch_size"}
    local = compare(grid(photos, VANILLA), tmp_path / "local", workers=2, threads=1, quiet=True)
    assert [outcome(r) for r in ours.records] == [outcome(r) for r in local.records]
    assert len(ours.records) == 2


def test_nothing_that_kills_the_processes_changes_the_records(
    photos: Path, tmp_path: Path, grid: MakeGrid, tiny: dict[str, Any]
) -> None:
    """SIGKILL to all processes at 20 random moments, and the same records as without."""
    options = {"steps": 60, "eval_every": 3}
    undisturbed = compare(grid(photos, **options), tmp_path / "whole", workers=2, threads=1, quiet=True)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import stochnorm.comparison.executors.local, warm; stochnorm.comparison.executors.local.subprocess = warm\n"
        "from tests_grid import grid; from stochnorm import compare; from pathlib import Path\n"
        "compare(grid, Path(sys.argv[1]), workers=2, threads=1, quiet=True)\n"
    )
    module = (
        "from stochnorm import FinetuneConfig, Grid, Variant\n"
        f"base = FinetuneConfig({str(photos)!r}, **{tiny | options!r})\n"
        f"grid = Grid(base, {(VANILLA, STOCHNORM)!r}, repeats=2)\n"
    )
    (tmp_path / "tests_grid.py").write_text(module)
    moments = random.Random(0)  # noqa: S311 (no secret)
    kills = 0
    for _ in range(20):
        command = [sys.executable, "-c", code, str(tmp_path / "killed")]
        process = warm.Popen(command, start_new_session=True)
        try:
            assert process.wait(timeout=moments.uniform(0.1, 1)) == 0
        except subprocess.TimeoutExpired:
            kills += 1
        for pid in _descendants(process.pid):
            with suppress(ProcessLookupError):  # it ended by itself
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()
        for file in (tmp_path / "killed").rglob("[!.]*.json*"):  # whole at any moment
            text = file.read_text()
            for part in text.splitlines() if file.suffix == ".jsonl" else [text]:
                json.loads(part)
    assert kills >= 5
    survived = compare(grid(photos, **options), tmp_path / "killed", workers=2, threads=1, quiet=True)
    assert [outcome(r) for r in survived.records] == [outcome(r) for r in undisturbed.records]
    assert not list((tmp_path / "killed/runs").glob("*/.*-????????.*")), "halves of files are cleared up"


def _descendants(pid: int) -> list[int]:
    command = ["pgrep", "-P", str(pid)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout.split()
    return [child for text in found for child in (int(text), *_descendants(int(text)))]
