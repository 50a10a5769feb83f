"""What all tests share."""

import os
from pathlib import Path

import pytest

from tests._scripts import Trials

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: one thread each, also in what they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests of a file in one process, where their fixtures are made once, and all that look at trials in one."""
    for item in items:
        shares_trials = "trials" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("trials" if shares_trials else item.path.stem))


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands keep measurements of conventional codecs: not in the home folder of who runs the tests."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    """Trials of the experiments of `analysis/`, each run once for all tests that look at it."""
    return Trials(tmp_path_factory.mktemp("trials"))
