"""Print the lower bounds of pyproject.toml as pip's constraints: pip install --constraint <(python .ci/lowest.py) ."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:  # pip brings it
    from pip._vendor import tomli as tomllib

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
bounds = (re.match(r"([\w.-]+)(?:>=|==)([\w.]+)", need) for need in project["dependencies"])
sys.stdout.write("".join(f"{bound[1]}=={bound[2]}\n" for bound in bounds if bound))
