"""Rate-distortion points: closed answers of a toy codec, averages, and the command."""

import json
import math
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import rdgap.zoo
from rdgap.codec import Coder
from rdgap.conventional import transcode
from rdgap.encoding import Encoder
from rdgap.evaluation import (
    IterativeChoice,
    average,
    best_lagrangian,
    coded_point,
    conventional_points,
    evaluate,
    evaluate_image,
    learned_point,
)
from rdgap.evaluation import points as points_module
from rdgap.evaluation.__main__ import main
from rdgap.images import read_image
from rdgap.model import from_modules
from rdgap.schemas import EVALUATION
from rdgap.tables import read_table, write_table
from tests._recipes import tiny_codec

SIZES = [(1, 1), (5, 7), (12, 9)]


def toy(levels=8, surplus=0):
    """Return a codec of `levels + 1` gray levels that spends |latent| bits on each latent."""

    def synthesis(latent):
        return torch.nn.functional.pad(latent / levels + 0.5, (0, surplus, 0, 2 * surplus), value=9.0)

    return from_modules(
        lambda x: levels * (x - 0.5), synthesis, lambda y: -math.log(2) * y.abs().double().sum(dim=(1, 2, 3))
    )


def closed_answer(pixels, levels=8):
    """Return bits and MSE that `toy` gives on uint8 pixels, by numpy alone."""
    latents = np.round(levels * (pixels / 255 - 0.5))
    decoded = np.round((latents / levels + 0.5) * 255)
    return np.abs(latents).sum(), np.square(decoded - pixels).mean()


def random_pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """A data set of three photographs of odd sizes, one of a single pixel."""
    (tmp_path / "photos").mkdir()
    for index, size in enumerate(SIZES):
        Image.fromarray(random_pixels(*size, seed=index)).save(tmp_path / "photos" / f"p{index}.png")
    return tmp_path / "photos"


def tensor(pixels):
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


# ---------------------------------------------------------------- one image


@pytest.mark.parametrize("surplus", [0, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 7), (12, 9)])
def test_rate_and_distortion_have_their_closed_answer_at_any_size(size, surplus):
    pixels = random_pixels(*size)
    bits, mse = closed_answer(pixels)
    measured = evaluate_image(toy(surplus=surplus), tensor(pixels))
    assert measured.bits == pytest.approx(bits, abs=1e-9)
    assert measured.mse == pytest.approx(mse, rel=1e-5)
    assert measured.psnr_db == pytest.approx(10 * math.log10(255**2 / mse), abs=1e-4)
    assert measured.num_pixels == size[0] * size[1]
    assert measured.rate_bpp == pytest.approx(bits / (size[0] * size[1]))
    assert measured.rate_kind == "estimated"
    assert math.isnan(measured.ms_ssim)


@pytest.mark.parametrize(("level", "mse"), [(100.49, 0.0), (100.51, 1.0), (-7.0, 100.0**2), (300.0, 155.0**2)])
def test_decoded_images_are_rounded_and_saturated_to_8_bit(level, mse):
    image = torch.full((3, 2, 3), 100 / 255)
    codec = from_modules(lambda x: x, lambda y: torch.full_like(y, level / 255), lambda y: torch.zeros(len(y)))
    assert evaluate_image(codec, image).mse == pytest.approx(mse, abs=1e-3)


def test_an_exact_codec_has_infinite_psnr():
    image = torch.full((3, 2, 3), 1.0)
    measured = evaluate_image(toy(levels=2), image)
    assert measured.psnr_db == math.inf
    assert measured.bits == 18


def test_ms_ssim_is_there_for_large_images():
    image = torch.rand(3, 165, 170, generator=torch.Generator().manual_seed(0))
    coarse, fine = (evaluate_image(toy(levels), image).ms_ssim for levels in (4, 64))
    assert 0.5 < coarse < fine < 1


@pytest.mark.parametrize(("density", "rule"), [(2.0, "not negative"), (math.nan, "finite"), (-math.inf, "finite")])
def test_an_impossible_rate_is_an_error(density, rule):
    codec = from_modules(lambda x: x, lambda y: y, lambda y: torch.full((len(y),), density))
    with pytest.raises(RuntimeError, match=rule):
        evaluate_image(codec, torch.zeros(3, 2, 2))


