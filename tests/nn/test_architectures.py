"""convert, a training step and restore on a sample of families; all architectures: benchmarks/architectures.py."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import stochnorm.nn

pytestmark = pytest.mark.filterwarnings("ignore:The default weight initialization of GoogleNet:FutureWarning")

ONE_OF_EACH_FAMILY = [
    "timm/botnet26t_256",
    "timm/coatnet_pico_rw_224",
    "timm/convmixer_768_32",
    "timm/cpubone_nano",
    "timm/cs3darknet_focus_s",
    "timm/cspnext_tiny",
    "timm/densenet121",
    "timm/dla46_c",
    "timm/dpn48b",
    "timm/efficientformer_l1",
    "timm/efficientformerv2_s0",
    "timm/efficientnet_b0",
    "timm/efficientvim_m1",
    "timm/efficientvit_b0",
    "timm/efficientvit_m0",
    "timm/ese_vovnet19b_dw",
    "timm/fasternet_t0",
    "timm/fastvit_t8",
    "timm/fbnetv3_b",
    "timm/gernet_s",
    "timm/ghostnet_050",
    "timm/hardcorenas_a",
    "timm/hgnetv2_b0",
    "timm/hrnet_w18_small",
    "timm/iformer_t",
    "timm/inception_next_atto",
    "timm/lcnetv2_small",
    "timm/levit_128s",
    "timm/mixnet_s",
    "timm/mobilenetv3_small_050",
    "timm/mobileone_s1",
    "timm/mobilevit_xs",
    "timm/regnetx_002",
    "timm/repghostnet_050",
    "timm/repvgg_a0",
    "timm/repvit_m1",
    "timm/res2net50_48w_2s",
    "timm/resnest14d",
    "timm/rexnet_100",
    "timm/selecsls42",
    "timm/seresnext26ts",
    "timm/shvit_s1",
    "timm/skresnet18",
    "timm/starnet_s050",
    "timm/swiftformer_xs",
    "timm/test_maxvit",
    "timm/tiny_vit_5m_224",
    "timm/tresnet_m",
    "timm/xception41",
    "timm/xcit_nano_12_p16_224",
    "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn",
    "torchvision/googlenet",
    "torchvision/lraspp_mobilenet_v3_large",
    "torchvision/mc3_18",
    "torchvision/mnasnet0_5",
    "torchvision/quantized_mobilenet_v2",
    "torchvision/resnet18",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/ssdlite320_mobilenet_v3_large",
]


@pytest.fixture(scope="module")
def architectures() -> Iterator[ModuleType]:
    path = Path(__file__).parents[2] / "benchmarks" / "architectures.py"
    spec = importlib.util.spec_from_file_location("architectures", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # maps of a few pixels: more threads mostly wait for each other
    yield module
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_every_layer_converts_trains_and_restores(architectures: ModuleType, name: str) -> None:
    if name not in architectures.architectures():
        pytest.skip(f"the installed version has no {name}")
    record = architectures.check(name)
    stages = {stage: record.get(stage) for stage in architectures.STAGES}
    assert stages == {"build": "ok", "convert": "ok", "train": "ok", "restore": "ok"}
    assert record["used"] > 0
    assert record["notes"] == []  # finite gradients and eval outputs


def leave_one_out(model: nn.Module, p: float) -> nn.Module:
    return stochnorm.nn.convert(model, p=p, where=lambda name, _: name != "bn1")


def keep_batch_norm(model: nn.Module, p: float) -> nn.Module:
    return stochnorm.nn.convert(model, p=1.0)


def no_restore(model: nn.Module) -> nn.Module:
    return model


@pytest.mark.parametrize(
    ("function", "fault", "stage", "reason"),
    [
        ("convert", leave_one_out, "convert", "1 of 20 layers not converted"),
        ("convert", keep_batch_norm, "train", "stochastic in 0 layers, used are 20"),
        ("restore", no_restore, "restore", "not the original classes"),
    ],
)
def test_the_check_notices(
    architectures: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    fault: Callable[..., nn.Module],
    stage: str,
    reason: str,
) -> None:
    monkeypatch.setattr(architectures, function, fault)
    assert reason in architectures.check("torchvision/resnet18")[stage]


def test_the_check_notices_another_eval_output(architectures: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def restore_and_nudge(model: nn.Module) -> nn.Module:
        stochnorm.nn.restore(model).bn1.running_var[0].mul_(1 + 1e-6)
        return model

    monkeypatch.setattr(architectures, "restore", restore_and_nudge)
    assert "other eval output" in architectures.check("torchvision/resnet18")["restore"]
