"""Files of weights of every kind: what is read, and that other files are named for what they are."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import os
import pathlib
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from stochnorm.models.weights import read_state_dict

STATE = {"conv.weight": torch.arange(4.0), "conv.bias": torch.ones(2)}


def saved(content: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def legacy(content: object) -> bytes:
    return saved(content, _use_new_zipfile_serialization=False)


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name in names:
            zipped.writestr(name, "x")
    return file.getvalue()


def packed_again(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as plain, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    return file.getvalue()


def flipped(content: bytes) -> bytes:
    """Change a bit of the largest tensor."""
    changed = bytearray(content)
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        start = next(member for member in zipped.infolist() if member.filename.endswith("data/0")).header_offset
    changed[content.index(STATE["conv.weight"].numpy().tobytes(), start) + 6] ^= 16
    return bytes(changed)


def read(path: Path, content: bytes) -> dict[str, Tensor]:
    path.write_bytes(content)
    return read_state_dict(path)


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("write", [saved, legacy])
def test_what_training_scripts_keep_beside_their_weights_is_no_hindrance(
    tmp_path: Path, write: Callable[[object], bytes]
) -> None:
    beside = {
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("out"), old=pathlib.PureWindowsPath("C:/out")),
        "best": np.float64(71.5),
        "random": np.random.RandomState(0).get_state(),
        "begun": datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
        "history": collections.defaultdict(list, loss=[1.0, 0.5]),
        "frozen": frozenset({"conv"}),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 0.1}]},
    }
    assert equal(read(tmp_path / "w.pth", write({"state_dict": STATE, **beside})), STATE)


def test_a_class_that_reading_allows_is_never_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved({"model": STATE, "args": argparse.Namespace(lr=0.1)})
    monkeypatch.setattr(argparse.Namespace, "__init__", lambda *_, **__: pytest.fail("made"))
    monkeypatch.setattr(argparse.Namespace, "__setstate__", lambda *_: pytest.fail("made"), raising=False)
    assert equal(read(tmp_path / "w.pth", content), STATE)


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    assert equal(read(tmp_path / "a.pth", save(STATE)), STATE)
    assert equal(read(tmp_path / "b.safetensors", saved(STATE)), STATE)
    assert equal(read(tmp_path / "c.bin", legacy(STATE)), STATE)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


OTHERS: dict[str, tuple[bytes, str]] = {
    "page": (b"\n<!DOCTYPE html><html><body>Sign in", "a web page, such as one to log in; download"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer .*lfs pull"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x062.14.0:\x80\x01", "an ONNX model; use the PyTorch weights"),
    "empty": (b"", "an empty file"),
    "zeros": (bytes(2000), "zeros, as an interrupted download leaves"),
    "gzip": (b"\x1f\x8b\x08\x00rest", "a gzip archive; unpack it"),
    "json": (b'\xef\xbb\xbf {"weight_map": {}}', "a JSON text"),
    "text": (b"hello\n", "a text"),
    "image": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "an image"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes"),
    "script": (archive("m/constants.pkl", "m/code/__torch__.py", "m/data.pkl"), "a TorchScript program"),
    "zip": (archive("photos/a.jpg"), r"a ZIP archive \(photos/a.jpg\); unpack it"),
    "pickle": (pickle.dumps([1, 2]), "not a PyTorch file of tensors alone, or damaged"),
    "cut": (saved(STATE)[:-40], "cut off"),
    "legacy cut": (legacy(STATE)[:-5], "damaged"),
    "safetensors cut": (save(STATE)[:-5], "damaged"),
    "flipped": (flipped(saved(STATE)), r"the checksum of .*data/0 is wrong"),
    "packed": (packed_again(saved(STATE)), "packed again"),
    "executes": (saved({"state_dict": STATE, "x": Payload()}), "holds posix.system, whose reading could run code"),
    "executes, old": (legacy({"state_dict": STATE, "x": Payload()}), "holds posix.system, .*save its state_dict"),
    "model": (saved(torch.nn.Linear(2, 2)), r"holds torch.nn.modules.linear.Linear, .*save its state_dict\(\)"),
    "float8": (saved({"w": torch.ones(2).to(torch.float8_e4m3fn)}), "w is a tensor of float8_e4m3fn"),
    "float8 safe": (save({"w": torch.ones(2).to(torch.float8_e5m2)}), "w is a tensor of float8_e5m2"),
    "sparse": (saved({"w": torch.eye(2).to_sparse()}), "w is a tensor of sparse_coo"),
    "meta": (saved({"w": torch.ones(2, device="meta")}), "w is a tensor of device meta, without values"),
    "infinite": (saved({"w": torch.tensor([1.0, torch.inf])}), "w has values that are not finite"),
    "arrays": (saved({"w": np.ones(2)}), "maps 'w' to numpy.*ndarray; save a model's state_dict"),
}


@pytest.mark.parametrize(("content", "what"), OTHERS.values(), ids=OTHERS)
def test_another_file_is_named_for_what_it_is_in_one_line_without_bad_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("w.pth", "w.safetensors"):
        with pytest.raises(ValueError, match=rf"^{name}: .*{what}") as raised:
            read(Path(name), content)
        assert "\n" not in str(raised.value)
        assert "weights_only" not in str(raised.value)
    assert not Path("executed").exists()


def test_too_little_memory_and_an_unreadable_disk_are_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(saved({"w": torch.zeros(1000)}))

    def fails(error: Exception) -> None:
        def load(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(torch, "load", load)

    asked = "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to allocate {}"
    fails(RuntimeError(asked.format("4000 bytes. Error code 12 (Cannot allocate memory)")))
    with pytest.raises(MemoryError, match=r"w.pth: not enough memory to read its 0 MB; close other programs"):
        read_state_dict(path)
    fails(RuntimeError(asked.format("99999999 bytes. Error code 12 (Cannot allocate memory)")))  # more than it holds
    with pytest.raises(ValueError, match="damaged"):
        read_state_dict(path)
    fails(PermissionError(13, "Permission denied", str(path)))
    with pytest.raises(PermissionError):
        read_state_dict(path)
