"""ELPV: 2,624 electroluminescence photographs of solar cells, shipped by the PyPI package ``elpv-dataset``.

Buerhop-Lux et al., *A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence Imagery*,
EU PVSEC 2018. Licence CC BY-NC-SA 4.0: not for commercial use.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from stochnorm.data.manifest import Row, Source
from stochnorm.data.published.dataset import DataSet

__all__ = ["ELPV", "read_elpv"]

ELPV = DataSet(
    name="elpv",
    title="ELPV solar cells",
    counts={"classes": 4, "images": 2624},
    licence="CC BY-NC-SA 4.0, not for commercial use",
    homepage="https://github.com/zae-bayern/elpv-dataset",
    files=(),
    obtain="it comes with a package: pip install 'stochnorm[demo]', and its name is the DATA",
)


def read_elpv() -> Source:
    """Four classes: mono- or polycrystalline cell, functional (defect probability 0) or defective (at least 1/3).

    Raises:
        FileNotFoundError: The package ``elpv-dataset`` is not installed.
    """
    spec = find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the data set elpv comes with a package: pip install 'stochnorm[demo]' (90 MB)")
    root = Path(spec.origin).parent / "data"
    rows = []
    for line in (root / "labels.csv").read_text().splitlines():
        path, probability, kind = line.split()
        state = "functional" if float(probability) == 0.0 else "defective"
        rows.append(Row(path, f"{kind} {state}"))
    return Source(root, rows, name="elpv")
