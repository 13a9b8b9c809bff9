"""ELPV: 2,624 electroluminescence photographs of solar cells, in the PyPI package `elpv-dataset`.

Buerhop-Lux et al., *A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence Imagery*,
EU PVSEC 2018. Licence CC BY-NC-SA 4.0: not for commercial use.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from stochnorm.data.manifest import Row, Source
from stochnorm.data.published.dataset import DataSet

__all__ = ["ELPV", "list_elpv"]


def list_elpv(root: Path) -> Source:
    """Read `labels.csv`: mono- or polycrystalline cells, functional (defect probability 0) or defective (from 1/3)."""
    rows = []
    for line in (root / "labels.csv").read_text().splitlines():
        path, probability, kind = line.split()
        state = "functional" if float(probability) == 0.0 else "defective"
        rows.append(Row(path, f"{kind} {state}"))
    return Source(root, rows, name="elpv")


def _installed() -> Path:
    spec = find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the data set elpv comes with a package: pip install 'stochnorm[elpv]' (90 MB)")
    return Path(spec.origin).parent / "data"


ELPV = DataSet(
    name="elpv",
    title="ELPV solar cells",
    subject="photographs of solar cells",
    counts={"classes": 4, "images": 2624},
    licence="CC BY-NC-SA 4.0, not for commercial use",
    homepage="https://github.com/zae-bayern/elpv-dataset",
    files=(),
    obtain="it comes with a package: pip install 'stochnorm[elpv]', then use elpv as DATA",
    installed=_installed,
    list_images=list_elpv,
)
