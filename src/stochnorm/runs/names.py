"""Names of runs and of their data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from stochnorm.runs.config import FinetuneConfig

__all__ = ["data_name", "run_name"]


def data_name(data: str) -> str:
    """Return a short name of DATA: that of its folder or file; for `manifest.csv` that of the folder around it.

    Example:
        >>> data_name("photos/manifest.csv"), data_name("photos/birds.csv"), data_name("photos/")
        ('photos', 'birds', 'photos')
    """
    path = Path(data).resolve()
    return path.parent.name if path.name == "manifest.csv" else path.stem


def run_name(config: FinetuneConfig) -> str:
    """Return DATA-METHOD-HASH; the hash is that of the settings that change the result."""
    digest = hashlib.sha256(json.dumps(config.result_fields(), sort_keys=True).encode()).hexdigest()[:8]
    return f"{data_name(config.data)}-{config.method}-{digest}"
