"""The README and the cards: their Python runs as it stands, their commands parse, their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import stochnorm
from stochnorm import FinetuneConfig
from stochnorm.cli.main import parse
from stochnorm.methods.catalogue import METHODS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_fine_tuning_from_python(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (photos / "red/000.png").rename(tmp_path / "new.jpg")
    small = partial(stochnorm.finetune, steps=4, batch_size=8, image_size=32)  # minutes otherwise
    monkeypatch.setattr(stochnorm, "finetune", small, raising=False)
    names: dict[str, Any] = {}
    exec(BLOCKS[0], names)  # noqa: S102
    said = r"^validation top-1 .*, test top-1 .* interval [\d.]+ to .*\nruns/photos/report.html\nnew.jpg \w+ 0\.\d+$"
    assert re.search(said, capsys.readouterr().out, re.M)
    assert names["logits"].shape == (1, 3)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network in place of one to download."""
    original = timm.create_model

    def create_model(name: str, pretrained: bool = False, **options: Any) -> torch.nn.Module:
        return original("resnet18" if pretrained else name, **options)

    monkeypatch.setattr(timm, "create_model", create_model)


@pytest.mark.usefixtures("offline")
def test_your_training_loop() -> None:
    names: dict[str, Any] = {}
    exec(re.sub(r"^\.\.\..*$", "kinds = {type(m).__name__ for m in model.modules()}", BLOCKS[1], flags=re.M), names)  # noqa: S102
    assert "StochNorm2d" in names["kinds"] or "StochNormAct2d" in names["kinds"]
    assert not any("Stoch" in type(m).__name__ for m in names["model"].modules())
    names |= {"images": torch.randn(2, 3, 64, 64), "labels": torch.tensor([0, 1])}
    exec(BLOCKS[2], names)  # noqa: S102
    assert names["loss"].isfinite()


CARDS = sorted((ROOT / "docs/methods").glob("[!R]*.md"))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.stem)
def test_the_python_of_a_card(card: Path) -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", card.read_text(), flags=re.DOTALL):
        exec(block, names)  # noqa: S102
    losses = [value for name, value in names.items() if name in ("loss", "penalty")]
    assert all(value.isfinite() for value in losses)


def test_the_python_of_the_guide_to_your_training_loop() -> None:
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/loops.md").read_text(), flags=re.DOTALL)
    for block in blocks:
        exec(block, names)  # noqa: S102
    assert len(blocks) == 3
    assert names["loss"].isfinite()


def test_every_page_of_the_documentation_is_in_the_navigation_of_the_site() -> None:
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert there == {page for page in listed if not page.startswith("project/")}


def test_every_method_has_a_card_and_every_card_a_method() -> None:
    assert {path.stem for path in CARDS} == set(METHODS)
    index = (CARDS[0].parent / "README.md").read_text()
    assert all(f"[`{name}`]({name}.md)" in index for name in METHODS)


@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.stem)
def test_a_card_ends_with_its_reference_and_where_to_read_it(card: Path) -> None:
    heading, reference = re.split(r"^## (.+)$", card.read_text(), flags=re.M)[-2:]
    assert heading == "Reference"
    assert "](https://" in reference


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def commands(text: str) -> list[list[str]]:
    """The arguments of stochnorm in the blocks of a shell; a line of options alone is one of finetune's."""
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines = ["stochnorm finetune photos/ " + line if line.startswith("--") else line for line in lines]
    return [
        shlex.split(line, comments=True)[1:]
        for line in lines
        if line.startswith("stochnorm ") and "[options]" not in line
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page.read_text())], ids=lambda path: path.stem)
def test_the_commands_of_a_page_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FinetuneConfig, "load", lambda path: FinetuneConfig("photos/"))
    for arguments in commands(page.read_text()):
        try:
            parse(arguments)
        except SystemExit as stop:
            if not stop.code:  # --help, --version
                continue
            pytest.fail(f"{page.name}: stochnorm {shlex.join(arguments)}")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in headings}, link


def test_the_tests_that_the_deviations_name_exist() -> None:
    faults = (ROOT / "docs/deviations.md").read_text().partition("## Faults")[2]
    names = re.findall(r"`([\w/.]*)::(\w+)`", faults)
    assert len(names) >= 13
    file = ""
    for path, name in names:
        file = path or file
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), f"{file}::{name}"


def test_the_tree_of_contributing_has_a_line_for_every_folder() -> None:
    tree = (ROOT / "CONTRIBUTING.md").read_text().partition("## The tree")[2].partition("```\n")[2].partition("```")[0]
    source = ROOT / "src/stochnorm"
    folders = {str(path.parent.relative_to(source)) for path in source.rglob("__init__.py")} - {"."}
    lines = {line.split()[0].strip("/") for line in tree.splitlines() if line.strip()}
    assert folders <= lines
