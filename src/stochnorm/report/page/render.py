"""The page: the sections' parts, put into the template."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stochnorm.plotting import palette_css
from stochnorm.report.page.content import Content, gather
from stochnorm.report.page.glossary import glossary
from stochnorm.report.page.header import header
from stochnorm.report.page.sections import SECTIONS
from stochnorm.report.tables.content import scales
from stochnorm.runs.records import Failure, Record
from stochnorm.runs.scores import SCORES
from stochnorm.text import count, decimals, duration, interval, signed, spaced_p

__all__ = ["format_report"]


def format_report(
    records: Sequence[Record],
    *,
    root: Path,
    title: str = "",
    failures: Sequence[Failure] = (),
    reference: str = "vanilla",
    notes: Sequence[str] = (),
) -> str:
    """Return the text of the page; see [stochnorm.write_report][]. The notes are shown in its header."""
    if not records and not failures:
        raise ValueError("a report needs at least one finished run, got none; give directories of runs")
    content = gather(records, root=root, failures=failures, reference=reference, notes=notes)
    return _render(_context(content, title))


def _context(content: Content, title: str) -> dict[str, Any]:
    found = [(section, part) for section in SECTIONS if (part := section.part(content)) is not None]
    figures = {name: figure for _, part in found for name, figure in part.figures.items()}
    explained = glossary({term for section, part in found for term in (*section.terms, *part.terms)})
    links = [link for section, part in found for link in ((section.id, part.title or section.title), *part.links)]
    return {
        "header": header(content, title),
        "links": [
            ("top", "Overview"),
            *(link for link in links if link[1]),
            *([("reading", "How to read")] if explained else []),
        ],
        "sections": [(section, part.values) for section, part in found],
        "glossary": explained,
        "several": content.view is not None,
        "reference": content.reference,
        "scale": scales(content.records),
        "style": content.style,
        "figures": figures,
        "heights": {name: figure["layout"]["height"] for name, figure in figures.items()},
        "thumbnails": content.images,
    }


def _render(context: dict[str, Any]) -> str:
    # What comes from files is escaped: text by autoescape, data by tojson. Only our own files are not.
    environment = Environment(
        loader=PackageLoader("stochnorm.report.page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"num": decimals, "signed": signed, "p": spaced_p, "duration": duration, "count": count}
    environment.filters |= {"interval": interval, "soft": _soft}
    scripts = [_plotly(), _own("page.js")]
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )
    return environment.get_template("page.html").render(
        {
            "css": Markup(palette_css() + _own("page.css")),  # noqa: S704 our own
            "scripts": [Markup(script) for script in scripts],  # noqa: S704 our own and Plotly's
            "policy": policy,
            "version": version("stochnorm"),
            "date": datetime.now().astimezone().strftime("%-d %B %Y"),
            "SCORES": SCORES,
            **context,
        }
    )


def _own(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # slow to import

    return str(get_plotlyjs())


def _soft(name: str) -> Markup:
    """Allow line breaks after the punctuation of a name."""
    return Markup("").join(Markup("{}<wbr>").format(part) for part in re.findall(r"[^_./+-]+[_./+-]*|[_./+-]+", name))