def test_a_decoded_nan_is_an_error():
    codec = from_modules(lambda x: x, lambda y: y * math.nan, lambda y: torch.zeros(len(y)))
    with pytest.raises(RuntimeError, match="decoded image must be finite"):
        evaluate_image(codec, torch.zeros(3, 2, 2))


# ---------------------------------------------------------------- folders


def points():
    return [
        learned_point(toy(8), name="toy", lmbda=0.01),
        learned_point(toy(32), name="toy", lmbda=0.08),
        *conventional_points("jpeg", [10, 90]),
    ]


@pytest.mark.parametrize("threads", [None, 3])
def test_a_folder_gives_one_row_per_image_and_operating_point(folder, tmp_path, threads):
    paths = sorted(folder.iterdir())
    if threads:
        with ThreadPoolExecutor(threads) as executor:
            table = evaluate(points(), paths, executor=executor)
    else:
        table = evaluate(points(), paths)
    assert list(table.columns) == list(EVALUATION)
    keys = list(table[["codec", "setting", "dataset", "image"]].itertuples(index=False, name=None))
    settings = [("toy", 0.01), ("toy", 0.08), ("jpeg", 10.0), ("jpeg", 90.0)]
    assert keys == [(*setting, "photos", f"p{index}") for index in range(3) for setting in settings]
    row = table.iloc[4 + 1]  # second image, lmbda .08
    bits, mse = closed_answer(random_pixels(5, 7, seed=1), levels=32)
    assert (row["bits"], row["mse"], row["num_pixels"]) == (pytest.approx(bits), pytest.approx(mse, rel=1e-5), 35)
    write_table(tmp_path / "t.csv", table, EVALUATION)
    assert len(read_table(tmp_path / "t.csv", EVALUATION)) == 12


def test_rows_of_jpeg_count_the_file_and_compare_what_it_decodes_to(folder):
    table = evaluate(conventional_points("jpeg", [30]), [folder / "p2.png"])
    image = read_image(folder / "p2.png")
    coded = transcode("jpeg", image, 30)
    assert table.loc[0, "bits"] == coded.bits
    assert table.loc[0, "rate_kind"] == "coded"
    assert table.loc[0, "mse"] == pytest.approx(
        float(((coded.decoded - image) * 255).double().square().mean()), rel=1e-5
    )


def test_what_is_given_twice_or_not_at_all_is_refused(folder):
    path = folder / "p0.png"
    with pytest.raises(ValueError, match=r"Each operating point must be given once, got toy 0.01 estimated 2 times"):
        evaluate(points() + points()[:1], [path])
    with pytest.raises(ValueError, match=r"Each image must be given once, got photos p0 2 times"):
        evaluate(points(), [path, path.with_suffix(".jpg")])
    with pytest.raises(ValueError, match="At least one image"):
        evaluate(points(), [])
    with pytest.raises(ValueError, match="At least one operating point"):
        evaluate([], [path])


# ---------------------------------------------------------------- averages


def small_table(**changes):
    """Two images of different sizes at two settings of a coded and one of an estimated codec."""
    rows = [
        ("jpeg", 10.0, "a", 100, 100.0, "coded", 200.0, 20.0, 0.9),
        ("jpeg", 10.0, "b", 400, 800.0, "coded", 40.0, 30.0, 0.95),
        ("jpeg", 90.0, "a", 100, 600.0, "coded", 10.0, 40.0, 0.99),
        ("jpeg", 90.0, "b", 400, 2000.0, "coded", 20.0, 36.0, 0.98),
        ("toy", 0.01, "a", 100, 50.0, "estimated", 100.0, 28.0, 0.9),
        ("toy", 0.01, "b", 400, 600.0, "estimated", 50.0, 31.0, math.nan),
    ]
    names = ["codec", "setting", "image", "num_pixels", "bits", "rate_kind", "mse", "psnr_db", "ms_ssim"]
    return pd.DataFrame(rows, columns=names).assign(
        **{
            "dataset": "d",
            "encoder": "own",
            "encoder_steps": 0,
            "encoder_seed": 0,
            "encoder_bf16": 0,
            "lpips": math.nan,
        }
        | changes
    )[list(EVALUATION)]


