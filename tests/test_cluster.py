"""A real Dask scheduler with two workers on loopback, which see neither the files nor the code of the tests."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import rdgap.zoo
from rdgap.curvature.__main__ import main as curvature
from rdgap.encoding import __main__ as encoding
from rdgap.encoding import jobs as encoding_jobs
from rdgap.evaluation.__main__ import main as evaluation
from rdgap.gaps import __main__ as gaps
from rdgap.gaps import jobs as gaps_jobs
from rdgap.images import read_image
from rdgap.parallel import map_images
from rdgap.schemas import CURVATURE, CURVATURE_PATHS, ENCODED, EVALUATION, GAPS
from rdgap.tables import Schema, read_table

from ._recipes import tiny_codec
from ._toys import patch_means

pytest.importorskip("distributed", reason="Dask is not installed")

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["--fit-steps", "5", "--temperatures", "4", "--samples", "4", "--chains", "2", "--leapfrog-steps", "2"]


def _worker(address: str, folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir()
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(_code_alone(folder)), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--no-nanny", "--local-directory", str(folder)],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _code_alone(folder: Path) -> list[str]:
    """A place where `rdgap` can be imported, but not the tests beside it."""
    (folder / "code").mkdir()
    (folder / "code" / "rdgap").symlink_to(ROOT / "rdgap")
    return [str(folder / "code")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a scheduler, and the processes of its two workers."""
    folder = tmp_path_factory.mktemp("cluster")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    started = [subprocess.Popen([*command, "--no-dashboard"], **quiet)]
    try:
        _wait_for(port)
        workers = [_worker(address, folder / str(number)) for number in range(2)]
        started += workers
        yield address, workers
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


