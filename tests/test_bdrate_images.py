"""`python -m rdgap.bdrate` on a folder of photographs, from the images to the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rdgap.bdrate.__main__ import main
from rdgap.images import write_image
from rdgap.schemas import BD, EVALUATION
from rdgap.tables import read_table
from rdgap.zoo import trained_models

needs_models = pytest.mark.skipif(not trained_models(), reason="no trained model is there")


def photograph(seed: int, height: int = 96, width: int = 120) -> torch.Tensor:
    """Smooth colors, an edge and a little noise: coded files of it behave like a photograph's."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)[0]
    smooth[:, :, width // (2 + seed) :] *= 0.6
    return (smooth + 0.03 * torch.randn(3, height, width, generator=generator)).clamp(0, 1)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for number in range(3):
        write_image(tmp_path / "photos" / f"p{number}.png", photograph(number, width=110 + 7 * number))
    return tmp_path / "photos"


@needs_models
def test_a_folder_of_photographs_needs_nothing_else(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {kind: tmp_path / f"bd.{kind}" for kind in ("csv", "json", "png")}
    arguments = ["--images", str(photographs), "--model", "two-layer-lite", "--anchor", "webp", "--anchor", "jpeg"]
    written = ["--csv", files["csv"], "--json", files["json"], "--plot", files["png"]]
    points = tmp_path / "points.csv"
    assert main([*arguments, *map(str, written), "--points", str(points), "--resamples", "50"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "the anchor webp (WebP, lossy, method 4, 22 settings, quality 2..95, like Pillow " in printed
    assert "the anchor jpeg (JPEG, chroma 4:2:0, optimised Huffman tables" in printed
    table = read_table(files["csv"], BD)
    assert set(table["anchor"]) == {"webp", "jpeg"}
    assert set(table["codec"]) == {"two-layer-lite"}
    assert set(table["rate_kind"]) == {"estimated"}
    encoders = json.loads(files["json"].read_text())["encoders"]
    assert encoders["jpeg"]["50"].endswith("save('JPEG', quality=50, subsampling='4:2:0', optimize=True)")
    assert files["png"].stat().st_size > 5000

    # The measured points, taken as tables, give the same numbers.
    again = tmp_path / "again.csv"
    measured = read_table(points, EVALUATION)
    parts = {name: tmp_path / f"{name}.csv" for name in ("two-layer-lite", "webp")}
    for name, path in parts.items():
        measured.loc[measured["codec"] == name, :].to_csv(path, index=False)
    sources = ["--test", str(parts["two-layer-lite"]), "--anchor", str(parts["webp"])]
    assert main([*sources, "--csv", str(again), "--resamples", "50"]) == 0
    expected = table.loc[table["anchor"] == "webp", "bd_rate_percent"].to_numpy()
    assert read_table(again, BD)["bd_rate_percent"].to_numpy() == pytest.approx(expected, rel=1e-9)


@needs_models
def test_lpips_is_measured_where_it_is_held_equal_and_coded_rates_where_asked_for(
    tmp_path: Path,
) -> None:
    data = pytest.importorskip("skimage.data", reason="the sample photographs come with scikit-image")
    for name, pixels in {
        "astronaut": data.astronaut()[:128, 150:300],
        "coffee": data.coffee()[100:228, 200:350],
    }.items():
        write_image(tmp_path / "photos" / f"{name}.png", torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255)
    arguments = ["--images", str(tmp_path / "photos"), "--measure", "psnr", "lpips"]
    arguments += ["--model", "two-layer-lite", "--lmbda", "0.0025", "0.01", "0.04", "--coded", "--anchor", "jpeg2000"]
    arguments += ["--interpolation", "pchip", "--range", "common", "--resamples", "10"]
    assert main([*arguments, "--csv", str(tmp_path / "bd.csv"), "--points", str(tmp_path / "points.csv")]) == 0
    table = read_table(tmp_path / "bd.csv", BD)
    assert set(table["codec"]) == {"two-layer-lite (coded)", "two-layer-lite (estimated)"}
    assert set(table["measure"]) == {"psnr", "lpips"}
    points = read_table(tmp_path / "points.csv", EVALUATION)
    assert (points["lpips"] > 0).all()
    assert points["ms_ssim"].isna().all()


def test_same_names_in_two_folders_are_told_apart(photographs: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "more" / "p0.png", photograph(7))
    arguments = ["--images", str(photographs), str(tmp_path / "more"), "--model", "jpeg", "--anchor", "jpeg-default"]
    csv = tmp_path / "bd.csv"
    assert main([*arguments, "--interpolation", "pchip", "--resamples", "10", "--csv", str(csv)]) == 0
    table = read_table(csv, BD)
    assert set(table["images"]) == {4}
    assert set(table["dataset"]) == {"more and photos"}
    assert (table["bd_rate_percent"] < 0).all()  # optimised tables only save bits


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["--model", "two-layer-lite", "--anchor", "bpg"], "BPG needs the programs bpgenc and bpgdec on the PATH"),
        (["--model", "no-such", "--anchor", "webp"], "there is no trained model 'no-such'"),
        (["--model", "jpeg", "--anchor", "tables.csv"], "must be one of jpeg, jpeg-default, jpeg2000, webp, avif"),
    ],
)
def test_what_cannot_be_run_is_said_before_the_work(
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    names: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--images", str(photographs), *names]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_what_can_be_compared_is_told_where_something_else_cannot(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Images under 161 pixels have no MS-SSIM; their PSNR is compared all the same.
    arguments = ["--images", str(photographs), "--model", "jpeg", "--anchor", "webp", "--measure", "psnr", "ms-ssim"]
    assert main([*arguments, "--resamples", "10", "--csv", str(tmp_path / "bd.csv")]) == 2
    printed = capsys.readouterr()
    assert "every image must have a MS-SSIM, got none for p0" in printed.err
    assert printed.err.count("\n") == 1
    assert set(read_table(tmp_path / "bd.csv", BD)["measure"]) == {"psnr"}


def test_codecs_of_three_points_are_compared_without_a_cubic(photographs: Path, tmp_path: Path) -> None:
    points, csv = tmp_path / "points.csv", tmp_path / "bd.csv"
    images = ["--images", str(photographs)]
    assert main([*images, "--model", "jpeg", "--anchor", "webp", "--points", str(points), "--resamples", "5"]) == 0
    table = read_table(points, EVALUATION)
    three = table.loc[(table["codec"] == "jpeg") & table["setting"].isin([20.0, 50.0, 80.0]), :]
    three.to_csv(points, index=False)
    table.loc[table["codec"] == "webp", :].to_csv(tmp_path / "webp.csv", index=False)
    arguments = ["--test", str(points), "--anchor", str(tmp_path / "webp.csv"), "--resamples", "5"]
    assert main([*arguments, "--csv", str(csv)]) == 0
    assert set(read_table(csv, BD)["interpolation"]) == {"pchip", "akima"}
    assert main([*arguments, "--interpolation", "cubic"]) == 2
