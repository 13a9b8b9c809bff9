"""Batches made by processes."""

from __future__ import annotations

import os
import signal
import warnings

import pytest
import torch
from torch.utils.data import Dataset, get_worker_info

from stochnorm.data.images.decoding.opening import DamagedImageError
from stochnorm.data.images.stream import stream


class Numbers(Dataset[torch.Tensor]):
    """Numbers as batches; 2 is an error, or ends the process."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def __getitem__(self, number: int) -> torch.Tensor:
        if number == 2 and self.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 2 and self.error is not None:
            raise self.error
        return torch.tensor([number])


class Processes(Dataset[torch.Tensor]):
    """Each batch is the number of processes that read."""

    def __getitem__(self, number: int) -> torch.Tensor:
        worker = get_worker_info()
        return torch.tensor([worker.num_workers if worker else 0])


def through_processes(error: Exception | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of more processes than cores, and of forking with threads
        for expected, batch in enumerate(stream(Numbers(error), range(6), workers=1, device=torch.device("cpu"))):
            assert batch.tolist() == [expected]


@pytest.mark.parametrize(
    "error", [DamagedImageError("x.jpg: cannot be read"), PermissionError(13, "cannot read an image file", "x.jpg")]
)
def test_an_error_in_a_process_is_the_same_error_here(error: Exception) -> None:
    """Its message is one line, and not the traceback of the process."""
    with pytest.raises(type(error)) as caught:
        through_processes(error)
    assert str(caught.value) == str(error)


def test_a_process_that_is_killed_is_said_in_one_line() -> None:
    with pytest.raises(ChildProcessError, match="a process that reads images was killed, perhaps for the mem"):
        through_processes(None)


def test_a_process_that_is_killed_raises_nowhere_else() -> None:
    """Not in a handler of a signal, which may run anywhere in the program."""
    before = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(ChildProcessError):
        through_processes(None)
    assert signal.getsignal(signal.SIGCHLD) is before


def test_no_more_processes_are_begun_than_there_are_batches() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of more processes than cores, and of forking with threads
        batches = stream(Processes(), range(2), workers=50, device=torch.device("cpu"))
        assert [batch.tolist() for batch in batches] == [[2], [2]]