def test_averages_are_means_of_ratios_and_of_decibels():
    means = average(small_table()).set_index(["codec", "setting"])
    low = means.loc[("jpeg", 10.0)]
    assert (low["rate_bpp"], low["psnr_db"], low["mse"]) == (1.5, 25.0, 120.0)
    assert low["ms_ssim"] == pytest.approx(0.925)
    assert low["images"] == 2
    assert math.isnan(low["lagrangian_bpp"])


def test_lagrangian_of_a_learned_codec_is_at_its_own_lmbda():
    means = average(small_table()).set_index("codec").loc["toy"]
    assert means["lagrangian_bpp"] == pytest.approx((0.5 + 1.0 + 1.5 + 0.5) / 2)


def test_one_missing_ms_ssim_makes_the_mean_missing():
    assert math.isnan(average(small_table()).set_index("codec").loc["toy", "ms_ssim"])


def test_data_sets_are_averaged_apart():
    both = pd.concat([small_table(), small_table().assign(dataset="e", mse=0.0)])
    assert average(both).groupby("dataset")["mse"].sum().to_dict() == {"d": 120 + 15 + 75, "e": 0}


def test_best_lagrangian_chooses_a_setting_for_each_image():
    # a: 1 + 200 l or 6 + 10 l; b: 2 + 40 l or 5 + 20 l
    def best(lmbda):
        return best_lagrangian(small_table(), lmbda).set_index("codec")["lagrangian_bpp"]["jpeg"]

    assert best(0.01) == pytest.approx((3.0 + 2.4) / 2)
    assert best(0.1) == pytest.approx((7.0 + 6.0) / 2)
    assert best(0.2) == pytest.approx((8.0 + 9.0) / 2)
    with pytest.raises(ValueError, match="positive"):
        best(0.0)


# ---------------------------------------------------------------- the command


@pytest.fixture
def toy_zoo(monkeypatch):
    """A zoo with one model, trained at two lmbdas."""

    def load_codec(name, lmbda=None, *, device="cpu"):
        if name != "toy" or lmbda not in (0.01, 0.08):
            raise ValueError(f"there is no trained model {name!r} at {lmbda}.")
        codec = toy(8 if lmbda == 0.01 else 32)
        codec.name, codec.lmbda = name, lmbda  # pyright: ignore[reportAttributeAccessIssue]
        return codec

    monkeypatch.setattr(rdgap.zoo, "load_codec", load_codec)
    monkeypatch.setattr(rdgap.zoo, "trained_lmbdas", lambda name: [0.01, 0.08] if name == "toy" else [])


