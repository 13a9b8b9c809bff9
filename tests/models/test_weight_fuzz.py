"""Damaged and hostile weight files: a clear error or the right weights, and nothing in them runs.

STOCHNORM_FUZZ=N takes N files of each format.
"""

from __future__ import annotations

import io
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from stochnorm.models.weights import load_weights, read_state_dict

COUNT = int(os.environ.get("STOCHNORM_FUZZ", "100"))


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def zipped(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def legacy(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: str) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def hostile(random: random.Random) -> Command:
    module = random.choice(["os.system('touch executed')", "open('executed', 'w')"])
    return random.choice(
        [
            Command(os.system, "touch executed"),
            Command(eval, f"__import__('os') and {module}"),
            Command(exec, "open('executed', 'w')"),
            Command(Path.touch, Path("executed")),  # type: ignore[arg-type]
            Command(getattr, Command(__import__, "os"), "system"),  # type: ignore[arg-type]
        ]
    )


def with_other_content(state: dict[str, Tensor], random: random.Random) -> dict[Any, Any]:
    """Change names, shapes, numbers or values, or add what is no tensor."""
    changed: dict[Any, Any] = {key: value.clone() for key, value in state.items()}
    key = random.choice(list(changed))
    kind = random.choice(["rename", "shape", "remove", "object", "dtype", "nan", "name", "nest"])
    if kind == "rename":
        changed[random.choice(["", "x", f"{key}.", key.upper(), key[::-1]])] = changed.pop(key)
    elif kind == "shape":
        changed[key] = random.choice(
            [changed[key][None], torch.zeros(0), torch.zeros(5, 5), changed[key].flatten()[1:]]
        )
    elif kind == "remove":
        del changed[key]
    elif kind == "object":
        changed[key] = random.choice([None, 3, "text", [1], {"a": 1}, complex(1), {"a": torch.zeros(1)}])
    elif kind == "dtype":
        changed[key] = changed[key].to(random.choice([torch.int8, torch.complex64, torch.bool, torch.float8_e4m3fn]))
    elif kind == "nan":
        changed[key] = torch.full_like(changed[key].float(), random.choice([torch.nan, torch.inf]))
    elif kind == "name":
        changed[random.choice([0, ("a",), None, 1.5])] = torch.zeros(1)
    else:
        changed = {random.choice(["state_dict", "model", "ema", "optimizer", "a.b"]): changed}
    return changed


def with_other_bytes(content: bytes, random: random.Random, where: range) -> bytes:
    """Cut the file, or change a few bytes within a range."""
    kind = random.choice(["cut", "flip", "flip", "zero", "insert", "swap"])
    if kind == "cut":
        return content[: random.randrange(len(content))]
    changed, at = bytearray(content), random.choice(where)
    if kind == "flip":
        for _ in range(random.randint(1, 4)):
            changed[random.choice(where)] ^= 1 << random.randrange(8)
    elif kind == "zero":
        changed[at : at + 16] = bytes(16)
    elif kind == "insert":
        changed[at:at] = random.randbytes(random.randint(1, 9))
    else:
        other = random.choice(where)
        changed[at], changed[other] = changed[other], changed[at]
    return bytes(changed)


def header(content: bytes) -> range:
    """Where the structure of a safetensors file is; PyTorch's old files end with the tensors."""
    if content[8:9] == b"{":
        return range(8 + struct.unpack("<Q", content[:8])[0])
    return range(len(content))


@pytest.mark.parametrize(
    ("write", "checked"), [(save, False), (zipped, True), (legacy, False)], ids=["safetensors", "zip", "old"]
)
def test_a_damaged_or_hostile_file_is_an_error_or_the_right_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Any], bytes], checked: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model, path = network(), Path("w.pth")
    state = {key: value.clone() for key, value in model.state_dict().items()}
    whole, outcomes = write(state), {"read": 0, "refused": 0}
    for seed in range(COUNT):
        chance = random.Random(seed)  # noqa: S311 (not for secrets)
        content = whole
        if write is not save and seed % 5 == 0:
            content = write({**state, "x": hostile(chance)} if seed % 2 else {"model": state, "args": hostile(chance)})
        elif seed % 5 == 1:
            other = with_other_content(state, chance)
            try:
                content = write(other)
            except (TypeError, ValueError, AttributeError):  # safetensors holds tensors by name alone
                continue
        damaged = seed % 5 > 1 or seed % 10 == 0
        path.write_bytes(with_other_bytes(content, chance, header(content)) if damaged else content)
        try:
            found = read_state_dict(path)
            load_weights(model, found, ["3"], str(path), "a network")
        except (ValueError, MemoryError) as error:
            text = str(error)
            assert text.startswith("w.pth"), (seed, text)
            assert "\n" not in text, (seed, text)
            assert "weights_only" not in text, (seed, text)
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            if checked:  # the others have no checksums: a damaged number is a number
                loaded = model.state_dict()
                assert all(torch.equal(loaded[key], value) for key, value in state.items() if key[0] != "3"), seed
            else:
                assert all(value.isfinite().all() for value in model.state_dict().values()), seed
        assert not Path("executed").exists(), seed
    assert min(outcomes.values()) > 0
