"""The benchmarks of a GPU: their code runs on a CPU with tiny inputs; nothing is timed that is asserted."""

from __future__ import annotations

import importlib
import json
import re
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from stochnorm.nn import stoch_norm

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Imports a module of benchmarks/, which is no package."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # which the benchmarks set themselves
    monkeypatch.syspath_prepend(BENCHMARKS)

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    return module


@pytest.fixture
def networks(load: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tiny networks with the names of the real ones, so that their goals are measured."""
    bare = load("gpu_bare")
    monkeypatch.setattr(bare, "TINY", dict.fromkeys(bare.CASES, bare.Case("test_resnet", 4, 32)))
    return list(bare.CASES)


@pytest.fixture
def result(load: Any, tmp_path: Path) -> Any:
    """Runs a benchmark; returns what its JSON file holds."""

    def run(script: str, *options: str) -> dict[str, Any]:
        out = tmp_path / "result.json"
        load(script).main(["--device", "cpu", "--tiny", "--out", str(out), *options])
        content: dict[str, Any] = json.loads(out.read_text())
        return content

    return run


def goals(load: Any, name: str, leave_out: str = "nothing") -> set[str]:
    return {aim.what for aim in load("gpu_goals").AIMS[name][1] if leave_out not in aim.what}


def measured(content: dict[str, Any]) -> set[str]:
    return {goal["what"] for goal in content["goals"]}


def column(content: dict[str, Any], name: str) -> list[str]:
    return [row[content["columns"].index(name)] for row in content["rows"]]


def test_the_layers_benchmark_measures_all_its_goals(load: Any, result: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load("gpu_layer"), "TINY", Counter({(2, 8, 4, 4): 52, (2, 16, 2, 2): 1}))
    monkeypatch.setattr(torch, "compile", lambda layer, **_: layer)
    content = result("gpu_layer", "--compile-seconds", "0.001")
    assert measured(content) == goals(load, "layer")
    assert len(content["details"]) == 4 * 2  # dtypes and formats, inputs
    assert {len(row) for row in content["details"]} == {len(content["detail_columns"])}
    assert {len(row) for row in content["rows"]} == {len(content["columns"])}
    times = Counter(zip(column(content, "layer"), column(content, "time"), strict=True))
    assert times["StochNorm", "device"] == times["StochNorm", "eager"] == times["host mask", "eager"] == 1
    assert not times["host mask", "device"]  # no graph can hold it


def test_the_steps_benchmark_compares_both_networks(load: Any, result: Any, networks: list[str]) -> None:
    content = result("gpu_step")
    assert measured(content) == goals(load, "step")
    assert column(content, "normalization") == list(load("gpu_bare").WAYS) * len(networks)
    for way, ratio in zip(column(content, "normalization"), column(content, "to BatchNorm"), strict=True):
        assert way != "BatchNorm" or ratio == "1.000"


def test_one_network_is_measured_under_the_compiler(
    load: Any, result: Any, networks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(torch, "compile", lambda model, **options: seen.append(options) or model)
    content = result("gpu_step", "--compile")
    assert measured(content) == goals(load, "step_compiled")
    assert seen == [{"fullgraph": True, "dynamic": False, "backend": "aot_eager"}] * 2


def test_the_methods_benchmark_measures_each_method(load: Any, result: Any, networks: list[str]) -> None:
    content = result("gpu_methods")
    assert measured(content) == goals(load, "methods")
    assert column(content, "method") == ["vanilla", *load("gpu_methods").METHODS] * len(networks)
    assert set(column(content, "CUDA graph")) == {"cpu has no CUDA graphs"}


def test_the_jobs_benchmark_measures_all_but_memory(
    load: Any, result: Any, networks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load("gpu_job"), "started", lambda: 1.0)
    content = result("gpu_job")
    assert measured(content) == goals(load, "job", leave_out="memory")
    assert column(content, "method") == ["vanilla", "stochnorm", "stochnorm", "stochnorm"]  # the short one is the third


@pytest.mark.usefixtures("warm_workers", "networks")
def test_the_grids_benchmark_does_its_runs(load: Any, result: Any) -> None:
    content = result("gpu_grid")
    assert measured(content) == goals(load, "grid")
    assert column(content, "runs") == ["2"]


def test_the_evaluations_benchmark_measures_validation_and_ten_crops(
    load: Any, result: Any, networks: list[str]
) -> None:
    content = result("gpu_evaluation")
    assert measured(content) == goals(load, "evaluation")
    assert column(content, "what") == ["validation", "ten crops"] * len(networks)


def test_a_method_that_fails_costs_no_other(
    load: Any, networks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods, out = load("gpu_methods"), tmp_path / "methods.json"
    works, calls = methods.work_of, iter(range(100))

    def second_fails(*arguments: Any) -> Any:
        if next(calls) == 1:
            raise RuntimeError("out of memory")
        return works(*arguments)

    monkeypatch.setattr(methods, "work_of", second_fails)
    with pytest.raises(SystemExit, match="out of memory"):
        methods.main(["--device", "cpu", "--tiny", "--out", str(out), "--methods", "bss", "l2sp"])
    content = json.loads(out.read_text())
    assert column(content, "method") == ["vanilla", "l2sp", "vanilla", "bss", "l2sp"]
    assert content["notes"].endswith(f"**Failed: {networks[0]}, bss** (out of memory).")


def test_a_result_says_if_the_kernels_did_not_run(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timing = load("gpu_timing")
    outcome = timing.Measured.of("layer", [], "How to read it.")
    monkeypatch.setattr(timing.trust, "_allowed", False)
    for _ in range(2):
        outcome.save(tmp_path / "layer.json")
    assert json.loads((tmp_path / "layer.json").read_text())["notes"].count("The Triton kernels did not run") == 1


def test_without_a_gpu_the_message_names_the_option_for_cpus(
    load: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        load("gpu_step").main([])
    assert "--device cpu --tiny" in capsys.readouterr().err


def test_a_tiny_result_does_not_get_onto_the_page(load: Any) -> None:
    timing = load("gpu_timing")
    args = timing.parse(timing.options("", "layer", 1.0), ["--device", "cpu", "--tiny"])
    assert load("measure").RESULTS not in args.out.parents


def test_on_a_gpu_a_captured_function_is_called_no_more_and_events_time_it(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing, calls, replays = load("gpu_timing"), [], []

    class Event:
        def record(self) -> None:
            self.at = len(replays)

        def synchronize(self) -> None: ...

        def elapsed_time(self, last: Event) -> float:
            return 4.0 * (last.at - self.at)  # milliseconds

    stream = SimpleNamespace(wait_stream=lambda _: None)
    fake = SimpleNamespace(
        Stream=lambda: stream,
        current_stream=lambda: stream,
        stream=lambda _: nullcontext(),
        graph=lambda _, stream: nullcontext(),
        CUDAGraph=lambda: SimpleNamespace(replay=lambda: replays.append(1)),
        Event=lambda enable_timing: Event(),
        synchronize=lambda: None,
    )
    monkeypatch.setattr(timing.torch, "cuda", fake)
    replay = timing.captured(lambda: calls.append(1), "cuda", warm_up=3)
    assert (len(calls), len(replays)) == (4, 0)  # the fourth was captured
    (found,) = timing.take_turns({"one": replay}, "cuda", rounds=3, calls=2).values()
    assert len(calls) == 4
    assert found.seconds == [0.004] * 3


def test_functions_take_turns_at_least_three_times(load: Any) -> None:
    calls: list[str] = []
    works = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    timings = load("gpu_timing").take_turns(works, "cpu", rounds=50, seconds=1e-9, calls=2)
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 3, "b": 3}
    assert Counter(calls) == {"a": 2 + 3 * 2, "b": 2 + 3 * 2}  # two calls before the rounds


def test_inputs_are_several_so_that_the_cache_holds_none(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(L2_cache_size=60)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    copies = load("gpu_timing").copies
    assert [copies(size, "cuda") for size in (1, 50, 179, 180, 1000)] == [16, 4, 2, 1, 1]


@pytest.mark.parametrize("rival", ["TwoBranchBlend", "HostMask", "Pieces"])
def test_what_the_layer_is_compared_with_computes_the_same(
    load: Any, monkeypatch: pytest.MonkeyPatch, rival: str
) -> None:
    module = load("gpu_contestants" if rival == "Pieces" else "blend")
    layer: nn.BatchNorm2d = getattr(module, rival)(4).double()
    mask = torch.tensor([True, False, False, True])
    monkeypatch.setattr(module.torch, "rand", lambda *_, **__: 1.0 - mask.double())
    monkeypatch.setattr("numpy.random.binomial", lambda *_: mask.numpy().astype(int).reshape(1, 4, 1, 1))
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    nn.init.normal_(layer.weight)
    layer.running_mean.normal_()
    weight, bias, mean, var = (
        t.detach().clone() for t in (layer.weight, layer.bias, layer.running_mean, layer.running_var)
    )
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    weight.requires_grad_()
    expected, new_mean, new_var = stoch_norm(ours, mean, var, weight, bias, use_batch=mask)
    output = layer(theirs)
    grad = torch.randn_like(x)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close((layer.running_mean, layer.running_var), (new_mean, new_var))
    found = torch.autograd.grad(output, [theirs, layer.weight], grad)
    torch.testing.assert_close(found, torch.autograd.grad(expected, [ours, weight], grad))


def test_a_part_that_hangs_or_fails_costs_no_other(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("gpu")
    monkeypatch.setattr(module.resource, "setrlimit", lambda *_: None)  # it would hold for the other tests, too
    parts = {
        "hangs": module.Part(["-c", "import time; time.sleep(100)"], 1),
        "fails": module.Part(["-c", "raise SystemExit(3)"], 60),
        "works": module.Part(["-c", "print('it ran')"], 60),
    }
    monkeypatch.setattr(module, "BENCHMARKS", parts)
    assert module.main(["--out", str(tmp_path)]) == 1
    log = (tmp_path / "log.txt").read_text()
    summary = log.partition("Summary")[2]
    assert "hangs: stopped at its time limit" in summary
    assert "fails: failed with status 3" in summary
    assert "works: done" in summary
    assert "time.sleep" not in summary and "it ran" in log
    assert "most recent call first" in log and "Extension modules" not in log  # where the one that hung was
    assert "tiny: figures" not in log


def test_tiny_figures_are_not_judged(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("gpu")
    monkeypatch.setattr(module.resource, "setrlimit", lambda *_: None)
    goal = {"what": "speed", "measured": "1", "goal": "at least 2", "met": False}
    code = f"import sys; open(sys.argv[sys.argv.index('--out') + 1], 'w').write({json.dumps({'goals': [goal]})!r})"
    monkeypatch.setattr(module, "BENCHMARKS", {"one": module.Part(["-c", code], 60)})
    said = {}
    for tiny in ([], ["--tiny"]):
        assert module.main(["--out", str(tmp_path), "--device", "cpu", *tiny]) == 0
        said[bool(tiny)] = (tmp_path / "log.txt").read_text().partition("Summary")[2]
    assert "NOT MET speed" in said[False]
    assert "NOT MET" not in said[True] and "tiny: figures mean nothing" in said[True]


def test_what_does_not_fit_into_the_time_is_left_out(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load("gpu").resource, "setrlimit", lambda *_: None)
    assert load("gpu").main(["layer", "--minutes", "0.1", "--out", str(tmp_path)]) == 1
    assert "layer: left out, no time was left" in (tmp_path / "log.txt").read_text()


def test_every_benchmark_has_its_goals_and_its_place_in_the_run(load: Any) -> None:
    aims, parts = load("gpu_goals").AIMS, load("gpu").BENCHMARKS
    assert aims.keys() == parts.keys()
    assert all(aim.limit > 0 for _, of_one in aims.values() for aim in of_one)


def test_all_that_stochnorm_needs_is_carried_or_comes_with_pytorch(load: Any) -> None:
    project = (BENCHMARKS.parent / "pyproject.toml").read_text()
    needed = re.findall(r'"(.+?)"', project.partition("\ndependencies = [")[2].partition("]")[0])
    carried = (BENCHMARKS / "gpu_wheels.txt").read_text().splitlines()
    there = {"torch", "torchvision", "timm", "safetensors", "numpy", "scipy", "matplotlib", "pillow"}
    assert {line for line in needed if re.split("[>=]", line)[0] not in there} <= set(carried)


def test_what_is_neither_there_nor_carried_is_named_before_anything_is_made(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load("gpu_environment")
    assert module.missing() == []
    names = ("numpy", "scipy", "Matplotlib", "timm", "torchvision", "safetensors", "Pillow")
    there = [SimpleNamespace(name=name) for name in names]
    monkeypatch.setattr(module.metadata, "distributions", lambda **_: there)
    assert [re.split("[>=]", line)[0] for line in module.missing()] == ["torch"]
    monkeypatch.setattr("sys.argv", ["gpu_environment.py", str(tmp_path / "new"), "--wheels", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^not installed: torch>=2\.9,<3: run this with the Python that has PyTorch"):
        module.main()
    assert not (tmp_path / "new").exists()
