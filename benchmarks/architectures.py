"""Convert, train and restore every architecture of timm and torchvision that holds BatchNorm, with random weights.

    python benchmarks/architectures.py                      # all, smallest first; rerun to resume
    python benchmarks/architectures.py --names 'timm/resnet*' --again
    python benchmarks/architectures.py --summary            # of what the file holds; runs nothing

Each architecture takes the checks below, which tests/nn/test_architectures.py runs on a sample:

- build: the plain model trains at a size of LADDER; the first one is used (64 pixels leave 2 x 2 maps at stride 32).
- convert: all BatchNorm layers with moving statistics change their class, and nothing else about the model changes.
- train: in one SGD step exactly the layers that the plain model's forward pass uses mix batch and moving statistics
  and move their means; gradients are finite.
- restore: classes and attributes are the original ones, eval outputs bit for bit those of the converted model.

Detectors with random weights hold BatchNorm; pre-trained, most hold FrozenBatchNorm2d, which convert leaves alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import resource
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatch
from inspect import signature
from pathlib import Path
from typing import Any
from unittest import mock

import timm
import torch
import torchvision
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import stochnorm.nn.stochastic
from stochnorm.nn import convert, restore
from stochnorm.nn.select import has_moving_statistics

LADDER = (64, 96, 128, 160, 192, 224, 256, 288, 299, 320, 384, 448, 512)
STAGES = ("build", "convert", "train", "restore")


def architectures() -> list[str]:
    return [f"timm/{n}" for n in timm.list_models()] + [f"torchvision/{n}" for n in torchvision.models.list_models()]


def build(name: str) -> nn.Module:
    """The model with random weights and few classes; one that is made for a large fixed size, for 224 if it can be."""
    library, name = name.split("/")
    if library == "timm":
        cfg = timm.get_pretrained_cfg(name)
        if cfg and cfg.fixed_input_size and cfg.input_size[-1] > 256:
            try:
                return timm.create_model(name, num_classes=10, img_size=224)
            except TypeError:
                pass
        return timm.create_model(name, num_classes=10)
    builder = torchvision.models.get_model_builder(name)
    options: dict[str, Any] = {} if "raft" in name else {"num_classes": 3}
    if "weights_backbone" in signature(builder).parameters:
        options["weights_backbone"] = None
    if ".detection." in builder.__module__:  # keep boxes of any score, so that eval returns some
        options |= {"box_score_thresh" if "rcnn" in name else "score_thresh": 0.0}
        options |= {} if "ssd" in name else {"min_size": 128, "max_size": 128}
        options |= {"box_batch_size_per_image": 16, "box_detections_per_img": 5} if "rcnn" in name else {}
    return builder(weights=None, **options)


def make_inputs(model: nn.Module, size: int, seed: int) -> tuple[Any, ...]:
    """A random batch of two as the model's forward pass takes it in training; a detector's ends with the targets."""
    generator = torch.Generator().manual_seed(seed)
    channels = getattr(model, "pretrained_cfg", {}).get("input_size", (3,))[0]
    module = type(model).__module__
    if ".detection." in module:
        target = {
            "boxes": torch.tensor([[8.0, 8.0, size / 2, size / 2]]),
            "labels": torch.tensor([1]),
            "masks": torch.ones(1, size, size, dtype=torch.uint8),
            "keypoints": torch.tensor([16.0, 16.0, 1.0]).expand(1, 17, 3),
        }
        return list(torch.rand(2, channels, size, size, generator=generator)), [target, target]
    frames = (16,) if ".video." in module else ()
    images = torch.randn(2, channels, *frames, size, size, generator=generator)
    return (images, images.flip(-1)) if ".optical_flow." in module else (images,)


def tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in nested dicts, lists and (named) tuples."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (dict, list, tuple)):
        for item in output.values() if isinstance(output, dict) else output:
            yield from tensors(item)


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The layers with moving statistics, BatchNorm or StochNorm."""
    return {n: m for n, m in model.named_modules() if has_moving_statistics(m)}


