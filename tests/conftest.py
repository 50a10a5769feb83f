"""What all tests share."""

from pathlib import Path

import pytest

from tests._scripts import Trials


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
