"""How tables are read and written, and what a column may hold; `rdgap.schemas` declares the columns.

Tables are CSV files, long and tidy: one row per image, codec and setting, units in the column names, one header
line, UTF-8, LF line ends, numbers in full precision, rows sorted. `num_pixels` is always there, so that
any average can be formed later.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING

from ._files import replacing

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Column:
    """What the entries of a column may be.

    Attributes:
        kind: `str` (not empty), `int` or `float`.
        minimum: Least number allowed.
        may_be_nan: Whether not-a-number, an empty entry in the file, is allowed.
        may_be_infinite: Whether plus infinity is allowed.
        one_of: The only texts allowed; empty for any.
        default: What a table without the column has in every row; None: it may not be without.
    """

    kind: type[str] | type[int] | type[float]
    minimum: float = -math.inf
    may_be_nan: bool = False
    may_be_infinite: bool = False
    one_of: tuple[str, ...] = ()
    default: str | int | float | None = None

    def __str__(self) -> str:
        if self.kind is str:
            return " or ".join(map(repr, self.one_of)) or "a text"
        noun = "a whole number" if self.kind is int else "a number"
        bound = f" of at least {self.minimum:g}" if self.minimum > -math.inf else ""
        return noun + bound + (" or empty" if self.may_be_nan else "")


Schema = Mapping[str, Column]
"""The columns of a table by name, in their order."""


def read_table(path: Path, schema: Schema, *, growing: bool = False) -> pd.DataFrame:
    """Read a CSV table that has exactly the columns of `schema`, in any order; returned in that of `schema`.

    Columns with a default may be missing, and are there when the table is returned. Of a table that was `growing` a
    last line without its end is left out: a kill has cut it short.

    Raises:
        ValueError: If a column is missing, unknown or named twice, an entry is not what its column allows, or
            there is no row.
        OSError: If the file cannot be read.
    """
    import pandas as pd

    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        header, *rows = csv.reader(io.StringIO(text[: text.rfind("\n") + 1] if growing else text, ""), strict=True)
    except (ValueError, csv.Error) as error:  # no line at all, not UTF-8, or a quote left open
        raise ValueError(f"{path}: not a CSV table: {error}.") from error
    _check_columns(header, schema, path)
    if not rows:
        raise ValueError(f"{path}: a table must have at least one row, got the header only.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ValueError(f"{path}: row {number} must have {len(header)} entries, got {len(row)}.")
    return pd.DataFrame(
        {
            name: [_checked(_number(row[header.index(name)], column), name, column, path) for row in rows]
            if name in header
            else column.default
            for name, column in schema.items()
        }
    )


def write_table(path: Path, frame: pd.DataFrame, schema: Schema) -> None:
    """Write a table of exactly the columns of `schema` as CSV, rows sorted, in one step.

    Equal content gives equal bytes, whatever the order of the rows and columns was: a column that holds nothing but its
    default is left out, as it is from tables older than the column.

    Raises:
        ValueError: If a column is missing, unknown or named twice, an entry is not what its column allows, or
            there is no row.
    """
    path = Path(path)
    _check_columns(list(frame.columns), schema, path)
    if frame.empty:
        raise ValueError(f"{path}: a table must have at least one row, got none.")
    needed = [
        name for name, column in schema.items() if name in frame.columns and not _is_default(list(frame[name]), column)
    ]
    checked = _all_checked(frame, schema, path).loc[:, needed]
    with replacing(path) as temporary:
        temporary.write_text(_lines(checked.sort_values(needed), header=True), encoding="utf-8", newline="")


def append_rows(path: Path, frame: pd.DataFrame, schema: Schema) -> None:
    """Add rows to the end of a file that a table grows in: every column of `schema`, rows as they come.

    `read_table` reads it with `growing`, whenever the process that writes it may have been killed. Errors as
    `write_table`.
    """
    _check_columns(list(frame.columns), schema, path)
    is_new = not path.exists() or path.stat().st_size == 0
    lines = _lines(_all_checked(frame, schema, path), header=is_new)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:  # whole lines in one write
        file.write(lines.encode("utf-8"))


def _all_checked(frame: pd.DataFrame, schema: Schema, path: Path) -> pd.DataFrame:
    """Return all columns of a schema in their order, with every entry as the type of its column."""
    import pandas as pd

    return pd.DataFrame(
        {
            name: [_checked(entry, name, column, path) for entry in frame[name]]
            if name in frame.columns
            else [column.default] * len(frame)
            for name, column in schema.items()
        }
    )


def _lines(frame: pd.DataFrame, *, header: bool) -> str:
    return frame.to_csv(index=False, header=header, lineterminator="\n")


def _is_default(entries: Sequence[object], column: Column) -> bool:
    """Whether a column holds nothing but its default."""
    if isinstance(column.default, float) and math.isnan(column.default):
        return all(isinstance(entry, float) and math.isnan(entry) for entry in entries)
    return column.default is not None and set(entries) == {column.default}


def _check_columns(names: Sequence[str], schema: Schema, path: Path) -> None:
    missing = [name for name, column in schema.items() if name not in names and column.default is None]
    wrong = [name for position, name in enumerate(names) if name not in schema or name in names[:position]]
    if missing or wrong:
        raise ValueError(
            f"{path}: the columns must be {', '.join(schema)}; "
            f"missing: {', '.join(missing) or 'none'}; unknown or twice: {', '.join(map(str, wrong)) or 'none'}."
        )


def _number(text: str, column: Column) -> str | int | float:
    """Return the number that a text of a numeric column stands for, or the text where it stands for none."""
    if column.kind is str:
        return text
    try:
        return column.kind(text or "nan")
    except ValueError:
        return text


def _checked(entry: object, name: str, column: Column, path: Path) -> str | int | float:
    """Return an entry as the type of its column, or refuse it."""
    if column.kind is str:
        if isinstance(entry, str) and entry and (not column.one_of or entry in column.one_of):
            return entry
    elif isinstance(entry, Integral if column.kind is int else Real) and not isinstance(entry, bool):
        number = int(entry) if isinstance(entry, Integral) and column.kind is int else float(entry)
        if _is_allowed(number, column):
            return number
    raise ValueError(f"{path}: `{name}` must be {column}, got {entry!r}.")


def _is_allowed(number: float, column: Column) -> bool:
    if math.isnan(number):
        return column.may_be_nan
    return number >= column.minimum and (column.may_be_infinite or math.isfinite(number)) and number > -math.inf
