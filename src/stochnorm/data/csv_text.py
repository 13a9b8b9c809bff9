"""CSV files as text, with line numbers for messages."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from stochnorm.spreadsheet import plain
from stochnorm.text import count, some

__all__ = ["decode", "read_csv"]


def read_csv(
    path: Path, data: bytes | None = None, *, exact: bool = False
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a CSV file: its columns in lower case, and its records with their line numbers.

    A spreadsheet's first line `sep=,` and its lines of empty values are skipped, and the apostrophe of
    [stochnorm.spreadsheet.format_csv][] is not part of a value.

    Args:
        path: The file.
        data: Content of the file; None: read it.
        exact: Keep the space around values, in a file that stochnorm wrote.

    Returns:
        The columns, and a line number and a value per column for each record. Names and values are stripped; a missing
        value is "".

    Raises:
        ValueError: A duplicate column, a line with more values than columns, a line break in a value, an unclosed
            quote, a NUL, or a file that is not UTF-8.
    """
    content = decode(path, path.read_bytes() if data is None else data)
    text = io.StringIO(content, newline="")
    mark = _declared(content)
    if mark:
        text.readline()
    reader = csv.reader(text, strict=True, delimiter=mark or ",")
    skipped = 1 if mark else 0
    records = []
    last = skipped
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        twice = sorted({name for name in columns if name and columns.count(name) > 1})
        if twice:
            raise ValueError(f"{path}: duplicate column {some(twice)} in the first line; keep one")
        last = skipped + reader.line_num
        for values in reader:
            first, last = last + 1, skipped + reader.line_num
            if any(value.strip() for value in values[len(columns) :]):
                raise ValueError(
                    f"{path}:{last}: {len(values)} values for {count(len(columns), 'column')} "
                    f"({','.join(columns)}); put a value that contains a comma in "
                    '"quotes"'
                )
            if any("\n" in value or "\r" in value for value in values):
                raise ValueError(
                    f"{path}:{first}: a value continues on line {last}; close its quote or remove the line break"
                )
            stripped = [value.strip() for value in values]
            if any(stripped):
                padded = [plain(value) for value in (values if exact else stripped)] + [""] * len(columns)
                records.append((last, dict(zip(columns, padded, strict=False))))
    except csv.Error as error:
        raise ValueError(f"{path}:{last + 1}: cannot be read as CSV ({error}); correct the line") from error
    return columns, records


def _declared(content: str) -> str:
    """Return the separator that a spreadsheet's first line `sep=;` names; empty without such a line."""
    first = io.StringIO(content, newline="").readline().rstrip("\r\n").strip('"')
    return first[4:] if first[:4].lower() == "sep=" and first[4:] in (",", ";", "\t", "|") else ""


def decode(path: Path, data: bytes) -> str:
    """Decode the bytes of a UTF-8 file.

    Raises:
        ValueError: The bytes are not UTF-8, or hold a NUL; the message names file and line.
    """
    where = f"{path}:{data.partition(bytes(1))[0].count(10) + 1}"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or bytes(1) in data:
        raise ValueError(
            f'{where}: is not UTF-8 text (it has a NUL, as in UTF-16); save it as UTF-8 (in a spreadsheet: "CSV UTF-8")'
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}:{line}: is not UTF-8 text (byte 0x{data[error.start]:02x}); save it as UTF-8 "
            '(in a spreadsheet: "CSV UTF-8")'
        ) from error
