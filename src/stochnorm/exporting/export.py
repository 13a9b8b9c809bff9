"""Export the model of a run: files for other programs, each checked against the run."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stochnorm.exporting.about import about_of
from stochnorm.exporting.card import model_card
from stochnorm.exporting.check import TOLERANCE, Check, Reference, compare, fault_of
from stochnorm.exporting.formats import FORMATS, needs_onnx
from stochnorm.exporting.images import read_images_of
from stochnorm.exporting.network import Deployed, plain_network
from stochnorm.exporting.push import check_repository, push
from stochnorm.exporting.quantize import quantize
from stochnorm.exporting.request import Request, Wanted
from stochnorm.exporting.runtime import latency, opened
from stochnorm.exporting.timm_folder import write_timm
from stochnorm.files import atomic_path
from stochnorm.models import Classifier, load_classifier
from stochnorm.runs.directory import Run

__all__ = ["Export", "Exported", "export"]


@dataclass(frozen=True)
class Exported:
    """One file, or the folder of format timm."""

    path: Path
    format: str
    precision: str
    size: int
    """Bytes."""
    about: dict[str, Any]
    """The metadata in the file."""
    check: Check | None
    """How it compares with the run; None with `check=False`."""


@dataclass(frozen=True)
class Export:
    """All files of one call."""

    run: Path
    files: list[Exported]
    score: float | None
    """Top-1 or mean AUC of the run on the images of the check, percent."""
    latency: float | None
    """Median time of one image in PyTorch, as the run's model is, milliseconds."""
    recorded: tuple[int, int] | None
    """Images whose recorded prediction the run's model still gives in float32, and their number; None without any."""
    pushed: str = ""
    """Address of the repository."""


def export(
    run: str | Path,
    format: str | Sequence[str] = "onnx",
    out: str | Path = "",
    *,
    precision: str | Sequence[str] = "fp32",
    preprocess: bool = False,
    fold: bool = False,
    check: bool = True,
    images: int = 1000,
    calibration: int = 128,
    max_drop: float = 5.0,
    overwrite: bool = False,
    repository: str = "",
    public: bool = False,
) -> Export:
    """Write the model of a run as files for other programs, and check each on the run's images.

    The layers are plain BatchNorm. The size of the batch is open. A file that predicts something else than the run is
    an error and is not left behind.

    Args:
        run: A finished run; without `check` also its `model.safetensors` alone.
        format: onnx, torch, torchscript, safetensors or timm, or several of them.
        out: File, or folder of format timm; with several files a folder around them. Empty: files in `RUN/export/`.
        precision: fp32, fp16, int8 (ONNX alone), or several of them.
        preprocess: Put resizing and normalization into the graph, which then takes raw uint8 images of any size (onnx,
            torch).
        fold: Move BatchNorm into the convolutions before it (onnx, torch, torchscript; int8 always does).
        check: Compare with the run on its test images, or its validation images if it has no others.
        images: Maximum number of images of the check.
        calibration: Number of training images that int8 is calibrated on.
        max_drop: Largest fall of the score that is accepted, points.
        overwrite: Replace files that stochnorm did not write, too.
        repository: OWNER/NAME on the Hugging Face Hub to push to; empty for none.
        public: Let everyone see a new repository.

    Raises:
        ValueError: A format, precision or option does not fit the model or another one; or a file disagrees with the
            run.
        FileNotFoundError: The run or its images do not exist.
        FileExistsError: A file is in the way.
        ModuleNotFoundError: The packages for ONNX are not installed.

    Example:
        >>> export("runs/photos", "onnx", "photos.onnx").files[0].check.agreement  # doctest: +SKIP
        100.0
    """
    if repository:
        check_repository(repository)
    if images < 1 or calibration < 1 or not max_drop >= 0:
        raise ValueError(
            f"images and calibration must be at least 1, max_drop at least 0, got {images}, {calibration}, {max_drop}"
        )
    classifier = load_classifier(run)
    path = Path(run)
    request = Request.of(classifier, path, format, precision, out, preprocess=preprocess, fold=fold)
    if "onnx" in request.formats:
        needs_onnx()
    request.check_targets(overwrite)
    job = _Job(classifier, Run(path), request, calibration, max_drop)
    reference = job.reference(images) if check else None
    request.make_folder()
    files = [job.write(wanted, reference) for wanted in request.wanted]
    done = Export(
        path,
        files,
        None if reference is None else reference.score,
        None if reference is None else latency(job.deployed(raw=False), reference.images.inputs()[:1]),
        None if reference is None or reference.recorded is None else (reference.recorded, len(reference.images.store)),
    )
    if not repository:
        return done
    main = next((file for file in files if file.format == "timm"), files[0])
    address = push(
        [f.path for f in files], job.card(main.about, main.format, main.path.name), repository, public=public
    )
    return Export(done.run, files, done.score, done.latency, done.recorded, address)