def _wait_for(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the scheduler did not start")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As the workers have, so that sums are in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def address(cluster: tuple[str, list[subprocess.Popen[bytes]]]) -> str:
    return cluster[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight images of two sizes."""
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(1)
    for number, name in enumerate("abcdefgh"):
        pixels = generator.integers(0, 256, (8, 8 + 4 * (number % 2), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gaps, gaps_jobs):
        monkeypatch.setattr(module, "named_codec", lambda *_, **__: patch_means())
    gaps_jobs._loaded.cache_clear()


def rows(path: Path, schema: Schema) -> pd.DataFrame:
    table = read_table(path, schema)
    return table.drop(columns=[name for name in ("seconds",) if name in table])


def assert_equal_tables(here: Path, there: Path, schema: Schema) -> None:
    pd.testing.assert_frame_equal(rows(here, schema), rows(there, schema), rtol=0, atol=1e-6)


# what is sent


class Counting(torch.nn.Module):
    """Leaves a file wherever it arrives."""

    def __init__(self, arrivals: str) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(3.0))
        self.arrivals = arrivals

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self.__dict__.update(state)
        with open(f"{state['arrivals']}/{os.getpid()}", "a") as file:  # noqa: PTH123
            file.write("once\n")


def weighed(module: Counting, path: Path) -> tuple[int, str, float]:
    time.sleep(0.02)
    return os.getpid(), str(path), float((read_image(path).mean((1, 2)) * module.weight.detach()).sum())


def test_a_module_reaches_each_worker_once_and_images_as_copies(address: str, folder: Path, tmp_path: Path) -> None:
    from rdgap.cluster import connected

    (tmp_path / "arrivals").mkdir()
    module, paths = Counting(str(tmp_path / "arrivals")), sorted(folder.iterdir())
    with connected(address) as executor:
        call = partial(weighed, module)
        found = [result for _ in range(3) for result in map_images(call, paths, executor=executor)]
    expected = [weighed(module, path)[2] for path in paths] * 3
    assert [weight for _, _, weight in found] == pytest.approx(expected)
    arrived = {path.name: path.read_text() for path in (tmp_path / "arrivals").iterdir()}
    assert set(arrived) == {str(pid) for pid, _, _ in found}
    assert set(arrived.values()) == {"once\n"}
    assert os.getpid() not in {pid for pid, _, _ in found}
    assert [Path(path).name for _, path, _ in found] == [path.name for path in paths] * 3
    assert not any(Path(path).is_relative_to(folder) for _, path, _ in found)
    assert len({path for _, path, _ in found}) <= 2 * len(paths)


@pytest.mark.usefixtures("_toy")
def test_another_version_of_the_code_is_refused(
    address: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rdgap import cluster

    monkeypatch.setattr(cluster, "_code_hash", lambda: "another")
    assert gaps.main([str(folder / "a.png"), *QUICK, "--cluster", address]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search("workers must have the same rdgap as this machine, the one on .* differs", error)


@pytest.mark.usefixtures("_toy")
def test_no_scheduler_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rdgap.cluster._SECONDS_TO_CONNECT", 0.2)
    assert gaps.main([str(folder / "a.png"), *QUICK, "--cluster", "tcp://127.0.0.1:1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# the same tables


@pytest.mark.usefixtures("_toy")
def test_gaps_are_those_of_a_local_run(address: str, folder: Path, tmp_path: Path) -> None:
    arguments = [*(str(folder / f"{name}.png") for name in "abc"), *QUICK, "--csv"]
    assert gaps.main([*arguments, str(tmp_path / "here.csv")]) == 0
    assert gaps.main([*arguments, str(tmp_path / "there.csv"), "--cluster", address]) == 0
    assert_equal_tables(tmp_path / "here.csv", tmp_path / "there.csv", GAPS)
    assert len(rows(tmp_path / "there.csv", GAPS)) == 3


def test_evaluation_is_that_of_a_local_run(
    address: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = tiny_codec().requires_grad_(False)
    codec.name, codec.lmbda = "tiny", 0.01
    monkeypatch.setattr(rdgap.zoo, "load_codec", lambda *_, **__: codec)
    monkeypatch.setattr(rdgap.zoo, "trained_lmbdas", lambda _: [0.01])
    arguments = ["tiny", "webp", "--coded", "--encoder", "sga", "--steps", "3", "--images", str(folder / "a.png")]
    arguments += [str(folder / "b.png"), "--device", "cpu", "--jobs", "2"]
    here, there = ([*arguments, "--csv", str(tmp_path / f"{name}.csv")] for name in ("here", "there"))
    assert evaluation([*there, "--cluster", address, "--cache", str(tmp_path / "cache")]) == 0
    assert list((tmp_path / "cache").rglob("*.json"))  # conventional codecs are remembered here, not on the workers
    assert evaluation(here) == 0
    assert_equal_tables(tmp_path / "here.csv", tmp_path / "there.csv", EVALUATION)
    assert (
        evaluation([*there, "--cluster", "tcp://127.0.0.1:1"]) == 2
    )  # rows are missing: none, but the address is wrong


def test_bitstreams_come_back(address: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = tiny_codec().requires_grad_(False)
    codec.lmbda = 0.01
    for module in (encoding, encoding_jobs):
        monkeypatch.setattr(module, "named_codec", lambda *_, **__: codec)
    encoding_jobs._coder.cache_clear()
    arguments = [str(folder / "a.png"), str(folder / "b.png"), "--model", "tiny", "--steps", "3", "--device", "cpu"]
    for name, more in (("here", []), ("there", ["--cluster", address])):
        outputs = ["--csv", str(tmp_path / f"{name}.csv"), "--out", str(tmp_path / name)]
        assert encoding.main([*arguments, *outputs, *more]) == 0
    encoding_jobs._coder.cache_clear()
    assert_equal_tables(tmp_path / "here.csv", tmp_path / "there.csv", ENCODED)
    streams = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("here", "there")]
    assert streams[0] == streams[1]
    assert len(streams[0]) == 2


PLUG_IN = """
import torch
from plug_in_helper import curved

class Decoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(1.5))

    def forward(self, latents):
        return curved(self.gain * torch.nn.functional.interpolate(latents, scale_factor=4))

decoder = Decoder()

def encoder(images):
    return torch.nn.functional.avg_pool2d(images, 4)
"""


def test_a_plug_in_that_no_worker_has_measures_curves_and_goes_on(
    address: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plug_in.py").write_text(PLUG_IN)
    (tmp_path / "plug_in_helper.py").write_text("import torch\n\ndef curved(x):\n    return torch.sin(x)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plug_in = ["--decoder", "plug_in:decoder", "--encoder", "plug_in:encoder", "--device", "cpu"]
    arguments = [str(folder), "--pairs", "6", "--crop", "8", "--points", "4", *plug_in]

    def outputs(name: str) -> list[str]:
        return ["--csv", str(tmp_path / f"{name}.csv"), "--paths", str(tmp_path / f"{name}-paths.csv")]

    assert curvature([*arguments, *outputs("here")]) == 0
    assert curvature([*arguments, *outputs("there"), "--cluster", address]) == 0
    assert_equal_tables(tmp_path / "here.csv", tmp_path / "there.csv", CURVATURE)
    assert_equal_tables(tmp_path / "here-paths.csv", tmp_path / "there-paths.csv", CURVATURE_PATHS)

    # A kill has left two pairs, the second of them without its paths, and cut a line short.
    lines = (tmp_path / "there.csv").read_text().splitlines(keepends=True)
    (tmp_path / "there.csv").write_text("".join(lines[:3]) + lines[3][:20])
    lines = (tmp_path / "there-paths.csv").read_text().splitlines(keepends=True)
    (tmp_path / "there-paths.csv").write_text("".join(lines[:5]))
    assert curvature([*arguments, *outputs("there")]) == 0
    assert_equal_tables(tmp_path / "here.csv", tmp_path / "there.csv", CURVATURE)
    assert_equal_tables(tmp_path / "here-paths.csv", tmp_path / "there-paths.csv", CURVATURE_PATHS)
    before = (tmp_path / "there.csv").read_bytes()
    monkeypatch.setattr("rdgap.curvature.__main__.measure", None)  # nothing is measured again
    assert curvature([*arguments, *outputs("there")]) == 0
    assert (tmp_path / "there.csv").read_bytes() == before


# what goes wrong


def looked_at(seconds: float, log: str, job: gaps_jobs.Job) -> pd.DataFrame:
    """Take a while, say who is at work, and return rows that depend on the images."""
    with open(log, "a") as file:  # noqa: PTH123
        file.write(f"{os.getpid()} {job.paths[0].stem}\n")
    time.sleep(seconds)
    numbers = {name: column.minimum if column.minimum > 0 else 0 for name, column in GAPS.items()}
    labels = {"model": job.model, "lmbda": job.lmbda, "device": "cpu"} | job.settings.columns
    means = [float(read_image(path).mean()) for path in job.paths]
    return pd.DataFrame({**numbers, **labels, "image": [path.stem for path in job.paths], "encoder_bpp": means})


@pytest.mark.usefixtures("_toy")
def test_a_worker_killed_at_work_loses_no_row(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, workers = cluster
    here, there, log = tmp_path / "here.csv", tmp_path / "there.csv", tmp_path / "log"
    arguments = [str(folder), *QUICK, "--batch", "2", "--csv"]
    monkeypatch.setattr(gaps, "measure", partial(looked_at, 0.0, os.devnull))
    assert gaps.main([*arguments, str(here)]) == 0
    log.touch()
    victim = workers[0]

    def kill_at_work() -> None:
        while log.read_text().count(f"{victim.pid} ") < 2:  # one is done, another is at work
            time.sleep(0.02)
        victim.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_at_work, daemon=True)
    monkeypatch.setattr(gaps, "measure", partial(looked_at, 0.5, str(log)))
    killer.start()
    assert gaps.main([*arguments, str(there), "--cluster", address]) == 0
    killer.join(10)
    assert victim.wait(10) == -signal.SIGKILL
    assert_equal_tables(here, there, GAPS)
    assert len(set(rows(there, GAPS)["encoder_bpp"])) == 8
    begun = [line.split() for line in log.read_text().splitlines()]
    assert max(Counter(name for _, name in begun).values()) == 2  # what the victim had begun was begun again
    assert {pid for pid, _ in begun} == {str(worker.pid) for worker in workers}
