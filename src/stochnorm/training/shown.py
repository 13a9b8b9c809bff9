"""The result of a run in three lines, for a terminal and for a notebook."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from stochnorm.runs.directory import Run
from stochnorm.runs.scores import SCORES
from stochnorm.text import count, interval, printable

__all__ = ["result_html", "result_lines"]


def result_lines(run: Path, record: dict[str, Any]) -> tuple[str, str, str]:
    """Return three lines: what was trained on what, how good it is, and where it is.

    Args:
        run: Directory of the run.
        record: Content of its `result.json`.
    """
    config, score = record["config"], SCORES[record["score"]]
    images = " / ".join(f"{n} {name}" for name, n in record["images"].items())
    chosen = record["method"].get("chosen", "")
    method = config["method"] + (f" (chose {chosen})" if chosen else "")
    what = f"{method} on {config['data']}: {count(len(record['classes']), score.label)}, {images} images"
    parts = []
    for name in ("validation", "test"):
        metrics = record[name] or {}
        if metrics.get(score.key) is not None:
            bounds = metrics.get(f"{score.key}_interval") if name == "test" else None
            parts.append(
                f"{name} {score.short} {metrics[score.key]:.1f} %"
                + (f" (95 % interval {interval(bounds)})" if bounds else "")
            )
    majority = (record["test"] or {}).get("majority")
    parts += [f"largest class {majority:.1f} %"] if majority is not None else []
    page = Run(run).report
    return printable(what), ", ".join(parts) or "no scores", printable(f"{page if page.is_file() else run}")


def result_html(run: Path, record: dict[str, Any]) -> str:
    """Return the same as HTML, with the curves, for a notebook."""
    what, scores, _ = map(escape, result_lines(run, record))
    files = Run(run)
    link = f'<a href="{escape(files.report.as_posix())}" target="_blank">report</a>, ' if files.report.is_file() else ""
    curves = ""
    if files.curves_svg.is_file():
        from base64 import b64encode

        data = b64encode(files.curves_svg.read_bytes()).decode()
        style = 'alt="loss and score over the steps" style="max-width:640px"'
        curves = f'<br><img {style} src="data:image/svg+xml;base64,{data}">'
    return f"<div><b>{scores}</b><br>{what}<br>{link}<code>{escape(printable(str(run)))}</code>{curves}</div>"
