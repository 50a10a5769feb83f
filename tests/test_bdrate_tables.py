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

from rdgap.bdrate import SHIPPED_ANCHORS, CodecGrid, bd_rate, codec_grids, compare, shipped_anchor_path
from rdgap.bdrate.__main__ import main
from rdgap.bdrate._convert_bpg import SOURCES, convert
from rdgap.bdrate._convert_bpg import main as convert_main
from rdgap.tables import EVALUATION, read_table, write_table
from tests._data import data_folder


def grid(name: str) -> CodecGrid:
    return codec_grids(read_table(shipped_anchor_path(name), EVALUATION))[name]


def evaluation(codec: str, factor: float = 1.0, images: tuple[str, ...] = ("a", "b", "c")) -> pd.DataFrame:
    """Return an evaluation table whose images have unlike curves and sizes, all rates scaled by `factor`."""
    rows = []
    for number, image in enumerate(images):
        for setting in range(5):
            num_pixels = 1000 * (number + 1)
            bits = factor * num_pixels * 0.1 * (1.8 + 0.1 * number) ** setting
            psnr_db = 27.0 + 0.7 * number + (2.6 + 0.2 * number) * setting - 0.05 * setting**2
            mse = 255**2 * 10 ** (-psnr_db / 10)
            rows.append((codec, float(setting), "small", image, num_pixels, bits, "coded", mse, psnr_db, 0.9))
    return pd.DataFrame(rows, columns=list(EVALUATION)[: len(rows[0])])


def saved(folder: Path, *tables: pd.DataFrame, name: str = "table.csv") -> str:
    write_table(folder / name, pd.concat(tables, ignore_index=True), EVALUATION)
    return str(folder / name)


# ---- shipped anchors


def test_shipped_anchors_are_whole() -> None:
    for name, settings in {"bpg": 6, "bpg-m9": 18}.items():
        points = grid(name)
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
    curve = grid("bpg").averaged_curve()
    assert curve.rate_bpp[[0, -1]] == pytest.approx([0.067768, 1.929712], abs=5e-7)
    assert curve.psnr_db[[0, -1]] == pytest.approx([26.195128, 41.478873], abs=5e-7)


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
    averaged = points.averaged_curve()
    assert averaged.rate_bpp[1] == pytest.approx(0.1 * (1.8 + 1.9 + 2.0) / 3)
    assert averaged.psnr_db[0] == pytest.approx(27.7)
    assert points.restricted_to({"a", "c"}).image_curve("c").rate_bpp == pytest.approx(points.rate_bpp[2])


def test_both_kinds_of_rate_are_told_apart() -> None:
    coded = evaluation("x", 1.02)
    grids = codec_grids(pd.concat([evaluation("x").assign(rate_kind="estimated"), coded, evaluation("y")]))
    assert list(grids) == ["x (estimated)", "x (coded)", "y"]
    delta = compare(grids["x (estimated)"], grids["x (coded)"], interpolation="pchip")
    assert delta.averaged.bd_rate_percent == pytest.approx(2, abs=1e-9)


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


def test_mean_over_images_and_averaged_curve_are_different_numbers() -> None:
    # One image 20 % cheaper, one 20 % dearer and with more bits: +-20 % has mean 0, the averaged curve does not.
    table = evaluation("x", images=("a", "b"))
    factors = np.where(table["image"] == "a", 0.8, 1.2)
    anchor = codec_grids(table)["x"]
    test = codec_grids(table.assign(codec="y", bits=table["bits"] * factors))["y"]
    delta = compare(anchor, test, interpolation="pchip")
    assert [delta.by_image[image].bd_rate_percent for image in test.images] == pytest.approx([-20, 20])
    assert delta.mean_of_images_percent == pytest.approx(0, abs=1e-9)
    assert delta.standard_error_percent == pytest.approx(20)
    assert delta.num_images == 2
    averaged = bd_rate(anchor.averaged_curve(), test.averaged_curve(), interpolation="pchip")
    assert delta.averaged == averaged
    assert averaged.bd_rate_percent > 0.5


def test_images_without_a_bd_rate_are_named_and_stay_in_the_averaged_curve() -> None:
    table = evaluation("x")
    wobbling = table.assign(codec="y")
    wobbling.loc[(wobbling["image"] == "b") & (wobbling["setting"] == 2), "bits"] = 1.0
    wobbling.loc[wobbling["image"] == "c", "psnr_db"] += 20.0
    delta = compare(codec_grids(table)["x"], codec_grids(wobbling)["y"], interpolation="akima")
    assert list(delta.by_image) == ["a"]
    assert list(delta.excluded) == ["b", "c"]
    assert "y: PSNR must rise strictly" in delta.excluded["b"]
    assert "range of PSNR in common" in delta.excluded["c"]
    assert delta.num_images == 3
    assert delta.mean_of_images_percent == pytest.approx(0, abs=1e-9)
    assert np.isnan(delta.standard_error_percent)
    assert delta.averaged.psnr_low_db == pytest.approx(27.7 + 20 / 3)


