"""Pages and tables, written to files."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from stochnorm.files import check_target, write_text
from stochnorm.kinds import read_json
from stochnorm.outputs import PAGE, TABLES, Output
from stochnorm.report.page.render import format_report
from stochnorm.report.tables import write_tables
from stochnorm.runs.directory import Run
from stochnorm.runs.kinds import FailureKind
from stochnorm.runs.records import Failure, Record, read_records
from stochnorm.text import count, some

__all__ = ["report", "write_report"]


def write_report(
    records: Sequence[Record],
    path: Path,
    *,
    root: Path,
    title: str = "",
    failures: Sequence[Failure] = (),
    reference: str = "vanilla",
) -> None:
    """Write one HTML page on runs; it loads nothing from the network.

    One run: its scores, curves, classes, confusion, mistakes, calibration. Several runs: the best method and those tied
    with it, scores and gains by sampling rate, cost, and details of at most 100 runs, chosen by a rule that the page
    names.

    Args:
        records: Finished runs.
        path: File to write.
        root: Folder to which the runs' directories are relative; the page leaves out the content of missing ones.
        title: Title of the page; empty: made from the methods and data sets.
        failures: Failed runs, which the page lists.
        reference: Variant with which others are compared.

    Raises:
        ValueError: There is neither a run nor a failure; or as [stochnorm.report.statistics.summarize][].
        OSError: The file cannot be written.
    """
    check_target(path)
    with _readable(f"the {count(len(records), 'record')}"):
        text = format_report(records, root=root, title=title, failures=failures, reference=reference)
    write_text(path, text)


def report(
    paths: Iterable[str | Path],
    out: str | Path = "",
    *,
    title: str = "",
    reference: str = "vanilla",
    overwrite: bool = False,
) -> list[Path]:
    """Write the page on runs, and their tables (Markdown, LaTeX, CSV) beside it; into a pipe or device the page alone.

    Args:
        paths: Directories of runs or of comparisons, and files of records.
        out: File of the page; empty: ``report.html`` in the only directory, or beside the only file; of several, in the
            folder ``report`` of the working directory, which is made.
        title: Title of the page; empty: made from the methods and data sets.
        reference: Variant with which others are compared.
        overwrite: Replace files too that are no reports and tables of stochnorm.

    Returns:
        The files that were written, the page first.

    Raises:
        FileNotFoundError: There is no finished run.
        ValueError: A file is damaged.
        FileExistsError: A file to write exists and is not of stochnorm.

    Example:
        >>> report(["runs/photos"])  # doctest: +SKIP
        [PosixPath('runs/photos/report.html'), PosixPath('runs/photos/results.md'), ...]
    """
    finished = _finished([Path(path) for path in paths])
    places = list(finished)
    records: dict[str, Record] = {}
    for path in places:
        for record in finished[path]:
            # The runs of a file are relative to it.
            run = path.parent / record.run if path.is_file() else Path(record.run)
            records.setdefault(str(run.resolve()), replace(record, run=str(run)))
    if out:
        page = Path(out)
    elif len(places) > 1:
        page = Path("report/report.html")
        page.parent.mkdir(exist_ok=True)
    else:
        page = (places[0] if places[0].is_dir() else places[0].parent) / "report.html"
    found = list(records.values())
    written = Output(page, PAGE, overwrite)
    if page.name in TABLES:
        raise ValueError(f"{page} is the name of a table that is written beside the page; choose another --out")
    tables = {} if written.streams else TABLES  # beside a device is no place for files
    for output in (written, *(Output(page.parent / name, kind, overwrite) for name, kind in tables.items())):
        output.check()
    notes = [note for path in places for note in _failed(path)]
    with _readable(some([str(path) for path in places])):
        text = format_report(found, root=Path(), title=title, reference=reference, notes=notes)
    written.write(text)
    return [page, *(write_tables(found, page.parent, reference) if tables else [])]


def _finished(paths: Sequence[Path]) -> dict[Path, list[Record]]:
    """Return the records of each path; warn of those without a finished run, unless there is no other.

    Raises:
        FileNotFoundError: There is no finished run, or no such path.
    """
    found: dict[Path, list[Record]] = {}
    empty: list[FileNotFoundError] = []
    for path in paths:
        try:
            found[path] = read_records([path])
        except FileNotFoundError as error:
            if not path.exists():
                raise
            empty.append(error)
    if empty and not found:
        raise empty[0]
    if empty:
        names = some([str(path) for path in paths if path not in found])
        warnings.warn(f"no finished run in {names}; left out of the report", stacklevel=3)
    return found


def _failed(path: Path) -> list[str]:
    """Name the failed runs of a comparison's directory, in a sentence."""
    reasons = {
        file.parent.name: _reason(file)
        for file in sorted(path.rglob("failure.json"))
        if not Run(file.parent).result.is_file()
    }
    listed = some([f"{name} ({reason})" for name, reason in reasons.items()])
    return [f"{count(len(reasons), 'run')} in {path} failed, not counted here: {listed}."] if reasons else []


def _reason(file: Path) -> str:
    try:
        reason: str = read_json(file, FailureKind, "")["reason"]
    except (OSError, ValueError):
        return "no reason given"
    return reason


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Say which files are at fault where a page cannot be made of what they hold."""
    from jinja2 import TemplateError

    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ArithmeticError, TemplateError) as error:
        raise ValueError(
            f"{what}: a file there is damaged, or of another version ({type(error).__name__}: {error}); rerun it"
        ) from error
