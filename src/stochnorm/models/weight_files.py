"""Content of a file of weights, read without executing anything in it; other files are named for what they are."""

from __future__ import annotations

import errno
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from stochnorm.errors import ran_out

__all__ = ["read_content"]


class _StandIn:
    """An object of a class that holds data alone, such as the arguments of a training, without the data."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def _no_dictionary(*_: object) -> dict[Any, Any]:
    """Return an empty dictionary in place of one with a default value; its items follow."""
    return {}


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_HARMLESS = (
    *("argparse.Namespace", "types.SimpleNamespace", "collections.deque", "uuid.UUID", "decimal.Decimal"),
    *("fractions.Fraction", "torch.torch_version.TorchVersion", "easydict.EasyDict", "yacs.config.CfgNode"),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *(
        f"builtins.{name}"
        for name in ["bool", "dict", "float", "frozenset", "int", "list", "object", "range", "slice", "str", "tuple"]
    ),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray"),
    *(f"omegaconf.{name}" for name in ("dictconfig.DictConfig", "listconfig.ListConfig")),
    *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata")),
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Boolean", "Float", "Integer", "String")),
    "typing.Any",
)
"""Classes that training scripts keep beside weights. Reading makes a stand-in, never the class itself."""
_DICTIONARIES = (
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
_ALLOWED: list[Any] = [
    *((type(name.replace("multiarray._reconstruct", "ndarray"), (_StandIn,), {}), name) for name in _HARMLESS),
    *((dict, name) for name in _DICTIONARIES),
    (_no_dictionary, "collections.defaultdict"),
]

_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer to it; run git lfs pull where it was cloned"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"BZh", "a bzip2 archive; unpack it"),
    (b"\xfd7zXZ", "an xz archive; unpack it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it"),
    (b"\x89HDF", "an HDF5 file, as Keras writes; use weights that PyTorch reads"),
    (b"\x93NUMPY", "a NumPy array; use weights that PyTorch reads"),
    (b"GGUF", "a GGUF file; use weights of a network of timm or torchvision"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"%PDF", "a PDF document"),
)
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")
_ONNX_FIELDS = b"\x12\x1a\x22\x28\x32\x3a\x42\x72"  # that follow the version of the format


def read_content(path: Path) -> Any:
    """Read a safetensors file, or a file that `torch.save` wrote, on the CPU; the content decides, not the name.

    Objects of a few harmless classes, which training scripts keep beside their weights, become empty stand-ins.

    Raises:
        ValueError: The file is something else, is damaged, or holds objects whose reading would run code.
        OSError: It cannot be read.
        MemoryError: It does not fit into memory.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    if kind := _other_kind(head):
        raise ValueError(f"{path}: not a weight file but {kind}")
    try:
        if head[8:9] == b"{":
            return load_file(path)
        if head[:4] == b"PK\x03\x04":
            _check_archive(path)
        with path.open("rb") as file, warnings.catch_warnings(), torch.serialization.safe_globals(_ALLOWED):
            warnings.simplefilter("ignore")  # about old formats
            return torch.load(file, "cpu", weights_only=True)  # given a path, its name would decide
    except _NotWeightsError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # parsers raise errors of many kinds for other files
        if _out_of_memory(error, size):
            raise MemoryError(
                f"{path}: not enough memory to read its {size / 1e6:,.0f} MB; close other programs, or raise the limit"
            ) from error
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # which a wrong offset gives
            raise
        raise ValueError(f"{path}: {_reason(error)}") from error


class _NotWeightsError(Exception):
    """An archive that is no weight file, or a damaged one."""


def _other_kind(head: bytes) -> str:
    """Return what a file is by its first bytes; empty if it may hold weights."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head:
        return "an empty file; copy or download it again"
    if not head.strip(b"\0"):
        return "zeros, as an interrupted download leaves; download it again"
    for start, kind in _KINDS:
        if head.startswith(start):
            return kind
    if text.lower().startswith(_PAGES):
        return "a web page, such as one to log in; download the file itself"
    if text[:1] in (b"{", b"["):
        return "a JSON text; use the file of the tensors"
    if head[:1] == b"\x08" and len(head) > 2 and head[1] < 32 and head[2] in _ONNX_FIELDS:
        return "an ONNX model; use the PyTorch weights that it was exported from"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it"
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model; use weights that PyTorch reads"
    if head.isascii() and all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "a text; use the file of the tensors"
    return ""


def _check_archive(path: Path) -> None:
    """Raise _NotWeightsError unless a ZIP archive is one of torch.save, whose checksums (PyTorch reads none) match."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            inner = {member.filename.partition("/")[2] for member in members}
            if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
                raise _NotWeightsError(
                    "a TorchScript program, which reading would run; save the state_dict() of the model that it was "
                    "made from"
                )
            if "data.pkl" not in inner:
                raise _NotWeightsError(
                    f"not a weight file but a ZIP archive ({members[0].filename if members else 'empty'}); unpack it, "
                    "or save the model's state_dict()"
                )
            compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
            if compressed or (damaged := archive.testzip()):
                what = "it was packed again" if compressed else f"the checksum of {damaged} is wrong"
                raise _NotWeightsError(f"not a weight file, or damaged ({what}); copy or download it again")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise _NotWeightsError("not a weight file, or damaged (it is cut off); copy or download it again") from error


def _reason(error: Exception) -> str:
    """Return what is wrong and what to do. PyTorch's own words advise to trust the file, so they are left out."""
    if found := re.search(r"GLOBAL (\S+)", str(error)):
        return (
            f"not a PyTorch file of tensors alone: it holds {found[1]}, whose reading could run code on this machine; "
            "load it where it was made, and save its state_dict() with torch.save or safetensors"
        )
    if isinstance(error, pickle.UnpicklingError):
        return (
            "not a PyTorch file of tensors alone, or damaged (anything else could run code on this machine); save its "
            "state_dict() with torch.save or safetensors"
        )
    text = "" if "weights_only" in str(error) else next(iter(str(error).splitlines()), "")
    return f"not a weight file, or damaged ({text or type(error).__name__}); use another"


def _out_of_memory(error: Exception, size: int) -> bool:
    """Return whether memory was missing; a damaged file asks for more than it holds."""
    asked = re.search(r"tried to allocate (\d+) bytes", f"{error} {error.__cause__}")
    return int(asked[1]) <= size if asked else ran_out(error)
