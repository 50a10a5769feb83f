"""Writing files so that a kill never leaves half of one."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the place of `path`, else it is removed.

    The temporary name keeps the suffix, because writers choose the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` in one step, creating the folder where needed."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write `content` as indented JSON in one step; not-a-number is refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def json_rows(table: pd.DataFrame) -> list[Mapping[str, object]]:
    """Return the rows of a table for `write_json`, where nothing stands for not-a-number."""
    return [
        {str(name): None if isinstance(entry, float) and math.isnan(entry) else entry for name, entry in row.items()}
        for row in table.to_dict(orient="records")
    ]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
