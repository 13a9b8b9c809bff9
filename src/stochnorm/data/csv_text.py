"""CSV files as text, with line numbers for messages."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from stochnorm.text import some

__all__ = ["decode", "read_csv"]


def read_csv(path: Path, data: bytes | None = None) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a CSV file: its columns in lower case, and its records with their line numbers.

    Args:
        path: The file.
        data: Content of the file; None: read it.

    Returns:
        The columns, and a line number and a value per column for each record. Names and values are stripped; a missing
        value is "".

    Raises:
        ValueError: A duplicate column, a line with more values than columns, a line break in a value, an unclosed
            quote, or a file that is not UTF-8.
    """
    text = io.StringIO(decode(path, path.read_bytes() if data is None else data), newline="")
    reader = csv.reader(text, strict=True)
    records = []
    last = 0
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        twice = sorted({name for name in columns if name and columns.count(name) > 1})
        if twice:
            raise ValueError(f"{path}: duplicate column {some(twice)} in the first line; keep one")
        last = reader.line_num
        for values in reader:
            first, last = last + 1, reader.line_num
            if any(value.strip() for value in values[len(columns) :]):
                raise ValueError(
                    f"{path}:{last}: {len(values)} values for {len(columns)} columns; put a value that contains a "
                    'comma in "quotes"'
                )
            if any("\n" in value or "\r" in value for value in values):
                raise ValueError(
                    f"{path}:{first}: a value continues on line {last}; close its quote or remove the line break"
                )
            if values:
                padded = [value.strip() for value in values] + [""] * len(columns)
                records.append((last, dict(zip(columns, padded, strict=False))))
    except csv.Error as error:
        raise ValueError(f"{path}:{last + 1}: cannot be read as CSV ({error}); correct the line") from error
    return columns, records


def decode(path: Path, data: bytes) -> str:
    """Decode the bytes of a UTF-8 file.

    Raises:
        ValueError: The bytes are not UTF-8; the message names file and line.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}:{line}: is not UTF-8 text (byte 0x{data[error.start]:02x}); save it as UTF-8 "
            '(in a spreadsheet: "CSV UTF-8")'
        ) from error
