"""Every file of a run is damaged, and given to every command: a right result, or one line that says what is wrong.

Never a bare exception. `make soak` does the same with more damages.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stochnorm import FinetuneConfig, Grid, Variant, compare, evaluate, finetune, predict
from stochnorm.errors import reason_of
from stochnorm.report import report
from stochnorm.runs.directory import Run
from stochnorm.runs.records import read_records, record_of, write_records

COUNT = int(os.environ.get("STOCHNORM_SOAK_INPUTS", "40"))
"""Damages per kind of directory."""

OTHER_JSON = [
    "null",
    "[]",
    "{}",
    '"text"',
    "0",
    "true",
    '[{"step": "x"}]',
    '{"config": null}',
    "NaN",
    "1e999",
    "[" * 3000,
]
TEXTS = ("result.json", "metrics.jsonl", "config.json", "records.jsonl", "split.csv", "images.csv")
VALUES: list[Any] = [None, [], {}, "text", "", -1, 0, 1e300, True, [None], {"x": None}]


def mutate_value(value: Any, draw: random.Random) -> Any:
    """Replace, or remove, one value somewhere inside another one."""
    if not isinstance(value, (dict, list)) or not value or draw.random() < 0.15:
        return draw.choice(VALUES)
    key: Any = draw.choice(sorted(value) if isinstance(value, dict) else range(len(value)))
    changed = value.copy()
    if draw.random() < 0.2:
        del changed[key]
    else:
        changed[key] = mutate_value(value[key], draw)
    return changed


def damage(file: Path, draw: random.Random) -> str:
    """Damage a file in one of many ways; return which."""
    content = file.read_bytes()
    ways = ["delete", "empty", "cut", "flip", "zeros", "json", "folder", "line"]
    ways += ["inside"] * 8 if file.suffix in (".json", ".jsonl") else []
    way = draw.choice(ways)
    if way == "delete":
        file.unlink()
    elif way == "empty":
        file.write_bytes(b"")
    elif way == "cut":
        file.write_bytes(content[: draw.randrange(len(content) + 1)])
    elif way in ("flip", "zeros"):
        place = draw.randrange(max(len(content), 1))
        part = bytes(byte ^ (1 << draw.randrange(8)) for byte in content[place : place + 4])
        file.write_bytes(content[:place] + (part if way == "flip" else bytes(len(part))) + content[place + 4 :])
    elif way == "json":
        file.write_text(draw.choice(OTHER_JSON))
    elif way == "folder":
        file.unlink()
        file.mkdir()
    elif way == "line":
        lines = content.splitlines(keepends=True)
        lines.insert(draw.randrange(len(lines) + 1), draw.choice([b"\xff\xfe\n", b",,,\n", b"\0\n", b'"\n', b"{}\n"]))
        file.write_bytes(b"".join(lines))
    else:
        lines = content.splitlines() if file.suffix == ".jsonl" else [content]
        number = draw.randrange(len(lines))
        lines[number] = json.dumps(mutate_value(json.loads(lines[number]), draw)).encode()
        file.write_bytes(b"\n".join(lines) + b"\n")
    return f"{file.name}: {way}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with photos, a finished run, a stopped one, a comparison and a file of records."""
    folder = tmp_path_factory.mktemp("made")
    draw = np.random.default_rng(0)
    for name, colour in (("blue", 40), ("red", 200)):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(8):
            pixels = (colour + draw.integers(-30, 31, (24, 24, 3))).clip(0, 255).astype("uint8")
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.png")
    before = Path.cwd()
    os.chdir(folder)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        finetune(settings("done"), quiet=True)

        def stop(record: dict[str, Any]) -> None:
            if record["step"] == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            finetune(settings("stopped"), quiet=True, validated=stop)
        grid = grid_of()
        (run,) = grid.runs()
        finetune(replace(run.config, out=str(grid.directory(run, Path("grid")))), quiet=True)
        compare(grid, "grid", quiet=True)
        Path("records").mkdir()
        write_records(Path("records/records.jsonl"), [record_of(Run(Path("done")))] * 2)
    yield folder
    os.chdir(before)


def settings(out: str) -> FinetuneConfig:
    return FinetuneConfig(
        "photos", method="stochnorm", backbone="test_resnet", weights="random", image_size=32, batch_size=4, steps=6,
        eval_every=2, precision="32", device="cpu", report=False, out=out,
    )  # fmt: skip


def grid_of() -> Grid:
    return Grid(replace(settings(""), steps=2, eval_every=0), (Variant("plain", {"method": "vanilla"}),), repeats=1)


Work = Callable[[Path], Any]

COMMANDS: dict[str, list[Work]] = {
    "done": [
        lambda run: bool(report([run], run.parent / "page.html")),
        lambda run: evaluate(run).metrics,
        lambda run: evaluate(run, "photos", split="all").metrics["top1"],
        lambda run: predict(run, ["photos/red/0.png"])[0].probabilities,
        lambda run: finetune(replace(settings(str(run)), resume=True), quiet=True).record["test"],
    ],
    "stopped": [lambda run: finetune(replace(settings(str(run)), resume=True), quiet=True).record["test"]],
    "grid": [
        lambda out: len(compare(grid_of(), out, quiet=True).records),
        lambda out: bool(report([out])),
    ],
    "records": [
        lambda out: bool(report([out / "records.jsonl"], out / "page.html")),
        lambda out: len(read_records([out / "records.jsonl"])),
    ],
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_damaged_directory_is_one_line_or_a_right_result(kind: str, made: Path) -> None:
    os.environ["XDG_CACHE_HOME"] = str(made / "cache")
    draw = random.Random(f"{kind} 0")  # noqa: S311
    place = made / "damaged"
    count = COUNT if kind != "stopped" else COUNT // 8  # which trains
    expected: dict[int, Any] = {}
    wrong = []
    for number in range(count + 1):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(made / kind, place / "it")
        files = sorted(path for path in (place / "it").rglob("*") if path.is_file())
        what = damage(draw.choice(files), draw) if number else "nothing"
        for place_of_it, work in enumerate(COMMANDS[kind]):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = work(place / "it")
            except Exception as error:
                known = isinstance(error, (ValueError, OSError)) and not isinstance(error, UnicodeError)
                if not known or not reason_of(error):
                    wrong.append(f"{what}: {type(error).__name__}: {error}")
                continue
            if number == 0:
                expected[place_of_it] = found
            # Nothing tells a digit that is changed in a text from another one.
            elif found != expected[place_of_it] and not what.startswith(TEXTS):
                wrong.append(f"{what}: {found} instead of {expected[place_of_it]}")
    assert not wrong
