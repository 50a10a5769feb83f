"""Downloading: with progress, going on where an earlier run stopped, and nothing taken that fails its checksum."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from .catalog import RemoteFile

ATTEMPTS = 5
_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60.0


def download(file: RemoteFile, target: Path, *, pause_seconds: float = 2.0) -> None:
    """Download a file to `target`, which appears only when it is whole and has its checksum.

    What has come so far lies beside it under a name ending in `.part`, from where the next attempt or run goes on.

    Args:
        file: What to download.
        target: Where to; not touched if it exists.
        pause_seconds: Between attempts after a broken connection.

    Raises:
        ValueError: If the checksum is wrong; what came is removed.
        OSError: If the server refuses, or the connection breaks time and again.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _fetch_rest(file, part)
            break
        except HTTPError as error:
            raise OSError(f"{file.url}: the server answered {error.code} {error.reason}.") from error
        except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
            if attempt == ATTEMPTS:
                raise OSError(
                    f"{file.url}: no whole file after {ATTEMPTS} attempts ({getattr(error, 'reason', error)}); "
                    f"the same command goes on from {part}."
                ) from error
            time.sleep(pause_seconds)
    check(file, part)
    part.replace(target)


def _fetch_rest(file: RemoteFile, part: Path) -> None:
    """Append what is missing of the file; from the start where the server cannot go on or has another file by now."""
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    with _answer(file.url, have) as (response, starts_at, total):
        if response is None:  # nothing is missing
            return
        progress = tqdm(
            total=total, initial=starts_at, desc=file.name, unit="B", unit_scale=True, unit_divisor=1024, disable=None
        )
        with part.open("r+b" if starts_at else "wb") as out, progress:
            out.seek(starts_at)
            while chunk := response.read(_CHUNK_BYTES):
                out.write(chunk)
                progress.update(len(chunk))
            out.truncate()
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(f"it broke after {part.stat().st_size} of {total} bytes")


@contextmanager
def _answer(url: str, have: int) -> Iterator[tuple[HTTPResponse | None, int, int | None]]:
    """Ask for a file from byte `have` on; yield the answer, where it starts, and the length of the whole file."""
    headers = {"User-Agent": "rdgap", "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=_TIMEOUT_SECONDS)
    except HTTPError as error:
        if not (have and error.code == 416):
            raise
        whole = error.headers.get("Content-Range", "").rpartition("/")[2]  # "bytes */1234"
        if whole == str(have):
            yield None, have, have
            return
        response = urlopen(Request(url, headers={"User-Agent": "rdgap"}), timeout=_TIMEOUT_SECONDS)
    with response:
        start, total = 0, response.headers.get("Content-Length")
        if response.status == 206:
            span, _, whole = response.headers.get("Content-Range", "").partition("/")
            start, total = int(span.removeprefix("bytes ").partition("-")[0]), whole
        if start not in (0, have):
            raise ConnectionError(f"the server went on from byte {start} instead of {have}")
        yield response, start, int(total) if total and total.isdigit() else None


def check(file: RemoteFile, path: Path) -> None:
    """Remove a downloaded file and raise `ValueError` unless it has its checksum; one without is taken as it is."""
    if not file.checksum:
        return
    with path.open("rb") as content:
        found = hashlib.file_digest(content, file.algorithm).hexdigest()
    if found != file.checksum:
        path.unlink()
        raise ValueError(
            f"{file.url}: the {file.algorithm} must be {file.checksum}, got {found}; what was downloaded is removed."
        )
