"""Data sets come whole or not at all: against a server on this machine that answers ranges, breaks and lies."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdgap import datasets
from rdgap.datasets import DATASETS, Dataset, RemoteFile, dataset_paths, download, fetch
from rdgap.datasets.__main__ import main
from tests._data import data_folder

NOISE = np.random.default_rng(0).bytes(300_000)


@dataclass
class Server:
    """What the server does, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    answers_ranges: bool = True
    breaks_after: list[int] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("rdgap.datasets.transfer.time.sleep", lambda seconds: None)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.ranges.append(asked)
            content = state.files.get(self.path.removeprefix("/"))
            if content is None:
                self.send_error(404)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.answers_ranges else 0
            if start and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = start + state.breaks_after.pop(0) if state.breaks_after else len(content)
            self.wfile.write(content[start:end])

        def log_message(self, format: str, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{running.server_port}"
    yield state
    running.shutdown()
    running.server_close()
    thread.join()


def remote(server: Server, name: str = "noise.bin", content: bytes = NOISE, algorithm: str = "sha256") -> RemoteFile:
    server.files[name] = content
    return RemoteFile(
        url=f"{server.url}/{name}", algorithm=algorithm, checksum=hashlib.new(algorithm, content).hexdigest()
    )


def png(seed: int, width: int = 8, height: int = 6) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


# ---- one file


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_file_comes_whole_with_its_checksum(server: Server, tmp_path: Path, algorithm: str) -> None:
    download(remote(server, algorithm=algorithm), tmp_path / "new" / "noise.bin")
    assert (tmp_path / "new" / "noise.bin").read_bytes() == NOISE
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["noise.bin"]


def test_a_broken_connection_is_taken_up_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.breaks_after = [100_000, 50_000]
    download(remote(server), tmp_path / "noise.bin")
    assert (tmp_path / "noise.bin").read_bytes() == NOISE
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_the_next_run_goes_on_from_what_is_there(server: Server, tmp_path: Path) -> None:
    file = remote(server)
    server.breaks_after = [1000] * 5
    with pytest.raises(OSError, match=r"no whole file after 5 attempts \(it broke after 5000 of 300000 bytes\)"):
        download(file, tmp_path / "noise.bin")
    assert not (tmp_path / "noise.bin").exists()
    assert (tmp_path / "noise.bin.part").read_bytes() == NOISE[:5000]
    download(file, tmp_path / "noise.bin")
    assert (tmp_path / "noise.bin").read_bytes() == NOISE
    assert server.ranges[-1] == "bytes=5000-"
    requests = len(server.ranges)
    download(file, tmp_path / "noise.bin")  # it is there
    assert len(server.ranges) == requests


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.answers_ranges = False
    (tmp_path / "noise.bin.part").write_bytes(b"x" * 400_000)  # even longer than the file
    download(remote(server), tmp_path / "noise.bin")
    assert (tmp_path / "noise.bin").read_bytes() == NOISE


def test_a_part_that_is_already_whole_is_only_checked(server: Server, tmp_path: Path) -> None:
    file = remote(server)
    (tmp_path / "noise.bin.part").write_bytes(NOISE)
    download(file, tmp_path / "noise.bin")
    assert (tmp_path / "noise.bin").read_bytes() == NOISE
    (tmp_path / "other.bin.part").write_bytes(NOISE + b"more")  # 416, but not because nothing is missing
    download(file, tmp_path / "other.bin")
    assert (tmp_path / "other.bin").read_bytes() == NOISE


def test_a_wrong_checksum_is_an_error_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    file = remote(server)
    server.files["noise.bin"] = NOISE[:-1] + bytes([NOISE[-1] ^ 1])
    with pytest.raises(ValueError, match=f"the sha256 must be {file.checksum}, got .*; what was downloaded is removed"):
        download(file, tmp_path / "noise.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_an_error_at_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"/none.bin: the server answered 404 Not Found"):
        download(RemoteFile(url=f"{server.url}/none.bin"), tmp_path / "none.bin")
    assert len(server.ranges) == 1


# ---- data sets


@pytest.fixture
def toys(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Three data sets like the real ones: single files known by pixels, and archives with and without a checksum."""
    images = {f"p{number}": png(number) for number in range(3)}
    hashes = {
        name: hashlib.sha256(np.array(Image.open(io.BytesIO(content))).tobytes()).hexdigest()
        for name, content in images.items()
    }
    files = tuple(remote(server, f"{name}.png", content) for name, content in images.items())
    pixels_known = tuple(RemoteFile(url=file.url) for file in files)
    members = {f"SET/valid/{name}.png": content for name, content in images.items()}
    others = {"SET/other/p9.png": png(9), "SET/valid/readme.txt": b"text", "SET/valid/../../evil.png": png(8)}
    archive = remote(server, "valid.zip", zipped(members | others))
    monkeypatch.setitem(DATASETS, "singles", Dataset(what="", files=pixels_known, images=3, pixels_sha256=hashes))
    monkeypatch.setitem(DATASETS, "archived", Dataset(what="", files=(archive,), images=3, member="valid", size=(8, 6)))
    return server


@pytest.mark.parametrize("name", ["singles", "archived"])
def test_a_data_set_is_downloaded_once(
    toys: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main([name, "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{name}: 3 images in {tmp_path / name}\n"
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["p0.png", "p1.png", "p2.png"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    requests = len(toys.ranges)
    assert main([name, "--out", str(tmp_path)]) == 0
    assert len(toys.ranges) == requests
    assert main([name, "--check", str(tmp_path / name)]) == 0


def test_images_that_are_missing_come_alone(toys: Server, tmp_path: Path) -> None:
    fetch("singles", tmp_path)
    (tmp_path / "singles" / "p1.png").unlink()
    requests = len(toys.ranges)
    fetch("singles", tmp_path)
    assert len(toys.ranges) == requests + 1


def test_a_mirror_and_a_kept_archive(toys: Server, tmp_path: Path) -> None:
    toys.files["mirror/valid.zip"] = toys.files.pop("valid.zip")
    arguments = ["archived", "--out", str(tmp_path), "--mirror", f"{toys.url}/mirror/", "--keep-archive"]
    assert main(arguments) == 0
    assert (tmp_path / "valid.zip").exists()


def recompressed(folder: Path) -> None:
    """Other bytes, the same pixels."""
    with Image.open(folder / "p0.png") as image:
        image.save(folder / "p0.png", compress_level=0)


def test_a_file_of_the_same_pixels_is_as_good(toys: Server, tmp_path: Path) -> None:
    folder = fetch("singles", tmp_path)
    recompressed(folder)
    assert [path.name for path in dataset_paths("singles", folder)] == ["p0.png", "p1.png", "p2.png"]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("singles", lambda folder: (folder / "p1.png").unlink(), "singles has 3 images, got 2"),
        ("singles", lambda folder: (folder / "p1.png").write_bytes(png(7)), "pixels must be those of singles"),
        ("singles", lambda folder: (folder / "p1.png").rename(folder / "q.png"), "has no image of this name"),
        ("singles", lambda folder: (folder / "p1.png").write_bytes(b"no image"), "not a PNG, JPEG, WebP or AVIF"),
        ("archived", lambda folder: (folder / "p1.png").write_bytes(png(7, 9)), "are 8 x 6, got 9 x 6"),
    ],
)
def test_the_wrong_folder_is_a_clear_error(
    toys: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: Callable[[Path], object],
    message: str,
) -> None:
    folder = fetch(name, tmp_path)
    damage(folder)
    assert main([name, "--check", str(folder)]) == 2
    assert message in capsys.readouterr().err


def test_an_image_of_other_pixels_is_refused_and_removed(toys: Server, tmp_path: Path) -> None:
    toys.files["p2.png"] = png(5)
    with pytest.raises(ValueError, match=r"p2.png: .* the pixels must be those of singles, got others. The file"):
        fetch("singles", tmp_path)
    assert sorted(path.name for path in (tmp_path / "singles").iterdir()) == ["p0.png", "p1.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK no archive", r"not a sound ZIP archive .*; it is removed"),
        (zipped({"SET/valid/p0.png": png(0)}), r"must hold 3 .png images in valid, got 1"),
    ],
)
def test_archives_of_anything_else_are_refused(
    toys: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    archive = remote(toys, "valid.zip", content)
    monkeypatch.setitem(DATASETS, "archived", Dataset(what="", files=(archive,), images=3, member="valid"))
    with pytest.raises(ValueError, match=message):
        fetch("archived", tmp_path)
    assert not (tmp_path / "archived").exists()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kodal"], "The data sets are kodak, tecnick, clic2018"),
        (["kodak", "--check", "nowhere"], "No folder of kodak at nowhere; `python -m rdgap.datasets kodak` downloads"),
        (["kodak", "--mirror", "ftp://x"], "`--mirror` must start with http:// or https://, got ftp://x"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_the_catalog_is_complete() -> None:
    for name, dataset in DATASETS.items():
        assert dataset.is_archive == (len(dataset.files) == 1), name
        assert all(file.url.startswith("http") for file in dataset.files)
        assert all(len(file.checksum) == {"sha256": 64, "md5": 32, "": 0}[file.algorithm] for file in dataset.files)
    assert len(DATASETS["kodak"].files) == len(DATASETS["kodak"].pixels_sha256) == 24
    assert datasets.dataset_called("coco2017-train").images == 118287


def test_kodak_is_known_by_its_pixels() -> None:
    folder = data_folder()
    if folder is None or not (folder / "kodak").is_dir():
        pytest.skip("needs the Kodak photographs of the data folder")
    assert len(dataset_paths("kodak", folder / "kodak")) == 24
