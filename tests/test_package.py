"""What is installed, and what an import costs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import rdgap
from tests._data import data_folder

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def run(*arguments: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd)} | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources that git knows, so that leftovers here cannot help."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "rdgap", "models", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("the wheel is built from what git lists, and this is no git checkout")
    for name in listed.stdout.splitlines():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    built = run("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), ".", cwd=source)
    assert built.returncode == 0, built.stderr
    return next(out.glob("*.whl"))


def test_listed_packages_are_the_folders() -> None:
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "rdgap").rglob("*.py")}
    data_only = {"rdgap._models", "rdgap.bdrate.anchors"}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders | data_only


def test_wheel_holds_nothing_but_rdgap_and_the_default_model(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"rdgap"}
    weights = [name for name in names if name.endswith(".safetensors")]
    assert sorted(weights) == [
        "rdgap/_models/two-layer-lite-0.01.safetensors",
        "rdgap/lpips/lpips_alex.safetensors",
    ]
    assert "rdgap/lpips/README.md" in names
    assert "rdgap/bdrate/anchors/published_images.csv" in names
    assert "rdgap/_models/two-layer.toml" in names
    assert "rdgap/bdrate/anchors/bpg.csv" in names
    assert "rdgap/py.typed" in names
    assert wheel.stat().st_size < 20e6


def test_curvature_runs_from_the_wheel_in_another_folder(wheel: Path, tmp_path: Path) -> None:
    data = data_folder()
    if data is None:
        pytest.skip("needs the Kodak photographs of the data folder")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    images = [str(data / "kodak" / f"kodim{number}.png") for number in ("04", "05")]
    result = run("-m", "rdgap.curvature", *images, "--crop", "32", "--points", "4", cwd=tmp_path, path=site)
    assert result.returncode == 0, result.stderr
    assert "eta" in result.stdout
    where = run("-c", "import rdgap; print(rdgap.__file__)", cwd=tmp_path, path=site)
    assert where.stdout.startswith(str(site))


def test_an_installation_exposes_no_other_folder(tmp_path: Path) -> None:
    found = (
        "import importlib.util as u; print([n for n in ('analysis', 'figures', 'models', 'tests') if u.find_spec(n)])"
    )
    result = run("-I", "-c", found, cwd=tmp_path)
    assert result.stdout.strip() == "[]"


def test_importing_rdgap_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = "import sys, rdgap; print([m for m in ('torch', 'pandas', 'matplotlib', 'scipy') if m in sys.modules])"
    assert run("-c", loaded, cwd=tmp_path, path=ROOT).stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(rdgap._HOMES))
def test_public_names_are_found(name: str) -> None:
    assert getattr(rdgap, name).__module__.startswith("rdgap.")


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'bd_rait'"):
        rdgap.bd_rait  # noqa: B018


@pytest.mark.parametrize(
    "command",
    [
        "bdrate",
        "codec",
        "complexity",
        "curvature",
        "datasets",
        "demo",
        "encoding",
        "evaluation",
        "gaps",
        "rate_distortion",
        "training",
    ],
)
def test_every_command_has_help_with_an_example(command: str, tmp_path: Path) -> None:
    result = run("-m", f"rdgap.{command}", "--help", cwd=tmp_path, path=ROOT)
    assert result.returncode == 0, result.stderr
    assert f"example:\n  python -m rdgap.{command} " in result.stdout
