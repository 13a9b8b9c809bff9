from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from stochnorm.nn.cuda import check, fused, trust
from stochnorm.nn.functional import frozen_norm, stoch_norm_


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(trust.SWITCH, raising=False)
    trust.reset()
    yield
    monkeypatch.undo()
    trust.reset()


RIGHT = [(torch.ones(3), torch.ones(3, dtype=torch.float64))]


def test_a_check_runs_once_for_each_key() -> None:
    calls = []

    def checked() -> list[tuple[Tensor, Tensor]]:
        calls.append(1)
        return RIGHT

    assert trust.trusted("a", checked)
    assert trust.trusted("a", checked)
    assert trust.trusted("b", checked)
    assert len(calls) == 2


@pytest.mark.parametrize("wrong", [torch.tensor([1.0, 1.0, 1.01]), torch.full((3,), torch.nan), torch.ones(2)], ids=str)
def test_a_wrong_result_ends_the_use_of_all_kernels_with_one_warning(wrong: Tensor) -> None:
    assert trust.trusted("a", lambda: RIGHT)
    with pytest.warns(RuntimeWarning, match=r"do not work here \(ArithmeticError: result 1 of b .*STOCHNORM_TRITON=0"):
        assert not trust.trusted("b", lambda: [*RIGHT, (wrong, torch.ones(3))])
    assert not trust.allowed()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not trust.trusted("a", lambda: RIGHT)
        assert not trust.trusted("c", lambda: RIGHT)


def test_an_error_of_the_compiler_is_a_warning() -> None:
    def broken() -> list[tuple[Tensor, Tensor]]:
        raise ValueError("ptxas is missing\nand a page more")

    with pytest.warns(RuntimeWarning, match=r"\(ValueError: ptxas is missing\)"):
        assert not trust.trusted("a", broken)


def test_the_environment_switches_the_kernels_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trust.SWITCH, "0")
    trust.reset()
    monkeypatch.setattr(fused, "_placed", lambda input: True)
    assert not trust.allowed()
    assert not fused.fits(torch.randn(4, 3, 2, 2), None)


def test_while_a_graph_is_captured_only_what_is_known_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trust.trusted("known", lambda: RIGHT)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)

    def never() -> list[tuple[Tensor, Tensor]]:
        raise AssertionError("a check cannot be captured")

    assert trust.trusted("known", never)
    assert not trust.trusted("new", never)
    assert trust.allowed()


def test_agreement_is_up_to_rounding_of_the_dtype() -> None:
    right = torch.tensor([4.0, 0.001])
    assert trust.agree(torch.tensor([4.0, 0.0011]), right)
    assert not trust.agree(torch.tensor([4.001, 0.001]), right)
    assert trust.agree(torch.tensor([4.02, 0.0]).bfloat16(), right)
    assert not trust.agree(torch.tensor([4.5, 0.0]).bfloat16(), right)


def test_kernels_that_do_not_run_leave_the_layer_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU, Triton has no driver: the check fails as it would on a broken installation."""
    if torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("here the kernels run")
    monkeypatch.setattr(fused, "_placed", lambda input: True)
    x = torch.randn(4, 3, 5, 5)
    vectors = torch.zeros(3), torch.ones(3), torch.randn(3), torch.randn(3)
    random_state = torch.get_rng_state()
    with pytest.warns(RuntimeWarning, match="Triton kernels do not work here") as caught:
        y, _ = stoch_norm_(x, *vectors, use_batch=torch.tensor([True, False, True]), momentum=0.0, eps=1e-5)
        z = frozen_norm(x, *vectors, eps=1e-5)
    assert len(caught) == 1
    assert torch.equal(torch.get_rng_state(), random_state)
    torch.testing.assert_close(y[:, 1], z[:, 1])
    monkeypatch.undo()
    right, _ = stoch_norm_(x, *vectors, use_batch=torch.tensor([True, False, True]), momentum=0.0, eps=1e-5)
    assert torch.equal(y, right)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(8, 5), (4, 6, 5, 5)], ids=str)
@pytest.mark.parametrize("frozen", [False, True], ids=["stochastic", "frozen"])
def test_the_kernels_pass_their_check(shape: tuple[int, ...], dtype: torch.dtype, frozen: bool) -> None:
    like = torch.empty(shape, dtype=dtype)
    for activation, added in ((0, False), (1, True), (2, False), (3, True)):
        pairs = check.compare(like, True, True, added, activation, frozen=frozen)
        assert len(pairs) == 4 + added + 3 * (not frozen)
        assert all(trust.agree(*pair) for pair in pairs)


@pytest.mark.usefixtures("kernels")
def test_a_wrong_kernel_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from stochnorm.nn.cuda import launch

    right = launch.products

    def wrong(*arguments: object) -> Tensor:
        return right(*arguments) * 1.01  # type: ignore[arg-type]

    monkeypatch.setattr(launch, "products", wrong)
    pairs = check.compare(torch.empty(4, 6, 5, 5), True, True, False, 0, frozen=False)
    assert not all(trust.agree(*pair) for pair in pairs)


def test_importing_the_layer_does_not_import_triton() -> None:
    code = "import sys, stochnorm.nn, stochnorm.nn.functional; raise SystemExit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
