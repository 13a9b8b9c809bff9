"""What PyTorch's own tests give BatchNorm, as the wheel has them: StochNorm at p = 1, and in eval mode at every p."""

from __future__ import annotations

import copy
import inspect
import pickle
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stochnorm.nn import StochNorm1d, StochNorm2d, StochNorm3d, convert, stoch_norm

OURS = {nn.BatchNorm1d: StochNorm1d, nn.BatchNorm2d: StochNorm2d, nn.BatchNorm3d: StochNorm3d}
internal = pytest.mark.filterwarnings("ignore")  # of the modules that only PyTorch's tests import


def imported(name: str) -> Any:
    return pytest.importorskip(f"torch.testing._internal.{name}", reason="needs expecttest", exc_type=ImportError)


def said(capsys: pytest.CaptureFixture[str], *counts: str) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n{', '.join(counts)} ")


def run(layer: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    """Output, gradients and buffers."""
    leaves = [each.detach().clone().requires_grad_() for each in inputs]
    output = layer(*leaves)
    wanted = [*leaves, *layer.parameters()]
    grads = torch.autograd.grad(output.sin().sum(), wanted, allow_unused=True)
    return [output, *(grad for grad in grads if grad is not None), *layer.buffers()]


def outcome(kind: Any, arguments: Any, taken: Any, training: bool) -> tuple[type, str] | None:
    """The error of a layer; None if there is none (as some are of training alone)."""
    try:
        kind(*arguments.args, **({"p": 1.0} if kind in OURS.values() else {}), **arguments.kwargs).train(training)(
            *taken.args
        )
    except Exception as error:
        return type(error), str(error)
    return None


def variants(x: Tensor) -> Iterator[Tensor]:
    """The input, with gaps in memory, and in other memory formats."""
    yield x
    yield torch.repeat_interleave(x, 2, dim=-1)[..., ::2]
    if x.dim() in (4, 5):
        yield x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


@internal
def test_every_input_of_the_module_tests(capsys: pytest.CaptureFixture[str]) -> None:
    infos = [info for info in imported("common_modules").module_db if info.module_cls in OURS]
    assert len(infos) == 3
    count = errors = 0
    for info in infos:
        ours = OURS[info.module_cls]
        for training in (True, False):
            for dtype in (torch.float32, torch.float64)[: 1 + training]:
                options = {"device": "cpu", "dtype": dtype, "requires_grad": True, "training": training}
                for sample in info.module_inputs_func(info, **options):
                    arguments = sample.constructor_input
                    theirs = info.module_cls(*arguments.args, **arguments.kwargs).to(dtype).train(training)
                    for tensor in theirs.state_dict().values():
                        if tensor.is_floating_point():
                            nn.init.uniform_(tensor, 0.5, 2)
                    tracks = theirs.running_mean is not None
                    for p in (1.0,) if training or not tracks else (0.0, 0.3, 1.0):
                        layer = ours(*arguments.args, p=p, **arguments.kwargs).to(dtype).train(training)
                        layer.load_state_dict(theirs.state_dict())
                        for input in variants(*sample.forward_input.args):
                            right = run(copy.deepcopy(theirs), (input,))
                            layers = [pickle.loads(pickle.dumps(layer))]  # noqa: S301
                            if tracks:
                                layers.append(convert(copy.deepcopy(theirs), p=p))
                            for each in layers:
                                got = run(each, (input,))
                                assert all(torch.equal(a, b) for a, b in zip(got, right, strict=True))
                                assert got[0].stride() == right[0].stride()
                                count += 1
                        assert repr(layer).startswith(f"{ours.__name__}({layer.num_features}, eps=")
                if info.module_error_inputs_func is None:
                    continue
                for error in info.module_error_inputs_func(info, **options):
                    arguments, taken = (
                        error.module_error_input.constructor_input,
                        error.module_error_input.forward_input,
                    )
                    words = [outcome(kind, arguments, taken, training) for kind in (info.module_cls, ours)]
                    assert words[0] == words[1]
                    errors += words[0] is not None
    said(capsys, f"module tests: {count} passed", f"{errors} errors as expected")
    assert count > 200


@internal
def test_every_entry_of_the_older_list_of_modules(capsys: pytest.CaptureFixture[str]) -> None:
    """The list moved from version to version, and BatchNorm's entries with it to the one above."""
    common_nn = imported("common_nn")
    lists = [value for name, value in vars(common_nn).items() if name.endswith("module_tests")]
    tests = [test for each in lists for test in (each() if inspect.isfunction(each) else each)]
    found = [test for test in tests if "BatchNorm" in str(test.get("module_name", test.get("fullname")))]
    for test in found:
        ours = {kind.__name__: ours for kind, ours in OURS.items()}[test["module_name"]]
        size, arguments = test["input_size"], test.get("constructor_args", ())
        theirs, x = getattr(nn, test["module_name"])(*arguments), torch.randn(size)
        expected = run(theirs, (x,))
        assert all(torch.equal(a, b) for a, b in zip(run(ours(*arguments, p=1.0), (x,)), expected, strict=True))
    assert tests
    said(capsys, f"older list: {len(found)} entries of BatchNorm in {len(tests)}, all passed")


def normalized(x: Tensor, given: dict[str, Any]) -> list[Tensor]:
    """Output and updated statistics of ours, in place of batch_norm: the function in training, else the layer."""
    mean, var, weight, bias = (given[name] for name in ("running_mean", "running_var", "weight", "bias"))
    if given["training"]:
        options = {name: given[name] for name in ("momentum", "eps")}
        mask = torch.ones(x.size(1), dtype=torch.bool)
        return list(stoch_norm(x, mean, var, weight, bias, use_batch=mask, **options))
    kind = {2: StochNorm1d, 3: StochNorm1d, 4: StochNorm2d, 5: StochNorm3d}[x.dim()]
    layer = kind(x.size(1), eps=given["eps"], p=0.5).double().eval()
    layer.running_mean, layer.running_var = mean, var
    layer.weight, layer.bias = (None if each is None else nn.Parameter(each.detach()) for each in (weight, bias))
    return [layer(x), mean, var]


@internal
def test_every_sample_of_the_operator_tests(capsys: pytest.CaptureFixture[str]) -> None:
    every = imported("common_methods_invocations").op_db
    ops = [op for op in every if op.name == "nn.functional.batch_norm"]
    names = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    count = left = checked = 0
    for op in ops:
        for sample in op.sample_inputs("cpu", torch.float64, requires_grad=True):
            defaults = dict(zip(names, (None, None, None, None, False, 0.1, 1e-5), strict=True))
            given = defaults | dict(zip(names, sample.args, strict=False)) | sample.kwargs
            x = sample.input
            if given["running_mean"] is None or given["running_var"] is None or x.dim() < 2:
                left += 1  # without moving statistics there is no StochNorm, and no layer without a batch
                continue
            moving = {name: given[name].detach().clone() for name in names[:2]}
            got = normalized(x, given | {name: value.clone() for name, value in moving.items()})
            expected = [F.batch_norm(x, **given | moving), *moving.values()]
            grads = [torch.autograd.grad(each[0].sin().sum(), x)[0] for each in (got, expected)]
            for a, b in zip([*got, grads[0]], [*expected, grads[1]], strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
            count += 1
            if given["training"] and x.numel() < 200:
                constants = given | {name: value.detach() for name, value in moving.items()}
                first = partial(_first, given=constants)
                assert torch.autograd.gradcheck(first, x)
                assert torch.autograd.gradgradcheck(first, x)
                checked += 1
    said(capsys, f"operator samples: {count} passed, {checked} of them twice differentiated", f"{left} not for a layer")
    assert count > 5


def _first(x: Tensor, given: dict[str, Any]) -> Tensor:
    return normalized(x, given)[0]