def expect(condition: bool, reason: str) -> None:
    if not condition:
        raise AssertionError(reason)


def prepare(name: str) -> tuple[nn.Module, int, set[str]]:
    """The plain model, its input size and the names of the BatchNorm layers that its forward pass uses.

    The moving statistics become the mean of the initial ones and those of random images, in place of pre-trained ones.
    """
    torch.manual_seed(0)
    model = build(name).train()
    layers = batch_norms(model)
    momentum = {layer: layer.momentum for layer in layers.values()}
    used: set[str] = set()
    hooks = [m.register_forward_pre_hook(lambda *_, n=n: used.add(n)) for n, m in layers.items()]
    for size in LADDER:
        used.clear()
        for layer in momentum:
            layer.reset_running_stats()
            layer.momentum = 0.5
        try:
            with torch.no_grad():
                model(*make_inputs(model, size, seed=0))
            break
        except Exception as error:
            last = f"{type(error).__name__}: {error}"
    else:
        raise RuntimeError(f"the plain model trains at no input size; at {size}: {last}")
    for hook in hooks:
        hook.remove()
    for layer, value in momentum.items():
        layer.momentum = value
    return model, size, used


def check_convert(model: nn.Module) -> None:
    def facts() -> dict[str, Any]:
        parts = [*model.modules(), *model.parameters(), *model.buffers()]
        return {
            "modules, parameters or buffers": [*map(id, parts)],
            "requires_grad": [t.requires_grad for t in model.parameters()],
            "classes besides BatchNorm": [type(m) for m in model.modules() if m not in layers],
            "state-dict keys": list(model.state_dict()),
        }

    layers = set(batch_norms(model).values())
    before = facts()
    convert(model, p=0.5)
    left = [n for n, m in batch_norms(model).items() if not type(m).__name__.startswith("StochNorm")]
    expect(not left, f"{len(left)} of {len(layers)} layers not converted, such as {left[:1]}")
    expect(set(batch_norms(model).values()) == layers, "other BatchNorm layers than before")
    after = facts()
    expect(after == before, f"not as before: {[fact for fact in before if after[fact] != before[fact]]}")


def training_step(model: nn.Module, size: int) -> list[str]:
    """One SGD step on the mean squares of what the model returns; the parameters whose gradient is not finite."""
    torch.manual_seed(1)
    outputs = model.train()(*make_inputs(model, size, seed=1))
    sum(t.square().mean() for t in tensors(outputs) if t.requires_grad).backward()
    grads = {n: t.grad for n, t in model.named_parameters() if t.grad is not None}
    torch.optim.SGD(model.parameters(), lr=1e-4).step()
    return [n for n, grad in grads.items() if not grad.isfinite().all()]


def check_train(name: str, model: nn.Module, size: int, used: set[str]) -> list[str]:
    """Returns notes."""
    drawn: dict[int, list[Tensor]] = {}
    stoch_norm_ = stochnorm.nn.stochastic.stoch_norm_

    def recording(input: Tensor, running_mean: Tensor, *args: Any, use_batch: Tensor, **kwargs: Any) -> Any:
        drawn.setdefault(id(running_mean), []).append(use_batch)
        return stoch_norm_(input, running_mean, *args, use_batch=use_batch, **kwargs)

    layers = batch_norms(model)
    means = {n: m.running_mean.clone() for n, m in layers.items()}
    expect(bool(used), "the forward pass uses no BatchNorm")
    with mock.patch.object(stochnorm.nn.stochastic, "stoch_norm_", recording):
        bad = training_step(model, size)
    active = {n for n, m in layers.items() if id(m.running_mean) in drawn}
    expect(active == used, f"stochastic in {len(active)} layers, used are {len(used)}: {sorted(active ^ used)[:3]}")
    for n in active:
        use_batch = torch.cat(drawn[id(layers[n].running_mean)])  # of 32 channels, some of either kind
        expect(use_batch.numel() < 32 or 0 < use_batch.sum() < use_batch.numel(), f"one kind of statistics in {n}")
    moved = {n for n, m in layers.items() if not torch.equal(m.running_mean, means[n])}
    expect(moved == used, f"means moved in {len(moved)} layers, used are {len(used)}: {sorted(moved ^ used)[:3]}")
    if not bad:
        return []
    plain, *_ = prepare(name)
    expect(bool(training_step(plain, size)), f"gradients not finite where those of BatchNorm are: {bad[:3]}")
    return ["gradients not finite, nor with BatchNorm"]


