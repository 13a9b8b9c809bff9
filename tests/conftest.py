"""Shared fixtures: the development data beside the checkout, and small generated image sets."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from stochnorm import FinetuneConfig
from stochnorm.runs.records import Record

SHARED = Path(__file__).resolve().parents[2] / "shared"

torch.backends.disable_global_flags = lambda: None  # which PyTorch's own tests do, for the process


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Make the device of `--device` the default one: `pytest --device cuda` runs the tests that take it on a GPU.

    On a GPU, float32 is float32 (no TF32) and cuDNN repeats its results bit for bit.
    """
    device = torch.device(request.config.getoption("--device"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.fail("--device cuda was given, but this machine, or this PyTorch, has no GPU")
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    with device, torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=False):
        yield device
    torch.set_float32_matmul_precision(precision)


@pytest.fixture
def random_state(device: torch.device) -> Callable[[], torch.Tensor]:
    """Return a function that returns the state of the device's random generator."""
    return torch.cuda.get_rng_state if device.type == "cuda" else torch.get_rng_state


@pytest.fixture
def job_device(request: pytest.FixtureRequest) -> str:
    """Return the device of jobs: that of ``pytest --device``."""
    return str(request.config.getoption("--device"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the cache (decoded images, channel attention) apart from the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def tiny() -> dict[str, Any]:
    """Settings of a run that takes half a second; without the page, which takes half as long."""
    return {
        "backbone": "test_resnet", "weights": "random", "image_size": 32, "batch_size": 8, "steps": 12, "eval_every": 4,
        "precision": "32", "device": "cpu", "report": False, "method": "stochnorm",
    }  # fmt: skip


@pytest.fixture
def config(tiny: dict[str, Any]) -> Callable[..., FinetuneConfig]:
    """Makes the settings of a tiny run on some data."""

    def make(data: Path, out: Path | str = "", **options: Any) -> FinetuneConfig:
        return FinetuneConfig(str(data), out=str(out), **(tiny | options))

    return make


@pytest.fixture
def tiny_options(tiny: dict[str, Any]) -> list[str]:
    """Return the tiny settings for the command line; `--no-report` is for finetune alone."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in tiny.items() if name != "report"]


@pytest.fixture
def run_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs stochnorm in a process of its own, with environment variables by name."""
    import warm  # not everywhere can processes be forked

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return warm.run([sys.executable, "-m", "stochnorm", *arguments], **{"COLUMNS": "120"} | environment)

    return run


@pytest.fixture
def warm_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers of comparisons do not wait for their imports."""
    import warm

    monkeypatch.setattr("stochnorm.comparison.executors.local.subprocess", warm)


@pytest.fixture
def shared() -> Path:
    """Golden vectors and real images; tests that need them skip where they are absent."""
    if not SHARED.is_dir():
        pytest.skip("the development data are not beside this checkout")
    return SHARED


@pytest.fixture
def write_images() -> Callable[..., list[Path]]:
    """Writes ``count`` noisy images of one color into a folder."""

    def write(
        folder: Path, count: int, color: tuple[int, int, int] = (200, 40, 40), suffix: str = ".png"
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for i in range(count):
            noise = torch.randint(-30, 31, (24, 24, 3), generator=torch.Generator().manual_seed(hash(color) % 1000 + i))
            pixels = (torch.tensor(color) + noise).clamp(0, 255).to(torch.uint8)
            paths.append(folder / f"{i:03d}{suffix}")
            Image.fromarray(pixels.numpy()).save(paths[-1])
        return paths

    return write


@pytest.fixture
def photos(tmp_path: Path, write_images: Callable[..., list[Path]]) -> Path:
    """A folder per class: 3 colors with 10 images each."""
    root = tmp_path / "photos"
    for name, color in (("blue", (40, 40, 200)), ("green", (40, 160, 40)), ("red", (200, 40, 40))):
        write_images(root / name, 10, color)
    return root


@pytest.fixture
def write_official(write_images: Callable[..., list[Path]]) -> Callable[[str, Path], Path]:
    """Writes a small data set in an official on-disk format; returns its folder."""
    colors = {0: (40, 40, 200), 1: (40, 160, 40), 2: (200, 40, 40)}

    def image(path: Path, kind: int) -> None:
        (written,) = write_images(path.parent / "one", 1, colors[kind % 3], path.suffix)
        written.rename(path)
        (path.parent / "one").rmdir()

    def lines(path: Path, entries: list[str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(entries))  # as NIH's test_list.txt: no newline after the last line

    def cub(root: Path) -> None:
        names = ["001.Black_footed_Albatross", "002.Laysan_Albatross"]
        images = [(f"{name}/{name[4:]}_{i:04d}.jpg", k) for k, name in enumerate(names) for i in range(10)]
        lines(root / "classes.txt", [f"{k + 1} {name}" for k, name in enumerate(names)])
        lines(root / "images.txt", [f"{n + 1} {path}" for n, (path, _) in enumerate(images)])
        lines(root / "image_class_labels.txt", [f"{n + 1} {k + 1}" for n, (_, k) in enumerate(images)])
        lines(root / "train_test_split.txt", [f"{n + 1} {int(n % 10 < 6)}" for n in range(20)])
        for path, k in images:
            image(root / "images" / path, k)

    def cars(root: Path) -> None:
        (root / "devkit").mkdir(parents=True)
        names = np.array(["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"], dtype=object)
        savemat(root / "devkit/cars_meta.mat", {"class_names": names})
        for split, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
            keys = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
            dtype = [(key, object) for key in keys]
            records = [(1, 2, np.uint16(569), 20, n % 2 + 1, f"{n + 1:05d}.jpg") for n in range(12)]
            savemat(root / file, {"annotations": np.array(records, dtype=dtype)[None]})
            for n in range(12):
                image(root / f"cars_{split}/{n + 1:05d}.jpg", n % 2)

    def aircraft(root: Path) -> None:
        names = ["707-320", "F/A-18", "Boeing 717"]
        lines(root / "data/variants.txt", names)
        numbers = [f"{1000000 + n}" for n in range(36)]
        for split, part in (
            ("train", slice(12)),
            ("val", slice(12, 24)),
            ("trainval", slice(24)),
            ("test", slice(24, 36)),
        ):
            entries = [f"{number} {names[int(number) % 3]}" for number in numbers[part]]
            lines(root / f"data/images_variant_{split}.txt", entries)
        for number in numbers:
            image(root / f"data/images/{number}.jpg", int(number))

    def chestxray14(root: Path) -> None:
        header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        header += "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
        labels = ["No Finding", "Effusion", "Cardiomegaly|Effusion", "Hernia", "No Finding"]
        names, entries = [], [header]
        for patient in range(1, 21):
            for follow_up in range(patient % 3 + 1):
                names.append(f"{patient:08d}_{follow_up:03d}.png")
                label = labels[(patient + follow_up) % 5]
                entries.append(f"{names[-1]},{label},{follow_up},{patient},58,M,PA,2682,2749,0.143,0.143,")
                image(root / f"images_{patient % 2 + 1:03d}/images/{names[-1]}", patient + follow_up)
        lines(root / "Data_Entry_2017.csv", entries)
        lines(root / "train_val_list.txt", [name for name in names if int(name[:8]) <= 14])
        lines(root / "test_list.txt", [name for name in names if int(name[:8]) > 14])

    def write(name: str, root: Path) -> Path:
        {"cub": cub, "cars": cars, "aircraft": aircraft, "chestxray14": chestxray14}[name](root)
        return root

    return write


@pytest.fixture
def build_records() -> Callable[..., list[Record]]:
    """Records of finished runs from the scores of each variant's repetitions; ``...`` is a run there is not."""

    def build(
        scores: dict[str, list[Any]],
        *,
        data: str = "photos",
        backbone: str = "resnet18",
        rate: float = 15,
        score: str = "top1",
        scale: str = "",
    ) -> list[Record]:
        return [
            Record(
                run=f"runs/{data}-{variant}-{rate:g}-{repeat}",
                variant=variant,
                data=data,
                backbone=backbone,
                rate=rate,
                data_seed=repeat,
                seed=10 + repeat,
                score=score,
                classes=2,
                images={"train": 16, "validation": 4, "test": 20},
                validation={score: 50.0},
                test={score: value},
                step=100,
                cost={"seconds": 60.0, "images_per_second": 10.0, "peak_memory_gigabytes": 1.0},
                settings={"method": variant},
                environment={},
                scale=scale,
            )
            for variant, values in scores.items()
            for repeat, value in enumerate(values)
            if value is not ...
        ]

    return build


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[Path, tuple[bytes, int]]]:
    """Makes a folder of what an earlier version wrote the working directory; lists its files, and when they were
    written, by a pattern."""
    with tarfile.open(Path(__file__).parent / "fixtures" / "earlier_runs.tar.xz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)  # noqa: S202 (our own)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for extension in ("amx_tile", "avx512_bf16"):  # with either, precision auto is bfloat16
        monkeypatch.setattr(torch.cpu, f"_is_{extension}_supported", lambda: False)

    def files(pattern: str) -> dict[Path, tuple[bytes, int]]:
        found = [path for path in Path().glob(pattern) if path.is_file()]
        assert found
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}

    return files
