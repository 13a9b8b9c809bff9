"""A page of pictures in sections, in the style of the report; it has no script and loads nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from stochnorm.data.images.decoding.decode import decode
from stochnorm.plotting import palette_css

__all__ = ["Card", "Figure", "Gallery", "Picture", "Section", "format_gallery"]

_SIDE = 240  # of the longer side of a picture, pixels: sharp at twice the density of a screen
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


class Picture(NamedTuple):
    """An image with what is said of it."""

    path: Path
    """The file."""
    name: str
    """Its path as the reader knows it."""
    tags: Sequence[str] = ()
    """Short facts, such as its class and its split."""


class Card(NamedTuple):
    """One or more pictures that belong together."""

    pictures: Sequence[Picture]
    text: str
    """What is said of all of them."""


class Figure(NamedTuple):
    """A number at the top of the page."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Section:
    """Pictures of one kind."""

    id: str
    title: str
    about: str
    """What they have in common, and what to do."""
    cards: Sequence[Card] = ()
    lines: Sequence[str] = ()
    """Facts without a picture."""
    more: str = ""
    """Where the rest is, if not all are shown."""


@dataclass(frozen=True)
class Gallery:
    """A page."""

    eyebrow: str
    title: str
    lead: str
    figures: Sequence[Figure]
    sections: Sequence[Section]
    notes: Sequence[str] = ()
    """Sentences at the end."""


def format_gallery(gallery: Gallery) -> str:
    """Return the text of the page. A picture whose file cannot be read is its name."""
    # What comes from files is escaped by autoescape. Only our own style sheets are not.
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("stochnorm.report.gallery"), PackageLoader("stochnorm.report.page")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    seen: dict[Path, str] = {}

    def source(path: Path) -> str:
        if path not in seen:
            seen[path] = _thumbnail(path)
        return seen[path]

    environment.filters["thumbnail"] = source
    report = files("stochnorm.report")
    sheets = [report / "page" / "page.css", report / "gallery" / "gallery.css"]
    css = palette_css() + "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)
    return environment.get_template("gallery.html").render(
        gallery=gallery,
        css=Markup(css),  # noqa: S704 our own
        policy=_POLICY,
        version=version("stochnorm"),
        date=datetime.now().astimezone().strftime("%-d %B %Y"),
    )


def _thumbnail(path: Path) -> str:
    """Return all of an image, small, as a JPEG data URI; empty if it cannot be read."""
    try:
        image, _ = decode(path, _enough)
    except (OSError, ValueError):
        return ""
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _enough(width: int, height: int) -> tuple[int, int]:
    share = min(2 * _SIDE / max(width, height, 1), 1.0)
    return max(round(width * share), 1), max(round(height * share), 1)