@torch.no_grad()
def check_restore(model: nn.Module, size: int, classes: dict[str, type], attributes: dict[str, set[str]]) -> list[str]:
    """Returns notes."""

    def evaluate() -> list[Tensor]:
        torch.manual_seed(2)
        inputs = make_inputs(model, size, seed=2)
        return list(tensors(model(inputs[0]) if isinstance(inputs[0], list) else model(*inputs)))

    def as_bytes(tensor: Tensor) -> Tensor:  # so that not even a NaN or the sign of a zero may differ
        return tensor.flatten().view(torch.uint8)

    model.eval()
    converted = evaluate()
    restore(model)
    restored = evaluate()
    expect({n: type(m) for n, m in model.named_modules()} == classes, "not the original classes")
    left = [n for n, m in model.named_modules() if set(vars(m)) != attributes[n]]
    expect(not left, f"not the original attributes in {left[:3]}")
    expect(any(tensor.numel() for tensor in restored), "eval returned nothing")
    expect([t.shape for t in converted] == [t.shape for t in restored], "other shapes of the eval output")
    expect(all(map(torch.equal, map(as_bytes, converted), map(as_bytes, restored))), "other eval output")
    return [] if all(tensor.isfinite().all() for tensor in converted) else ["eval output not finite"]


def check(name: str) -> dict[str, Any]:
    """Return the result of each stage: "ok", or the reason of a failure, after which no stage runs."""
    start, stages, notes = time.perf_counter(), iter(STAGES), []
    record: dict[str, Any] = {"name": name}
    stage = next(stages)
    try:
        model, size, used = prepare(name)
        record |= {stage: "ok", "size": size, "used": len(used)}
        classes = {n: type(m) for n, m in model.named_modules()}
        attributes = {n: set(vars(m)) for n, m in model.named_modules()}
        stage = next(stages)
        check_convert(model)
        record[stage], stage = "ok", next(stages)
        notes += check_train(name, model, size, used)
        record[stage], stage = "ok", next(stages)
        notes += check_restore(model, size, classes, attributes)
        record[stage] = "ok"
    except Exception as error:
        record[stage] = f"{type(error).__name__}: {error}"[:500]
    return record | {"notes": notes, "seconds": round(time.perf_counter() - start, 1)}


def survey(name: str) -> dict[str, Any]:
    """Return the contents of the model, without memory for its weights if its constructor allows it."""
    try:
        with torch.device("meta"):
            model = build(name)
    except Exception:
        model = build(name)
    kinds = [type(m).__name__ for m in batch_norms(model).values()]
    frozen = sum(type(m).__name__.startswith("FrozenBatchNorm") for m in model.modules())
    parameters = sum(t.numel() for t in model.parameters())
    return {"name": name, "parameters": parameters, "layers": len(kinds), "kinds": sorted({*kinds}), "frozen": frozen}


def failure(record: dict[str, Any]) -> str | None:
    """Why a survey or a check failed, or None."""
    stages = () if "layers" in record else STAGES
    reasons = (f"{stage}: {record.get(stage)}" for stage in stages if record.get(stage) != "ok")
    return record.get("died") or next(reasons, None)


def start_worker(memory: int) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))  # an allocation fails, instead of the machine


