"""The cache of channel attention: the same settings are computed once, and a damaged file is not used."""

from __future__ import annotations

import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stochnorm.regularizers.attention_cache import attention_key, cached_attention

SETTINGS = {"layers": ["blocks.0"], "epochs": 10}


def test_the_key_follows_weights_data_and_settings() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    x, y = torch.rand(5, 3, 4, 4), torch.arange(5) % 2
    key = attention_key(model, [x, y], SETTINGS)
    assert key == attention_key(copy.deepcopy(model).train(False), [x.clone(), y.clone()], dict(SETTINGS))
    keys = {key, attention_key(model, [x, y], {**SETTINGS, "epochs": 9}), attention_key(model, [y, x], SETTINGS)}
    keys |= {attention_key(model, data, SETTINGS) for data in (["ab", "c"], ["a", "bc"], ["abc"], [])}
    same = copy.deepcopy(model)
    same[1].eps = 0.1  # the same weights do something else
    keys.add(attention_key(same, [x, y], SETTINGS))
    for change in (x.view(-1)[-1:], y[:1]):
        change += 1
        keys.add(attention_key(model, [x, y], SETTINGS))
        change -= 1
    for name in ("0.bias", "1.running_var", "1.num_batches_tracked"):
        changed = copy.deepcopy(model)
        changed.state_dict()[name].view(-1)[:1].add_(1)
        keys.add(attention_key(changed, [x, y], SETTINGS))
    assert len(keys) == 13


class Computed:
    """Counts how often it is computed."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, Tensor]:
        self.calls += 1
        return {"layer1": torch.tensor([0.25, 0.75]), "blocks.0": torch.tensor([1.0])}


def test_the_cache_gives_the_same_and_computes_once(tmp_path: Path) -> None:
    compute = Computed()
    first = cached_attention(tmp_path / "new", "k1", compute)
    second = cached_attention(tmp_path / "new", "k1", compute)
    assert compute.calls == 1
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    cached_attention(tmp_path / "new", "k2", compute)
    assert compute.calls == 2


def test_processes_that_want_the_same_wait_for_the_first(tmp_path: Path) -> None:
    compute, measuring = Computed(), threading.Event()

    def slow() -> dict[str, Tensor]:
        measuring.set()
        time.sleep(0.3)
        return compute()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cached_attention, tmp_path, "k1", slow)
        measuring.wait()
        second = pool.submit(cached_attention, tmp_path, "k1", compute)
    torch.testing.assert_close(first.result(), second.result(), rtol=0, atol=0)
    assert compute.calls == 1


@pytest.mark.parametrize("damage", ["truncated", "empty", "a flipped bit", "of another key"])
def test_a_damaged_or_stale_file_is_computed_anew(tmp_path: Path, damage: str) -> None:
    compute = Computed()
    cached_attention(tmp_path, "k1", compute)
    path = tmp_path / "k1.safetensors"
    content = path.read_bytes()
    if damage == "of another key":
        path = path.rename(tmp_path / "k2.safetensors")
    else:
        damaged = {"truncated": content[:-3], "empty": b"", "a flipped bit": content[:-1] + bytes([content[-1] ^ 1])}
        path.write_bytes(damaged[damage])
    weights = cached_attention(tmp_path, path.stem, compute)
    assert compute.calls == 2
    torch.testing.assert_close(weights, compute())
    cached_attention(tmp_path, path.stem, compute)
    assert compute.calls == 3  # compute() above; the file is whole again


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="not cached for the next run: .*set XDG_CACHE_HOME"):
        weights = cached_attention(tmp_path / "file", "k", Computed())
    assert set(weights) == {"layer1", "blocks.0"}
