"""Every figure is drawn from the committed tables, without torch, twice alike, and as it is committed."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from rdgap._plots import LOOKS, look_of
from rdgap.zoo import model_directory
from tests._scripts import figure

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "figures"
NAMES = sorted(path.stem for path in FIGURES.glob("*.py") if not path.stem.startswith("_"))
LEFT_OUT = re.compile(
    r"(\w+): left out, (analysis/tables/\S+) is not there yet; `python (analysis/\w+\.py)` makes it\."
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """All pictures, and what the command said."""
    folder = tmp_path_factory.mktemp("pictures")
    code = (
        "import runpy, sys; sys.path.insert(0, sys.argv[1]); sys.argv[1:] = ['--out', sys.argv[2]];"
        "names = runpy.run_path(sys.path[0] + '/__main__.py');"
        "assert names['main']() == 0; print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(FIGURES), str(folder)],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    *lines, has_torch = result.stdout.splitlines()
    assert has_torch == "False"
    return folder, lines


def test_every_figure_is_drawn_or_one_line_says_which_table_is_missing(drawn: tuple[Path, list[str]]) -> None:
    folder, lines = drawn
    left_out = {match[1]: match for match in map(LEFT_OUT.fullmatch, lines) if match}
    for match in left_out.values():
        assert not (ROOT / match[2]).exists()
        assert (ROOT / match[3]).exists()
    expected = {f"{name}{suffix}" for name in NAMES if name not in left_out for suffix in (".png", ".pdf")}
    assert {path.name for path in folder.iterdir() if path.suffix in (".png", ".pdf")} == expected
    assert len(lines) == len(NAMES)


def test_drawn_again_a_picture_has_the_same_bytes(drawn: tuple[Path, list[str]], tmp_path: Path) -> None:
    shared = importlib.import_module("_figure")
    for name in ("fig10_two_layer", "fig12_eta"):
        shared.write(figure(name).draw, name, tmp_path)
        for suffix in (".png", ".pdf"):
            again, before = ((folder / name).with_suffix(suffix).read_bytes() for folder in (tmp_path, drawn[0]))
            assert again == before


def test_committed_pictures_are_those_of_the_tables(drawn: tuple[Path, list[str]]) -> None:
    committed = sorted((FIGURES / "out").glob("*.png"))
    assert sum(path.stat().st_size for path in committed) < 3e6
    for path in committed:
        with Image.open(path) as before, Image.open(drawn[0] / path.name) as now:
            if before.text["Software"] != f"Matplotlib version{mpl.__version__}, https://matplotlib.org/":  # pyright: ignore
                pytest.skip(f"the pictures were drawn by {before.text['Software']}")  # pyright: ignore
            assert before.size == now.size, path.name
            assert np.array_equal(np.asarray(before), np.asarray(now)), f"{path.name} is older than its tables"


def test_the_page_shows_every_figure(drawn: tuple[Path, list[str]]) -> None:
    page = (FIGURES / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"(out/{name}.png)" in page
    for linked in re.findall(r"\(out/(\w+)\.png\)", page):
        assert linked in NAMES
        if (drawn[0] / f"{linked}.png").exists():
            assert (FIGURES / "out" / f"{linked}.png").exists(), f"`make figures` and commit {linked}.png"


def test_a_missing_table_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = importlib.import_module("_figure")
    monkeypatch.setattr(shared, "TABLES", tmp_path)
    monkeypatch.setattr(sys, "argv", ["figure", "--out", str(tmp_path)])
    assert shared.main(figure("kodak_gaps").draw, "kodak_gaps.py") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kodak_gaps.py: analysis/tables/kodak_gaps_means.csv is not there yet; ")
    assert line.endswith("`python analysis/kodak_gaps.py` makes it.")
    assert not list(tmp_path.iterdir())


def test_every_model_has_a_look_of_its_own() -> None:
    looks = [look_of(path.stem)["color"] for path in model_directory().glob("*.toml") if "lite" not in path.stem]
    assert len(looks) == 12
    assert len(set(looks)) == len(looks)
    assert look_of("cnn-analysis-96-lite") == look_of("cnn-analysis")
    assert len({colour for colour, _ in LOOKS.values()}) == len(LOOKS)


def test_the_diagram_has_the_numbers_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diagram = figure("fig10_two_layer")

    def texts() -> str:
        return "\n".join(text.get_text() for text in diagram.draw().axes[0].texts)

    assert "$k_1$ = 13, $s_1$ = 8\n320 $\\to$ 12" in texts()
    assert "res" in texts()
    recipe = (model_directory() / "two-layer.toml").read_text(encoding="utf-8")
    recipe = recipe.replace("channels = 12", "channels = 24").replace("residual = true", "residual = false")
    (tmp_path / "other.toml").write_text(recipe, encoding="utf-8")
    monkeypatch.setattr(diagram, "RECIPE", tmp_path / "other.toml")
    assert "320 $\\to$ 24" in texts()
    assert "res" not in texts()


def test_the_hull_keeps_what_no_mixture_beats() -> None:
    hull = figure("bd_rate_macs").hull
    at = [(1.0, 10.0), (2.0, 9.0), (2.0, 0.0), (3.0, 4.0), (4.0, -1.0), (3.0, -0.9), (5.0, 0.0)]
    assert hull(at) == [(1.0, 10.0), (2.0, 0.0), (3.0, -0.9), (4.0, -1.0)]