class Worker(threading.local):
    """A worker process for each thread, replaced after a crash or a time-out (which a crash ends in)."""

    def __init__(self, memory: int, limit: float) -> None:
        self.memory, self.limit, self.pool = memory, limit, None

    def ask(self, task: Callable[[str], dict[str, Any]], name: str) -> dict[str, Any]:
        self.pool = self.pool or multiprocessing.get_context("spawn").Pool(1, start_worker, (self.memory,))
        try:
            return self.pool.apply_async(task, (name,)).get(self.limit)
        except Exception as error:
            self.pool.terminate()
            self.pool = None
            timed_out = isinstance(error, multiprocessing.TimeoutError)
            reason = f"no answer in {self.limit:.0f} s" if timed_out else f"{type(error).__name__}: {error}"[:500]
            return {"name": name, "died": reason} | ({"layers": None} if task is survey else {})


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The surveys and the checks in a file, by name; a later line replaces an earlier one."""
    surveys: dict[str, Any] = {}
    checks: dict[str, Any] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        record = json.loads(line)
        (surveys if "layers" in record else checks)[record["name"]] = record
    return surveys, checks


def print_summary(path: Path) -> None:
    surveys, checks = read(path)
    columns: list[dict[str, int]] = []
    for library in ("timm", "torchvision", ""):
        names = [n for n in architectures() if n.startswith(library)]
        known = [surveys[n] for n in names if n in surveys]
        done = [checks[n] for n in names if n in checks]
        frozen = [r for r in known if r["layers"] == 0 and r["frozen"]]
        column = {"listed": len(names), "surveyed": len(known), "with BatchNorm": sum(bool(r["layers"]) for r in known)}
        column |= {"only frozen": len(frozen), "neither": sum(r["layers"] == 0 for r in known) - len(frozen)}
        column |= {f"{stage} ok": sum(r.get(stage) == "ok" for r in done) for stage in STAGES}
        columns.append(column | {"failed": sum(failure(r) is not None for r in (*known, *done))})
    table = Table("", *(Column(c, justify="right") for c in ("timm", "torchvision", "both")))
    for row in columns[0]:
        table.add_row(row, *(str(column[row]) for column in columns))
    console = Console(highlight=False, markup=False)
    console.print(table)
    for record in sorted([*surveys.values(), *checks.values()], key=lambda r: r["name"]):
        for line in [*([f"FAILED: {failure(record)}"] if failure(record) else []), *record.get("notes", [])]:
            console.print(f"{record['name']}: {line}")
    unused = [surveys[n]["layers"] - r["used"] for n, r in checks.items() if "used" in r]
    console.print(f"{sum(unused)} layers stand outside their model's forward pass, in {sum(map(bool, unused))} models")
    console.print(f"{sum(r.get('seconds', 0) for r in checks.values()) / 60:.0f} minutes for {len(checks)} checks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/architectures.jsonl"), help="results, one a line")
    parser.add_argument("--names", default="*", help="pattern such as 'timm/resnet*'")
    parser.add_argument("--again", action="store_true", help="repeat the failed checks")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes of one thread each")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds for one architecture")
    parser.add_argument("--summary", action="store_true", help="only print what the file holds")
    args = parser.parse_args()

    def run(task: Callable[[str], dict[str, Any]], names: list[str], known: dict[str, Any]) -> None:
        todo = [n for n in names if n not in known or (args.again and failure(known[n]))]
        pool = ThreadPoolExecutor(args.jobs)
        try:
            with args.out.open("a") as out:
                for i, future in enumerate(as_completed([pool.submit(worker.ask, task, n) for n in todo]), 1):
                    record = future.result()
                    out.write(json.dumps(record) + "\n")
                    out.flush()
                    print(
                        f"{task.__name__} {i} of {len(todo)}: {record['name']}: {failure(record) or 'ok'}", flush=True
                    )
        finally:
            pool.shutdown(cancel_futures=True)

    if not args.summary:
        memory = int(0.9 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / args.jobs)
        worker = Worker(memory, args.limit)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        names = [n for n in architectures() if fnmatch(n, args.names)]
        run(survey, names, read(args.out)[0])
        surveys, checks = read(args.out)
        run(check, sorted((n for n in names if surveys[n]["layers"]), key=lambda n: surveys[n]["parameters"]), checks)
    print_summary(args.out)


if __name__ == "__main__":
    main()
