"""The worked example of CONTRIBUTING.md: two methods, added as it says to a copy of the source, appear everywhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import stochnorm

SOURCE = Path(stochnorm.__file__).parent
CONTRIBUTING = SOURCE.parents[1] / "CONTRIBUTING.md"

COMMANDS = """
import contextlib, io, sys
from stochnorm.cli.main import main

def printed(*words):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        assert main(list(words)) in (0, None), words
    return out.getvalue()

tiny = "--backbone test_resnet --weights random --image-size 32 --batch-size 8 --steps 4 --eval-every 2".split()
tiny += ["--device", "cpu", "--precision", "32"]
both = "noisy_norm+logit_decay"
texts = {
    "help": printed("finetune", "--help-all"),
    "ls": printed("ls", "methods"),
    "finetune": printed("finetune", "photos", "--method", both, "--logit-decay.strength", "0.5", "--out", "run", *tiny),
    "tune": printed("tune", "photos", "--method", both, "--trials", "2", "--out", "search", *tiny),
    "compare": printed("compare", "photos", "--methods", f"vanilla,{both}", "--no-probe", "--seeds", "2",
                       "--workers", "1", "--out", "comparison", *tiny),
}
import json; print(json.dumps(texts))
"""


def blocks() -> tuple[str, str, str]:
    """The code of the example: the two files, and the lines of the catalogue."""
    text = CONTRIBUTING.read_text().partition("## A new method")[2].partition("\n## ")[0]
    penalty, norm, catalogue = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return penalty, norm, catalogue


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the changed copy of the source in ``src``."""
    root = tmp_path_factory.mktemp("new_method")
    package = root / "src/stochnorm"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
    penalty, norm, catalogue = blocks()
    (package / "methods/logit_decay.py").write_text(penalty)
    (package / "methods/noisy_norm.py").write_text(norm)
    imports, entries, setting = catalogue.split("...\n")
    path = package / "methods/catalogue.py"
    text = path.read_text()
    for anchor, lines in (
        ("from stochnorm.methods.method import", imports),
        ("        BSS(),\n", entries),
        ("    bss: BSSConfig = ", setting),
    ):
        assert text.count(anchor) == 1
        text = text.replace(anchor, lines + anchor)
    path.write_text(text)
    return root


def test_a_method_of_one_file_and_its_lines_in_the_catalogue_is_everywhere(
    added: Path, photos: Path, tmp_path: Path
) -> None:
    environment = os.environ | {"PYTHONPATH": str(added / "src"), "COLUMNS": "120"}
    ran = subprocess.run(
        [sys.executable, "-c", COMMANDS], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250
    )
    assert ran.returncode == 0, ran.stderr
    texts = json.loads(ran.stdout.splitlines()[-1])
    assert "logit_decay, noisy_norm" in " ".join(texts["help"].split())
    assert "--logit-decay.strength FLOAT" in texts["help"]
    assert "Strength of the penalty." in texts["help"]
    for word in ("logit_decay", "--logit-decay.strength", "hold the logits near zero", "noisy_norm", "--norm-layers"):
        assert word in texts["ls"]
    assert "logit decay strength=0.5, noisy normalization" in " ".join(texts["finetune"].split())
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["method"]["name"] == "logit_decay+noisy_norm"
    assert set(result["method"]["normalization"]) == {"NoisyNorm2d"}
    assert result["method"]["terms"] == ["logit_decay"]
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(record["penalty_logit_decay"] > 0 for record in metrics)
    assert "logit_decay.strength" in (tmp_path / "run/report.html").read_text()
    assert "logit_decay.strength" in (tmp_path / "search/trials.csv").read_text().splitlines()[0]
    records = [json.loads(line) for line in (tmp_path / "comparison/records.jsonl").read_text().splitlines()]
    assert {record["variant"] for record in records} == {"vanilla", "logit_decay+noisy_norm"}
    assert "logit_decay+noisy_norm" in texts["compare"]
    assert "logit_decay+noisy_norm" in (tmp_path / "comparison/report.html").read_text()
