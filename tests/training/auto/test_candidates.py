"""What `auto` tries, and weights between two models."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stochnorm import FinetuneConfig
from stochnorm.training.auto.candidates import candidates, cooler
from stochnorm.training.auto.weights import between


def test_a_setting_of_the_user_holds_for_all() -> None:
    found = candidates(FinetuneConfig("photos", lr=0.02, norm_momentum=0.05, schedule="onecycle"))
    assert {one.settings["lr"] for one in found} == {0.02}
    assert {one.settings["schedule"] for one in found} == {"onecycle"}
    assert {one.settings["norm_momentum"] for one in found if one.settings["method"] == "stochnorm"} == {0.05}
    assert {one.settings["method"] for one in found} == {"frozen", "frozen+sam", "stochnorm", "vanilla"}


def test_candidates_have_names_of_their_own() -> None:
    names = [one.name for one in candidates(FinetuneConfig("photos"))]
    assert len({*names}) == len(names) == 6


def test_without_a_probe_all_heads_are_new() -> None:
    assert not any(one.warm for one in candidates(FinetuneConfig("photos"), warm=False))


def test_without_sam_where_the_network_is_compiled() -> None:
    found = candidates(FinetuneConfig("photos", compile=True))
    assert [one.settings["method"] for one in found] == ["frozen", "frozen", "frozen", "stochnorm", "vanilla"]
    for one in found:
        FinetuneConfig("photos", compile=True, **one.settings).check_used()


def test_cooler_is_a_tenth_of_the_rate() -> None:
    first = candidates(FinetuneConfig("photos"))[0]
    assert cooler(first).settings == first.settings | {"lr": 0.0001}


def test_weights_between_are_a_line() -> None:
    start, end = (nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict() for _ in range(2))
    end["1.running_mean"] = torch.tensor([4.0, -2.0])
    end["1.num_batches_tracked"] = torch.tensor(7)
    middle = between(start, end, 0.25)
    assert middle["1.running_mean"].tolist() == [1.0, -0.5]
    assert middle["1.num_batches_tracked"] == 7
    for key in start:
        assert torch.equal(between(start, end, 1.0)[key], end[key])
        if start[key].is_floating_point():
            assert torch.equal(between(start, end, 0.0)[key], start[key])


@pytest.mark.parametrize("other", [{"w": torch.zeros(3)}, {"v": torch.zeros(2)}, {}])
def test_weights_of_other_networks_are_refused(other: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match=r"the weights are not of one network: [wv] differs"):
        between({"w": torch.zeros(2)}, other, 0.5)
