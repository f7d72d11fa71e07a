"""CSV tables of text: everything is a string, and every error names the file and the line.

Python's ``csv`` module reads them, strictly and in chunks, because it knows the physical line of each row; polars holds
them. An empty cell is the empty string; there are no nulls.
"""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from medtool.errors import ManifestError, reason_of

_CHUNK_ROWS = 50_000
_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_RESAVE = "save the table as UTF-8 CSV with commas"


@dataclass(frozen=True, slots=True, eq=False)
class TextTable:
    """A table of text and where each of its rows came from.

    Attributes
    ----------
    frame
        Every column a string column without nulls.
    path
        The file, for messages.
    lines
        The physical line, counted from 1, that each row starts on.
    """

    frame: pl.DataFrame
    path: Path
    lines: Sequence[int]

    def where(self, row: int) -> str:
        """Return the place of a row, counted from 0, for a message."""
        return f"{self.path}, line {self.lines[row]}"

    def rows(self) -> Iterator[dict[str, str]]:
        """Yield each row as a dict, in order."""
        return self.frame.iter_rows(named=True)


def read_text_table(path: Path, *, may_have_index: bool = False) -> TextTable:
    """Read a CSV file: UTF-8 with or without a byte order mark, commas, a header, rows of one length.

    Blank lines are passed over. Nothing is stripped, guessed or converted.

    Parameters
    ----------
    may_have_index
        Whether the first column may be without a name, as pandas writes its index; its name is then empty.

    Raises
    ------
    ManifestError
        With the file and, where one is at fault, its line.
    """
    data = _bytes_of(path)
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline=""), strict=True)
    start = 1
    try:
        header = next(reader, [])
        _check_header(path, header, may_have_index=may_have_index)
        lines = array("Q")
        chunks: list[pl.DataFrame] = []
        rows: list[list[str]] = []
        start = reader.line_num + 1
        for row in reader:
            if row:
                if len(row) != len(header):
                    raise ManifestError(
                        f"{path}, line {start}: {_fields(len(row))} where the header has {len(header)}",
                        hint="put quotes around a value that holds a comma",
                    )
                lines.append(start)
                rows.append(row)
                if len(rows) == _CHUNK_ROWS:
                    chunks.append(_frame(header, rows))
                    rows = []
            start = reader.line_num + 1
    except csv.Error as error:
        raise _malformed(path, start, error) from error
    except UnicodeDecodeError as error:
        raise _undecodable(path, data) from error
    if rows or not chunks:
        chunks.append(_frame(header, rows))
    if not lines:
        raise ManifestError(f"{path} has a header and no rows")
    return TextTable(pl.concat(chunks, rechunk=True), path, lines)


def _frame(header: list[str], rows: list[list[str]]) -> pl.DataFrame:
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    # By name, not as a list of series: of these polars gives one without a name another.
    return pl.DataFrame(
        {name: pl.Series(values, dtype=pl.String) for name, values in zip(header, columns, strict=True)}
    )


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"


def _bytes_of(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {reason_of(error)}") from error
    if not data.strip():
        raise ManifestError(f"{path} is empty")
    for mark, name in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            raise ManifestError(f"{path}, line 1: the file is {name}; it must be UTF-8", hint=_RESAVE)
    nul = data.find(b"\0")
    if nul >= 0:
        raise ManifestError(
            f"{path}, line {_line_at(data, nul)}: a NUL byte; this is not a CSV file in UTF-8", hint=_RESAVE
        )
    return data


def _line_at(data: bytes, offset: int) -> int:
    """Return the physical line of a byte, where CR LF, LF and CR each end one."""
    before = data[:offset]
    return 1 + before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n")


def _check_header(path: Path, header: list[str], *, may_have_index: bool) -> None:
    seen: dict[str, int] = {}
    for position, name in enumerate(header, start=1):
        if not name.strip() and not (may_have_index and position == 1 and not name):
            hint = "pandas writes its index so: DataFrame.to_csv(..., index=False)" if position == 1 else None
            raise ManifestError(f"{path}, line 1: column {position} has no name", hint=hint)
        if name in seen:
            raise ManifestError(f"{path}, line 1: columns {seen[name]} and {position} are both called {name!r}")
        seen[name] = position
    if not header:
        raise ManifestError(f"{path}, line 1: the line is blank; the first line must name the columns")


def _malformed(path: Path, start: int, error: csv.Error) -> ManifestError:
    text = str(error)
    if "unexpected end of data" in text:
        return ManifestError(f"{path}, line {start}: a quote that is opened in this row is never closed")
    if "field larger" in text:
        return ManifestError(
            f"{path}, line {start}: a value of more than {csv.field_size_limit():,} characters",
            hint="look for a quote that is opened in this row and never closed",
        )
    if "expected after" in text:
        return ManifestError(
            f"{path}, line {start}: text after a closing quote; write a quote inside a quoted value twice"
        )
    return ManifestError(f"{path}, line {start}: {text}")


def _undecodable(path: Path, data: bytes) -> ManifestError:
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # utf-8-sig counts from behind the mark.
        offset = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        value = data[offset]
        return ManifestError(f"{path}, line {_line_at(data, offset)}: byte 0x{value:02x} is not UTF-8", hint=_RESAVE)
    raise AssertionError("called for a file that decodes")
