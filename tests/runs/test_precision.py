"""The meaning of precision auto: measured once, kept, and the same in all processes."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from processes import torchrun
from stochnorm.runs import precision
from stochnorm.runs.hardware import launch, precision_of
from stochnorm.runs.precision import Precision, choice, measure, resolve, resolve_unmeasured

DENSE = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, groups=2))
DEPTHWISE = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8))
TIMES = {"dense": (20.0, 10.0), "depthwise": (9.0, 10.0)}

Forget = Callable[[], None]


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Forget:
    """Begin with an empty cache, on an x86 CPU with bfloat16; the function makes the process forget the times."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(precision, "_in_process", {})
    return lambda: monkeypatch.setattr(precision, "_in_process", {})


@pytest.fixture
def measured(forget: Forget, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Times that are given, and the kinds that were asked for."""
    kinds: list[str] = []
    monkeypatch.setattr(precision, "measure", lambda kind: (kinds.append(kind), TIMES[kind])[1])
    return kinds


@pytest.mark.parametrize(
    ("bf16", "fp32", "chosen"),
    [(10.0, 20.0, "bf16"), (10.0, 10.0, "bf16"), (11.0, 10.0, "bf16"), (11.01, 10.0, "32"), (20.0, 10.0, "32")],
)
def test_bfloat16_is_chosen_up_to_a_tenth_more_time(bf16: float, fp32: float, chosen: str) -> None:
    assert choice(bf16, fp32) == chosen


@pytest.mark.parametrize(
    ("model", "kind", "chosen"), [(DENSE, "dense", "32"), (None, "dense", "32"), (DEPTHWISE, "depthwise", "bf16")]
)
def test_auto_times_convolutions_of_the_networks_kind(
    measured: list[str], model: nn.Module | None, kind: str, chosen: str
) -> None:
    bf16, fp32 = TIMES[kind]
    facts = {"kind": kind, "bf16_ms": bf16, "fp32_ms": fp32, "chosen": chosen}
    assert resolve("cpu", "auto", model) == Precision(chosen, facts)
    assert measured == [kind]


def test_what_is_asked_for_is_not_measured(measured: list[str]) -> None:
    assert [resolve("cpu", name, DENSE) for name in ("bf16", "32")] == [Precision("bf16"), Precision("32")]
    assert precision_of(launch("cpu", "bf16", DENSE)) == "bf16-mixed"
    assert precision_of(launch("cpu", "32", DEPTHWISE)) == "32-true"
    assert not measured


def test_where_there_is_no_bfloat16_nothing_is_measured(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("mps", "auto", DEPTHWISE) == Precision("32")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert resolve("cpu", "auto", DEPTHWISE) == Precision("32")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert resolve("cpu", "auto", DEPTHWISE) == Precision("32")
    assert not measured


def test_a_launch_takes_what_was_chosen(measured: list[str]) -> None:
    assert [precision_of(launch("cpu", "auto", model)) for model in (DENSE, DEPTHWISE)] == ["32-true", "bf16-mixed"]
    assert measured == ["dense", "depthwise"]


def test_the_times_are_kept_by_processor_and_versions(
    measured: list[str], forget: Forget, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = resolve("cpu", "auto", DENSE)
    forget()
    assert resolve("cpu", "auto", DENSE) == first
    assert measured == ["dense"]
    for changed in (("another processor", "flags"), ("processor", "other flags")):
        monkeypatch.setattr(precision, "_processor", lambda changed=changed: changed)
        resolve("cpu", "auto", DENSE)
    assert measured == ["dense"] * 3
    monkeypatch.setattr(torch, "__version__", "99.0")
    resolve("cpu", "auto", DENSE)
    assert measured == ["dense"] * 4


@pytest.mark.parametrize(
    "damage",
    [
        *("", "{", "[]", "null", "{}", "\xff", "[" * 100_000),
        '{"bf16_ms": "fast", "fp32_ms": 1}',
        '{"bf16_ms": 0, "fp32_ms": 1}',
        '{"bf16_ms": Infinity, "fp32_ms": 1}',
        f'{{"bf16_ms": 1{"0" * 400}, "fp32_ms": 1}}',
    ],
    ids=range(11),
)
def test_a_damaged_file_costs_a_measurement(measured: list[str], forget: Forget, tmp_path: Path, damage: str) -> None:
    resolve("cpu", "auto", DENSE)
    (file,) = (tmp_path / "stochnorm/precision").glob("*.json")
    file.write_bytes(damage.encode("latin-1"))
    forget()
    assert resolve("cpu", "auto", DENSE).name == "32"
    assert measured == ["dense", "dense"]
    found = json.loads(file.read_text())
    assert (found["bf16_ms"], found["fp32_ms"]) == TIMES["dense"]


def test_without_a_cache_a_process_measures_once(
    measured: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert resolve("cpu", "auto", DENSE) == resolve("cpu", "auto", DENSE)
    assert measured == ["dense"]


def test_without_a_home_directory_a_process_measures_once(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(name: str) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(precision, "cache_directory", homeless)
    assert resolve("cpu", "auto", DENSE) == resolve("cpu", "auto", DENSE)
    assert measured == ["dense"]


def test_earlier_runs_keep_the_precision_of_the_flags(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert [resolve_unmeasured("cpu", "auto", net).name for net in (DENSE, DEPTHWISE)] == ["32", "bf16"]
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert resolve_unmeasured("cpu", "auto", DENSE).name == "bf16"
    assert resolve_unmeasured("cpu", "32", DEPTHWISE).name == "32"
    assert not measured


@pytest.mark.parametrize("kind", ["dense", "depthwise"])
def test_a_measurement_leaves_no_trace(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_SECONDS", 0.0)
    monkeypatch.setattr(precision, "_ROUNDS", 1)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    assert all(time > 0 for time in measure(kind))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


_PROCESS = """
import os, platform, sys, time
import torch
from stochnorm.runs import precision
from stochnorm.runs.hardware import launch, precision_of

def measure(kind):
    time.sleep(0.3)
    return float(os.getpid()), 1e9 if os.environ.get("RANK", "0") == "0" else 1e-9

precision.measure = measure
platform.machine = lambda: "x86_64"
torch.cpu._is_avx512_bf16_supported = lambda: True
"""


def test_processes_that_measure_at_once_agree() -> None:
    code = _PROCESS + "print('ready', flush=True); input(); print(precision.resolve('cpu', 'auto').measured)"
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.stdout.readline() for process in started if process.stdout] == ["ready\n"] * 2
    for process in started:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    first, second = (process.communicate(timeout=100)[0] for process in started)
    assert "bf16_ms" in first
    assert first == second


def test_all_processes_of_a_run_take_the_precision_of_the_first(tmp_path: Path) -> None:
    """Each process has its own cache and its own times, as on two machines."""
    script = tmp_path / "script.py"
    own = f"os.environ['XDG_CACHE_HOME'] = '{tmp_path}/' + os.environ['RANK']\n"
    show = "name = precision.resolve('cpu', 'auto').name\nprint('own', name, precision_of(launch('cpu', 'auto')))\n"
    script.write_text(_PROCESS + own + show)
    printed = torchrun(script)
    assert sorted(printed.split("\n")) == ["", "own 32 bf16-mixed", "own bf16 bf16-mixed"]