class _Job:
    """One call: the model, and how each file is made of it."""

    def __init__(self, classifier: Classifier, run: Run, request: Request, calibration: int, max_drop: float) -> None:
        self._classifier, self._run, self._request = classifier, run, request
        self._calibration, self._max_drop = calibration, max_drop
        self._whole: Path | None = None  # the ONNX file in fp32, which int8 is made from

    def reference(self, most: int) -> Reference:
        """Return the run's predictions for its test images, or those of validation."""
        images = read_images_of(self._run, self._classifier, ("test", "val"), most)
        if images.split == "val":
            warnings.warn("the run has no test images: files are checked on the validation images", stacklevel=3)
        return Reference.of(images, self._classifier, images.recorded(self._run, self._classifier))

    def deployed(self, *, raw: bool, fold: bool = False, half: bool = False) -> Deployed:
        """Return the network to export."""
        network: nn.Module = plain_network(self._classifier, fold=fold)
        return Deployed(self._classifier, network, raw=raw, half=half)

    def card(self, about: dict[str, Any], format: str, file: str) -> str:
        """Return the model card."""
        return model_card(self._run, self._classifier, about, format, file)

    def write(self, wanted: Wanted, reference: Reference | None) -> Exported:
        """Write one file, and check it before it is there under its name."""
        raw, fold = self._request.preprocess, self._request.fold or wanted.precision == "int8"
        output = "logits" if wanted.format in ("timm", "safetensors") else "probabilities"
        about = about_of(
            self._classifier, name=self._request.name, raw=raw, fold=fold, precision=wanted.precision, output=output
        )
        model = self.deployed(raw=raw, fold=fold, half=wanted.precision == "fp16")
        if wanted.format == "timm":
            return self._write_folder(wanted, about, model, reference)
        with atomic_path(wanted.path) as temporary:
            if wanted.precision == "int8":
                self._write_int8(model, about, temporary)
            else:
                FORMATS[wanted.format].write(model, about, temporary)
            found = self._checked(wanted, temporary, model, reference)
        if (wanted.format, wanted.precision) == ("onnx", "fp32"):
            self._whole = wanted.path
        return Exported(wanted.path, wanted.format, wanted.precision, wanted.path.stat().st_size, about, found)

    def _write_folder(
        self, wanted: Wanted, about: dict[str, Any], model: Deployed, reference: Reference | None
    ) -> Exported:
        card = self.card(about, wanted.format, wanted.path.name)
        with tempfile.TemporaryDirectory() as elsewhere:
            trial = Path(elsewhere) / "model"
            half = wanted.precision == "fp16"
            write_timm(self._classifier, model.network, about, card, trial, half=half)
            found = self._checked(wanted, trial, model, reference)
        write_timm(self._classifier, model.network, about, card, wanted.path, half=half)
        size = sum(file.stat().st_size for file in wanted.path.iterdir())
        return Exported(wanted.path, wanted.format, wanted.precision, size, about, found)

    def _write_int8(self, model: Deployed, about: dict[str, Any], path: Path) -> None:
        images = read_images_of(self._run, self._classifier, ("train",), self._calibration)

        def inputs() -> Iterator[Tensor]:
            for i in range(len(images.store)):
                yield images.raw(i) if self._request.preprocess else images.inputs_of(i)

        with tempfile.TemporaryDirectory() as folder:
            whole = self._whole
            if whole is None:
                whole = Path(folder) / "fp32.onnx"
                FORMATS["onnx"].write(model, about, whole)
            quantize(whole, about, inputs(), path)

    @torch.no_grad()
    def _checked(self, wanted: Wanted, path: Path, model: Deployed, reference: Reference | None) -> Check | None:
        """Compare a file with the run.

        Raises:
            ValueError: They disagree.
        """
        if reference is None:
            return None
        file = opened(path, wanted.format, model)
        found = compare(file, reference, raw=model.squares is not None, squares=model.squares)
        fault = fault_of(found, wanted.precision, raw=model.squares is not None, max_drop=self._max_drop)
        if not fault and model.squares is not None:
            image = reference.images.raw(0)
            apart = float((file(image) - model(image)).abs().max())
            if not apart <= TOLERANCE[wanted.precision]:
                fault = f"its probabilities differ from PyTorch's by {apart:.2g}, from the same raw image"
        if fault or not math.isfinite(found.difference):
            remedy = "use another precision or format" if wanted.precision != "fp32" else "use another format"
            raise ValueError(f"{wanted.path} was not written: {fault or 'its output is not finite'}; {remedy}")
        return found