def test_different_images_are_refused() -> None:
    anchor = codec_grids(evaluation("x"))["x"]
    other = codec_grids(evaluation("y", images=("b", "c", "d")))["y"]
    message = r"same images, got 1 \(d\) only of the test, 1 \(a\) only of the anchor, and 2 in common"
    with pytest.raises(ValueError, match=message):
        compare(anchor, other, interpolation="pchip")
    cropped = evaluation("y")
    cropped.loc[cropped["image"] == "b", "num_pixels"] = 500
    with pytest.raises(ValueError, match=r"same images, got b with 500 and 2000 pixels"):
        compare(anchor, codec_grids(cropped)["y"], interpolation="pchip")


def test_averaged_curves_that_are_none_are_refused_by_name() -> None:
    anchor = codec_grids(evaluation("x"))["x"]
    single = codec_grids(evaluation("y").query("setting == 2"))["y"]
    with pytest.raises(ValueError, match="y, averaged over 3 images: An R-D curve needs at least two points, got 1"):
        compare(anchor, single, interpolation="pchip")
    exact = evaluation("z")
    exact.loc[4, "psnr_db"] = np.inf
    with pytest.raises(ValueError, match=r"z, averaged over 3 images: .* inf dB"):
        compare(anchor, codec_grids(exact)["z"], interpolation="pchip")
    above = evaluation("w").assign(psnr_db=lambda rows: rows["psnr_db"] + 30)
    with pytest.raises(ValueError, match="w over x: The curves must have a range of PSNR in common"):
        compare(anchor, codec_grids(above)["w"], interpolation="pchip")


# ---- the command


def test_command_prints_both_numbers_of_both_interpolations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = saved(tmp_path, evaluation("dear", 1.1), evaluation("cheap", 0.75))
    anchor = saved(tmp_path, evaluation("mine"), name="anchor.csv")
    files = {kind: tmp_path / "out" / f"bd.{kind}" for kind in ("csv", "json", "png")}
    options = ["--csv", str(files["csv"]), "--json", str(files["json"]), "--plot", str(files["png"])]
    assert main(["--test", test, "--anchor", anchor, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"anchor: mine, coded rate ({anchor})"
    for column in ("PSNR range [dB]", "BD-rate of averaged curve [%]", "mean of per-image BD-rates [%]", "images"):
        assert column in lines[1]
    assert [line.split()[:3] for line in lines[2:]] == [
        [codec, "coded", kind] for codec in ("cheap", "dear") for kind in ("pchip", "akima")
    ]
    assert lines[4].split()[3:] == ["27.70..38.10", "+10.00", "+10.00", "+-", "0.00", "3"]
    assert lines[2].split()[4:6] == ["-25.00", "-25.00"]

    table = pd.read_csv(files["csv"])
    assert table["averaged_curve_bd_rate_percent"].to_numpy() == pytest.approx([-25, -25, 10, 10], abs=1e-9)
    assert table["mean_of_images_bd_rate_percent"].to_numpy() == pytest.approx([-25, -25, 10, 10], abs=1e-9)
    assert table["averaged_images"].tolist() == [3] * 4
    record = json.loads(files["json"].read_text())["comparisons"][2]
    assert (record["codec"], record["anchor"], record["interpolation"]) == ("dear", "mine", "pchip")
    assert record["by_image"]["b"]["bd_rate_percent"] == pytest.approx(10, abs=1e-9)
    assert len(record["test_curve"]["psnr_db"]) == 5
    assert record["excluded"] == {}
    assert files["png"].stat().st_size > 5000


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
    assert lines[2].endswith("3, 2 in the mean")
    assert lines[-2].startswith("y: 1 of 3 images have no BD-rate of their own")
    assert lines[-1].startswith("  b: y: PSNR must rise strictly")
    assert list(json.loads(record.read_text())["comparisons"][0]["excluded"]) == ["b"]


def test_one_image_has_no_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = saved(tmp_path, evaluation("x", images=("a",)), evaluation("y", 1.1, images=("a",)))
    files = [str(tmp_path / "bd.json"), str(tmp_path / "bd.csv")]
    arguments = ["--test", table, "--anchor", table, "--anchor-codec", "x", "--json", files[0], "--csv", files[1]]
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[-3:] == ["+10.00", "+10.00", "1"]
    assert json.loads(Path(files[0]).read_text())["comparisons"][2]["mean_of_images_standard_error_percent"] is None
    assert set(pd.read_csv(files[1], keep_default_na=False)["mean_of_images_standard_error_percent"]) == {""}


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
    assert printed.out.splitlines()[-1].split()[-1] == "2"
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
    assert "-0.17" in ran.stdout
    assert "26.20..41.48" in ran.stdout


def test_import_loads_no_plotting_and_no_tables() -> None:
    code = "import sys, rdgap.bdrate; print(sorted({'matplotlib', 'pandas', 'seaborn', 'torch'} & set(sys.modules)))"
    path = {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    ran = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
