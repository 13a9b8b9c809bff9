"""What one call asks for: formats, precisions, and the files that they go to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stochnorm.exporting.formats import FORMATS
from stochnorm.exporting.timm_folder import check_folder, check_timm
from stochnorm.models import Classifier
from stochnorm.nn.surgery import BATCH_INSTANCE, family_of
from stochnorm.outputs import Output
from stochnorm.text import some

__all__ = ["PRECISIONS", "Request", "Wanted"]

PRECISIONS = ("fp32", "fp16", "int8")
_NAMES = (*FORMATS, "timm")
_WEIGHTS = ("safetensors", "timm")  # without a graph


class Wanted(NamedTuple):
    """One file to write."""

    format: str
    precision: str
    path: Path


@dataclass(frozen=True)
class Request:
    """All files of one call, which fit the model and one another."""

    name: str
    """Name of the run."""
    wanted: list[Wanted]
    preprocess: bool
    fold: bool
    folder: Path | None
    """Folder to make; None if the user named a file."""

    @property
    def formats(self) -> set[str]:
        """The formats."""
        return {each.format for each in self.wanted}

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        run: Path,
        format: str | Sequence[str],
        precision: str | Sequence[str],
        out: str | Path,
        *,
        preprocess: bool,
        fold: bool,
    ) -> Request:
        """Check what is asked for.

        Raises:
            ValueError: A name is unknown, or two options do not fit.
        """
        formats, precisions = _listed(format, "format", _NAMES), _listed(precision, "precision", PRECISIONS)
        place = run if run.is_dir() else run.parent
        name = place.resolve().name
        for each in formats:
            _check(classifier, each, precisions, preprocess=preprocess, fold=fold)
        pairs = [(each, grain) for each in formats for grain in precisions if grain in _precisions(each)]
        several = len(pairs) > 1
        folder = None if out and not several else Path(out) if out else place / "export"
        middle = ("-raw" if preprocess else "") + ("-folded" if fold else "")
        wanted = []
        for each, grain in pairs:
            last = "" if grain == "fp32" else f"-{grain}"
            suffix = "-timm" if each == "timm" else FORMATS[each].suffix
            wanted.append(
                Wanted(each, grain, Path(out) if folder is None else folder / f"{name}{middle}{last}{suffix}")
            )
        return cls(name, wanted, preprocess, fold, folder)

    def check_targets(self, overwrite: bool) -> None:
        """Check that every file may be written, before long work.

        Raises:
            FileExistsError: Something else is there.
            FileNotFoundError: The folder around it does not exist.
        """
        if self.folder is not None:
            if self.folder.exists() and not self.folder.is_dir():
                raise FileExistsError(f"{self.folder} is a file; several files need a folder: choose another --out")
            if not self.folder.exists():
                if not self.folder.parent.is_dir():
                    raise FileNotFoundError(
                        f"cannot write {self.folder}: the folder {self.folder.parent} does not exist"
                    )
                return
        for each in self.wanted:
            if each.format == "timm":
                check_folder(each.path)
                continue
            output = Output(each.path, FORMATS[each.format].kind, overwrite)
            output.check()
            if output.streams:
                raise ValueError(f"cannot write {each.path}: a model is checked as a file; choose a file name")

    def make_folder(self) -> None:
        """Make the folder, if the user did not name a file."""
        if self.folder is not None:
            self.folder.mkdir(exist_ok=True)


def _listed(given: str | Sequence[str], what: str, known: Sequence[str]) -> list[str]:
    """Return names from a list, or from a text with commas, each once."""
    names = [part.strip() for part in given.split(",")] if isinstance(given, str) else list(given)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"{what} must be {' or '.join(known)}, got {some(unknown) if unknown else 'none'}")
    return list(dict.fromkeys(names))


def _precisions(format: str) -> tuple[str, ...]:
    return ("fp32", "fp16") if format == "timm" else FORMATS[format].precisions


def _check(classifier: Classifier, format: str, precisions: list[str], *, preprocess: bool, fold: bool) -> None:
    if not set(precisions) & set(able := _precisions(format)):
        raise ValueError(
            f"format {format} has no precision {some(precisions)}; use --format onnx, or {' or '.join(able)}"
        )
    if preprocess and (format == "timm" or not FORMATS[format].raw):
        raise ValueError(f"format {format} cannot hold the preprocessing; use --format onnx or torch")
    if format in _WEIGHTS:
        if fold:
            raise ValueError(f"format {format} holds weights by the names of plain BatchNorm; remove --fold")
        if any(family_of(module) is BATCH_INSTANCE for module in classifier.model.modules()):
            raise ValueError(
                f"format {format} needs plain BatchNorm, the run has Batch-Instance Normalization; use onnx or torch"
            )
    if format == "timm":
        check_timm(classifier)
