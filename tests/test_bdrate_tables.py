"""Comparisons over several images: shipped anchors, tables, and the command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rdgap.bdrate import SHIPPED_ANCHORS, codec_grids, shipped_anchor_path
from rdgap.bdrate.__main__ import main
from rdgap.bdrate._convert_bpg import SOURCES, convert
from rdgap.bdrate._convert_bpg import main as convert_main
from rdgap.schemas import BD, EVALUATION
from rdgap.tables import read_table
from tests._bdrate import comparison, evaluation, saved, shipped
from tests._data import data_folder

# ---- shipped anchors


def test_shipped_anchors_are_whole() -> None:
    for name, settings in {"bpg": 6, "bpg-m9": 18}.items():
        points = shipped(name)
        assert points.rate_bpp.shape == (24, settings)
        assert points.rate_kind == "coded"
        assert set(points.num_pixels.tolist()) == {768 * 512}
        assert points.images[0] == "kodim01"
        table = read_table(shipped_anchor_path(name), EVALUATION)
        assert not (table["bits"].to_numpy() % 8).any()
        assert table["psnr_db"].to_numpy() == pytest.approx(10 * np.log10(255**2 / table["mse"]), abs=1e-5)
    assert set(SHIPPED_ANCHORS) == set(SOURCES)


def test_default_bpg_equals_the_published_averages() -> None:
    # CompressAI, results/image/kodak: BPG 4:4:4, x265, QP 47 and 22.
    curve = shipped("bpg").averaged_curve("mean quality")
    assert curve.rate_bpp[[0, -1]] == pytest.approx([0.067768, 1.929712], abs=5e-7)
    assert curve.quality[[0, -1]] == pytest.approx([26.195128, 41.478873], abs=5e-7)


def test_anchors_are_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data_folder()
    if folder is None or not (folder / "bpg").is_dir():
        pytest.skip("the measured BPG points are not there")
    monkeypatch.setattr("rdgap.bdrate._convert_bpg.shipped_anchor_path", lambda name: tmp_path / f"{name}.csv")
    assert convert_main([str(folder / "bpg")]) == 0
    for name, source in SOURCES.items():
        assert (tmp_path / f"{name}.csv").read_bytes() == shipped_anchor_path(name).read_bytes()
        measured = pd.read_csv(folder / "bpg" / source).sort_values(["qp", "image"])
        table = read_table(shipped_anchor_path(name), EVALUATION).sort_values(["setting", "image"])
        assert (table["bits"] / table["num_pixels"]).to_numpy() == pytest.approx(measured["bpp"].to_numpy(), abs=6e-7)
        for column, of_measured in {"psnr_db": "psnr", "mse": "mse", "ms_ssim": "ms_ssim", "setting": "qp"}.items():
            assert (table[column].to_numpy() == measured[of_measured].to_numpy()).all()


def test_rates_that_are_not_whole_bytes_are_refused() -> None:
    measured = pd.DataFrame({"bpp": [0.5, 0.500010]})
    with pytest.raises(ValueError, match="files of whole bytes, got one that is 1e-05 bpp off"):
        convert(measured, "bpg")


def test_unknown_anchor_is_refused() -> None:
    with pytest.raises(ValueError, match="shipped anchors are bpg, bpg-m9, got 'vtm'"):
        shipped_anchor_path("vtm")


# ---- tables of several images


def test_grid_holds_each_image_at_each_setting() -> None:
    table = evaluation("x").sample(frac=1, random_state=0)
    points = codec_grids(table)["x"]
    assert points.images == ("a", "b", "c")
    assert points.settings == (0, 1, 2, 3, 4)
    assert points.num_pixels.tolist() == [1000, 2000, 3000]
    assert points.rate_bpp[2] == pytest.approx(0.1 * 2.0 ** np.arange(5))
    averaged = points.averaged_curve("mean quality")
    assert averaged.rate_bpp[1] == pytest.approx(0.1 * (1.8 + 1.9 + 2.0) / 3)
    assert averaged.quality[0] == pytest.approx(27.7)
    assert points.restricted_to({"a", "c"}).image_curve("c").rate_bpp == pytest.approx(points.rate_bpp[2])


def test_both_kinds_of_rate_are_told_apart() -> None:
    coded = evaluation("x", 1.02)
    grids = codec_grids(pd.concat([evaluation("x").assign(rate_kind="estimated"), coded, evaluation("y")]))
    assert list(grids) == ["x (estimated)", "x (coded)", "y"]
    delta = comparison(grids["x (estimated)"], grids["x (coded)"])
    assert delta.deltas["mean quality"].bd_rate_percent.value == pytest.approx(2, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: pd.concat([t, t.iloc[[3]]]),
            "x: an image must have one row per setting, got two of a at setting 3",
        ),
        (lambda t: t.drop(index=[7, 8]), r"x: .* got no b at setting 2 \(2 of 15 are missing\)"),
        (lambda t: t.assign(dataset=["one"] * 10 + ["two"] * 5), "x: all rows .* one data set, got one, two"),
        (lambda t: t.assign(num_pixels=range(1, 16)), "x: an image must keep its size, got another for a"),
    ],
)
def test_incoherent_tables_are_refused(change: Callable[[pd.DataFrame], pd.DataFrame], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codec_grids(change(evaluation("x")))


def test_images_without_a_bd_rate_are_named_and_stay_in_the_averaged_curve() -> None:
    table = evaluation("x")
    wobbling = table.assign(codec="y")
    wobbling.loc[(wobbling["image"] == "b") & (wobbling["setting"] == 2), "bits"] = 1.0
    wobbling.loc[wobbling["image"] == "c", "psnr_db"] += 20.0
    delta = comparison(codec_grids(table)["x"], codec_grids(wobbling)["y"], "akima")
    assert list(delta.by_image) == ["a"]
    assert list(delta.excluded) == ["b", "c"]
    assert "y: Quality (PSNR) must rise strictly" in delta.excluded["b"]
    assert "range of PSNR in common" in delta.excluded["c"]
    assert delta.num_images == 3
    assert delta.deltas["images"].bd_rate_percent.value == pytest.approx(0, abs=1e-9)
    assert np.isnan(delta.deltas["images"].bd_rate_percent.low)
    assert (delta.deltas["images"].images, delta.deltas["mean quality"].images) == (1, 3)
    assert delta.deltas["mean quality"].quality_low == pytest.approx(27.7 + 20 / 3)


def test_different_images_are_refused() -> None:
    anchor = codec_grids(evaluation("x"))["x"]
    other = codec_grids(evaluation("y", images=("b", "c", "d")))["y"]
    message = r"same images, got 1 \(d\) only of the test, 1 \(a\) only of the anchor, and 2 in common"
    with pytest.raises(ValueError, match=message):
        comparison(anchor, other)
    cropped = evaluation("y")
    cropped.loc[cropped["image"] == "b", "num_pixels"] = 500
    with pytest.raises(ValueError, match=r"same images, got b with 500 and 2000 pixels"):
        comparison(anchor, codec_grids(cropped)["y"])


def test_averaged_curves_that_are_none_are_refused_by_name() -> None:
    anchor = codec_grids(evaluation("x"))["x"]
    single = codec_grids(evaluation("y").query("setting == 2"))["y"]
    with pytest.raises(ValueError, match="y, averaged over 3 images: An R-D curve needs at least two points, got 1"):
        comparison(anchor, single)
    exact = evaluation("z")
    exact.loc[4, "psnr_db"] = np.inf
    with pytest.raises(ValueError, match=r"z, averaged over 3 images: .* inf dB"):
        comparison(anchor, codec_grids(exact)["z"])
    above = evaluation("w").assign(psnr_db=lambda rows: rows["psnr_db"] + 30)
    with pytest.raises(ValueError, match="w over x, mean quality: The curves must have a range of PSNR in common"):
        comparison(anchor, codec_grids(above)["w"])


# ---- the command


def test_command_prints_every_averaging_with_interpolations_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = saved(tmp_path, evaluation("dear", 1.1), evaluation("cheap", 0.75))
    anchor = saved(tmp_path, evaluation("mine"), name="anchor.csv")
    files = {kind: tmp_path / "out" / f"bd.{kind}" for kind in ("csv", "json", "md", "tex", "png")}
    options = ["--csv", files["csv"], "--json", files["json"], "--markdown", files["md"], "--latex", files["tex"]]
    assert main(["--test", test, "--anchor", anchor, *map(str, options), "--plot", str(files["png"])]) == 0
    definition, table = capsys.readouterr().out.split("\n\n")
    for said in (
        "the anchor mine (", "coded rate), negative is better", "equal PSNR, coded rates, 3 images of small",
        "all that codec and anchor have in common", "PCHIP, Akima, cubic", "PSNR of the mean MSE",
        "95% intervals of a paired bootstrap over images (1000 resamples)",
    ):  # fmt: skip
        assert said in " ".join(definition.split())
    header, *rows = table.splitlines()
    assert header.split()[:4] == ["codec", "rate", "averaging", "images"]
    assert [row.split()[:4] for row in rows] == [
        [codec, "coded", *way]
        for codec in ("cheap", "dear")
        for way in (["mean", "quality"], ["mean", "distortion"], ["images", "3"])
    ]
    assert "27.70..38.10 dB  +10.00 [+10.0, +10.0]  +10.00 [+10.0, +10.0]  +10.00 [+10.0, +10.0]  0.0" in rows[3]

    written = read_table(files["csv"], BD)
    assert len(written) == 2 * 3 * 3
    factors = {"cheap": -25.0, "dear": 10.0}
    for row in written.to_dict("records"):
        assert row["bd_rate_percent"] == pytest.approx(factors[row["codec"]], abs=1e-9)
        assert (row["images"], row["images_without_bd"], row["resamples"]) == (3, 0, 1000)
    record = json.loads(files["json"].read_text())["comparisons"][1]
    assert (record["test"], record["anchor"], record["interpolation"]) == ("dear", "mine", "pchip")
    assert record["by_image"]["b"]["bd_rate_percent"] == pytest.approx(10, abs=1e-9)
    assert len(record["test_curves"]["mean quality"]["quality"]) == 5
    assert record["excluded"] == {}
    assert files["png"].stat().st_size > 5000
    assert files["md"].read_text().splitlines()[3] == "|" + " --- |" * 10
    latex = files["tex"].read_text()
    assert r"dear & coded & mean quality & 3 & 27.70..38.10 dB & +10.00 [+10.0, +10.0]" in latex
    assert r"\caption{BD-rate [\%] over the anchor mine" in latex
    assert latex.count(r"\\") == 7


def test_equal_seeds_give_equal_intervals(tmp_path: Path) -> None:
    tables = []
    for number, seed in enumerate(("0", "0", "1")):
        path = tmp_path / f"{number}.csv"
        arguments = ["--test", "bpg-m9", "--anchor", "bpg", "--resamples", "100", "--seed", seed]
        assert main([*arguments, "--csv", str(path)]) == 0
        tables.append(path.read_bytes())
    assert tables[0] == tables[1] != tables[2]


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_equal_runs_draw_equal_files(tmp_path: Path, suffix: str) -> None:
    pictures = [tmp_path / f"{number}.{suffix}" for number in range(2)]
    for picture in pictures:
        assert main(["--test", "bpg-m9", "--anchor", "bpg", "--plot", str(picture)]) == 0
    assert pictures[0].stat().st_size > 5000
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_command_names_the_images_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = evaluation("x").assign(codec="y")
    table.loc[(table["image"] == "b") & (table["setting"] == 2), "psnr_db"] = 36.0
    record = tmp_path / "bd.json"
    arguments = ["--test", saved(tmp_path, table), "--anchor", saved(tmp_path, evaluation("x"), name="a.csv")]
    assert main([*arguments, "--json", str(record)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "2 of 3" in [line for line in lines if line.startswith("y ")][2]
    assert lines[-2].startswith("y: 1 of 3 images have no BD-rate of their own")
    assert lines[-1].startswith("  b: y: Quality (PSNR) must rise strictly")
    assert list(json.loads(record.read_text())["comparisons"][0]["excluded"]) == ["b"]


def test_one_image_has_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = saved(tmp_path, evaluation("x", images=("a",)), evaluation("y", 1.1, images=("a",)))
    files = [str(tmp_path / "bd.json"), str(tmp_path / "bd.csv")]
    arguments = ["--test", table, "--anchor", table, "--anchor-codec", "x", "--json", files[0], "--csv", files[1]]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "bootstrap" not in printed
    last = printed.splitlines()[-1].split()
    assert last[:9] == ["y", "coded", "images", "1", "27.00..36.60", "dB", "+10.00", "+10.00", "+10.00"]
    assert json.loads(Path(files[0]).read_text())["comparisons"][2]["rows"][0]["bd_rate_low_percent"] is None
    assert set(pd.read_csv(files[1], keep_default_na=False)["bd_rate_low_percent"]) == {""}


def test_common_images_are_used_only_when_asked_and_said_loudly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = saved(tmp_path, evaluation("y", 1.1, images=("a", "b")))
    anchor = saved(tmp_path, evaluation("x"), name="anchor.csv")
    assert main(["--test", test, "--anchor", anchor]) == 2
    assert "same images, got 0 only of the test, 1 (c) only of the anchor" in capsys.readouterr().err
    assert main(["--test", test, "--anchor", anchor, "--common-images"]) == 0
    printed = capsys.readouterr()
    assert printed.err == "WARNING: compared on the 2 images that all have; left out: c\n"
    assert printed.out.splitlines()[-1].split()[:4] == ["y", "coded", "images", "2"]
    assert main(["--test", test, "--anchor", "bpg", "--common-images"]) == 2
    assert "needs an image that the anchor and every codec have, got none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--test", "TABLE", "--anchor", "vtm"], "`--anchor` must be a table or one of bpg, bpg-m9, got no file 'vtm'"),
        (["--test", "missing.csv", "--anchor", "bpg"], "`--test` must be a table or one of bpg, bpg-m9, got no file"),
        (["--test", "TABLE", "--anchor", "bpg"], "must have the same images, got 3 (a, b, c) only of the"),
        (["--test", "TABLE", "--anchor", "TABLE"], "`--anchor-codec` must be one of x, y, which"),
        (["--test", "TABLE", "--anchor", "TABLE", "--anchor-codec", "z"], "holds, got z."),
        (["--test", "TABLE", "--anchor", "bpg", "--plot", "p.jpg"], "--plot: must end in .pdf, .png or .svg, got"),
        (["--test", "TABLE", "--anchor", "bpg", "--range", "30"], "`--range` must be common, aligned, or two"),
        (["--test", "TABLE", "--anchor", "bpg", "--range", "34", "30"], "`--range` must rise, got 34 30."),
        (["--test", "TABLE", "--anchor", "bpg", "--measure", "lpips"], "must have LPIPS to compare it, got none"),
        (["--anchor", "webp", "--images", "."], "`--images` and `--model` must come together"),
        (["--anchor", "bpg"], "either from `--test` or from `--images` with `--model`"),
        (["--test", "TABLE", "--anchor", "bpg", "--points", "p.csv"], "`--points` writes what is measured"),
        (["--images", ".", "--model", "jpeg", "--anchor", "jpeg"], "either model or anchor, got both for jpeg"),
        (["--images", ".", "--model", "jpeg", "--anchor", "gif"], "`--anchor` must be one of jpeg, jpeg-default"),
        (["--test", "TABLE", "--test", "TABLE", "--anchor", "TABLE", "--anchor-codec", "x"], "got x in several"),
        (["--test", "HEADERLESS", "--anchor", "bpg"], "unknown or twice: 0.5, 30"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    headerless = tmp_path / "headerless.csv"
    headerless.write_text("0.5,30\n")
    names = {"TABLE": saved(tmp_path, evaluation("x"), evaluation("y")), "HEADERLESS": str(headerless)}
    assert main([names.get(argument, argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_module_runs_as_its_help_says(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "rdgap.bdrate", "--test", "bpg-m9", "--anchor", "bpg"]
    path = {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "HOME": str(tmp_path)}
    ran = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "-0.17 [" in ran.stdout
    assert "26.20..41.48" in ran.stdout


def test_import_loads_no_plotting_and_no_tables() -> None:
    code = "import sys, rdgap.bdrate; print(sorted({'matplotlib', 'pandas', 'seaborn', 'torch'} & set(sys.modules)))"
    path = {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    ran = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
