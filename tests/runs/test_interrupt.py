"""Signals that ask to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from stochnorm.runs.interrupt import stop_signal


@pytest.fixture(autouse=True)
def _interrupting() -> Iterator[None]:
    """Outside of what is tested both signals raise, so that none ends the tests, and none is ignored."""
    kinds = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(kind, signal.default_int_handler) for kind in kinds]
    yield
    for kind, handler in zip(kinds, before, strict=True):
        signal.signal(kind, handler)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_is_handed_back_afterwards(kind: signal.Signals) -> None:
    with stop_signal() as stop:
        assert not stop.is_set()
        signal.raise_signal(kind)
        assert stop.is_set()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(kind)


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    with stop_signal():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_no_sigterm_after_the_first_signal_interrupts() -> None:
    with stop_signal() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