def test_the_command_prints_and_writes_all_it_measured(toy_zoo, folder, tmp_path, capsys):
    files = [str(tmp_path / name) for name in ("rd.csv", "rd.json", "rd.png")]
    options = ["--csv", files[0], "--json", files[1], "--plot", files[2], "--device", "cpu"]
    assert main(["toy", "jpeg", "--images", str(folder), *options]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    table = read_table(Path(files[0]), EVALUATION)
    assert len(table) == 3 * (2 + len(conventional_points("jpeg")))
    summary = json.loads(Path(files[1]).read_text())
    toys = [row for row in summary["averages"] if row["codec"] == "toy"]
    mean_bpp = [
        np.mean(
            [closed_answer(random_pixels(*size, seed=i), levels)[0] / math.prod(size) for i, size in enumerate(SIZES)]
        )
        for levels in (8, 32)
    ]
    assert [row["rate_bpp"] for row in toys] == pytest.approx(mean_bpp)
    assert [row["setting"] for row in toys] == [0.01, 0.08]
    assert toys[0]["ms_ssim"] is None
    assert [row["lmbda"] for row in summary["best_lagrangian"]] == [0.01, 0.08]
    assert all(row["codec"] == "jpeg" for row in summary["best_lagrangian"])
    assert f"{mean_bpp[0]:8.4f}" in printed
    assert f"{toys[1]['lagrangian_bpp']:8.4f}" in printed
    assert f"{summary['best_lagrangian'][0]['lagrangian_bpp']:8.4f}" in printed
    with Image.open(files[2]) as picture:
        assert picture.size == (1020, 780)


def test_a_rerun_writes_the_same_bytes(toy_zoo, folder, tmp_path):
    for name in ("a", "b"):
        options = [
            "--csv",
            f"{tmp_path}/{name}.csv",
            "--json",
            f"{tmp_path}/{name}.json",
            "--plot",
            f"{tmp_path}/{name}.pdf",
        ]
        assert main(["toy", "--images", str(folder), *options]) == 0
    for suffix in ("csv", "json", "pdf"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_lmbda_selects_among_the_trained_ones(toy_zoo, folder, tmp_path):
    assert main(["toy", "--images", str(folder), "--lmbda", "0.08", "--csv", str(tmp_path / "t.csv")]) == 0
    assert set(read_table(tmp_path / "t.csv", EVALUATION)["setting"]) == {0.08}


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["none"], "no trained model 'none'"),
        (["toy", "--lmbda", "0.02"], "no trained model 'toy' at 0.02"),
        (["toy", "toy"], "operating point must be given once"),
        (["toy", "--plot", "rd.txt"], r"\.pdf, \.png or \.svg"),
        (["toy", "--device", "abacus"], "--device"),
        (["toy", "--images", "gone"], "gone"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(toy_zoo, folder, capsys, arguments, rule):
    given = arguments if "--images" in arguments else [*arguments, "--images", str(folder)]
    assert main(given) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert errors.count("\n") == 1
    assert re.search(rule, errors)


def test_a_broken_image_is_named(toy_zoo, folder, capsys):
    (folder / "p1.png").write_text("no image")
    assert main(["toy", "--images", str(folder)]) == 2
    assert "p1.png: not a PNG" in capsys.readouterr().err


def test_the_command_runs_from_any_folder(folder, tmp_path):
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-W", "error", "-m", "rdgap.evaluation", "jpeg", "--images", "photos", "--lmbda", "0.02"]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "jpeg" in done.stdout.splitlines()[-1]
    assert "0.02" in done.stdout.splitlines()[-1]


def test_coded_rows_stand_beside_estimated_ones(monkeypatch, folder, tmp_path, capsys):
    codec = tiny_codec()
    codec.lmbda = 0.01
    monkeypatch.setattr(rdgap.zoo, "load_codec", lambda name, lmbda=None, *, device="cpu": codec)
    monkeypatch.setattr(rdgap.zoo, "trained_lmbdas", lambda name: [0.01])
    options = ["--images", str(folder), "--device", "cpu", "--csv", str(tmp_path / "rd.csv")]
    assert main(["tiny", "--coded", *options, "--plot", str(tmp_path / "rd.png")]) == 0
    table = read_table(tmp_path / "rd.csv", EVALUATION)
    coded, estimated = (table[table["rate_kind"] == kind].set_index("image") for kind in ("coded", "estimated"))
    for index, size in enumerate(SIZES):
        image = tensor(random_pixels(*size, seed=index))
        assert coded["bits"][f"p{index}"] == 8 * len(Coder(codec).encode(image))
        assert estimated["bits"][f"p{index}"] == pytest.approx(evaluate_image(codec, image).bits)
    means = average(table)
    assert list(means["rate_kind"]) == ["coded", "estimated"]
    rates_and_costs = means["rate_bpp"] + 0.01 * means["mse"]
    assert list(means["lagrangian_bpp"]) == pytest.approx(list(rates_and_costs))
    assert "best quality" not in capsys.readouterr().out


def test_an_interrupted_run_goes_on_with_what_is_missing(toy_zoo, folder, tmp_path, monkeypatch, capsys):
    whole, resumed = tmp_path / "whole.csv", tmp_path / "resumed.csv"
    arguments = ["toy", "jpeg", "--images", str(folder), "--device", "cpu", "--jobs", "1", "--csv"]
    assert main([*arguments, str(whole)]) == 0
    measured, measure = [], points_module._measure

    def failing(job):
        measured.append(job.path.name)
        if len(measured) == 2:
            raise RuntimeError("the power failed")
        return measure(job)

    monkeypatch.setattr(points_module, "_measure", failing)
    capsys.readouterr()
    assert main([*arguments, str(resumed)]) == 1
    error = capsys.readouterr().err
    assert (error.count("\n"), measured) == (1, ["p0.png", "p1.png"])
    assert "p1.png: the power failed" in error
    rows = read_table(resumed, EVALUATION)
    assert set(rows.loc[rows["codec"] == "toy", "image"]) == {"p0"}
    with resumed.open("a") as file:
        file.write("toy,0.0")  # as if killed while it wrote
    assert main([*arguments, str(resumed)]) == 0
    assert measured[2:] == ["p1.png", "p2.png"]
    assert resumed.read_bytes() == whole.read_bytes()
    assert "rows that are there are kept" in capsys.readouterr().err
    assert main(["toy", *arguments[2:], str(resumed), "--lmbda", "0.08"]) == 0
    assert len(measured) == 4
    assert resumed.read_bytes() == whole.read_bytes()  # with the rows that were not asked for
    assert "jpeg" not in capsys.readouterr().out


# ---------------------------------------------------------------- iterative encoding


def test_an_iterative_encoder_has_rows_of_its_own(monkeypatch, folder, tmp_path, capsys):
    codec = tiny_codec().requires_grad_(False)
    codec.name, codec.lmbda = "tiny", 0.01
    monkeypatch.setattr(rdgap.zoo, "load_codec", lambda name, lmbda=None, *, device="cpu": codec)
    monkeypatch.setattr(rdgap.zoo, "trained_lmbdas", lambda name: [0.01])
    common = ["tiny", "jpeg", "--coded", "--images", str(folder), "--device", "cpu"]
    assert main([*common, "--csv", str(tmp_path / "own.csv")]) == 0
    searched = [*common, "--encoder", "sga", "--steps", "12", "--seed", "3", "--csv", str(tmp_path / "sga.csv")]
    assert main([*searched, "--plot", str(tmp_path / "rd.png")]) == 0
    assert "tiny (sga, 12 steps)" in capsys.readouterr().out
    assert "encoder" not in (tmp_path / "own.csv").read_text().splitlines()[0]
    own, sga = (read_table(tmp_path / f"{name}.csv", EVALUATION) for name in ("own", "sga"))
    assert set(own["encoder"]) == {"own"}
    assert set(zip(sga["codec"], sga["encoder"], sga["encoder_steps"], strict=True)) == {
        ("tiny", "sga", 12),
        ("jpeg", "own", 0),
    }
    for index, size in enumerate(SIZES):
        image = tensor(random_pixels(*size, seed=index))
        (found,) = Encoder(method="sga", steps=12, seed=3).encode(codec, image[None], 0.01)
        rows = sga[(sga["codec"] == "tiny") & (sga["image"] == f"p{index}")].set_index("rate_kind")
        assert rows["bits"]["estimated"] == pytest.approx(found.bits)
        assert rows["mse"]["estimated"] == pytest.approx(found.mse, rel=1e-6)
        assert rows["bits"]["coded"] == 8 * len(Coder(codec).encode(image, found.symbols))
        before = own[(own["codec"] == "tiny") & (own["image"] == f"p{index}")].set_index("rate_kind")
        cost_before, cost = (
            table["bits"]["estimated"] / image[0].numel() + 0.01 * table["mse"]["estimated"] for table in (before, rows)
        )
        assert cost <= cost_before
    means = average(pd.concat([own, sga[sga["codec"] == "tiny"]]))
    tiny = means[(means["codec"] == "tiny") & (means["rate_kind"] == "estimated")].set_index("encoder")
    assert tiny["lagrangian_bpp"]["sga"] < tiny["lagrangian_bpp"]["own"]


def test_both_kinds_of_rate_take_one_search(monkeypatch):
    codec, image = tiny_codec().requires_grad_(False), tensor(random_pixels(40, 50, seed=0))
    searches = []
    search = Encoder.encode
    monkeypatch.setattr(Encoder, "encode", lambda *args, **options: searches.append(1) or search(*args, **options))
    choice = IterativeChoice(codec, 0.01, Encoder(method="sga", steps=3))
    points = [
        learned_point(codec, name="tiny", lmbda=0.01, choice=choice),
        coded_point(Coder(codec), name="tiny", lmbda=0.01, choice=choice),
    ]
    estimated, coded = (point.measure(image) for point in points)
    assert len(searches) == 1
    assert coded.mse == pytest.approx(estimated.mse, rel=1e-3)
