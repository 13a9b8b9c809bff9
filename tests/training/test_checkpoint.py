"""The checkpoint's file is where the run directory is, whatever its name says to other libraries."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from stochnorm.runs.directory import Run
from stochnorm.training.checkpoint import load_checkpoint, save_checkpoint


@pytest.mark.parametrize(
    "name", ["~", "~root/run", "http:/run", "https-run", "memory:/run", "file:/run", "a%20b", "a?b"]
)
def test_a_checkpoint_stays_in_a_directory_whose_name_looks_like_something_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work" / name).mkdir(parents=True)
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    fabric, run = Fabric(accelerator="cpu", devices=1), Run(Path(name))
    model = torch.nn.Linear(2, 1)
    stateful = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.5)}
    save_checkpoint(fabric, run, stateful | {"step": 7, "history": [], "sums": [], "processes": 1})
    assert [path.name for path in (tmp_path / "work" / name).iterdir()] == ["checkpoint.pt"]
    assert not list((tmp_path / "home").iterdir())
    assert load_checkpoint(fabric, run, stateful)["step"] == 7


def test_a_name_that_lightning_takes_apart_is_refused(tmp_path: Path) -> None:
    message = r"a::b: Lightning takes :: for a chain of URLs; choose another out"
    with pytest.raises(ValueError, match=message), Run(tmp_path / "a::b").held():
        pass
    assert not (tmp_path / "a").exists()
