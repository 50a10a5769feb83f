"""The command `python -m rdgap.rate_distortion`: tables, pictures, refusals and bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from rdgap.images import write_image
from rdgap.rate_distortion.__main__ import main
from rdgap.rate_distortion.estimate import Estimate
from rdgap.rate_distortion.methods import suitable
from rdgap.rate_distortion.named import named_source
from rdgap.rate_distortion.report import draw
from rdgap.schemas import RATE_DISTORTION
from rdgap.tables import read_table

QUICK = ["--samples", "500", "--components", "2", "--particles", "256"]


def test_it_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f"out.{suffix}" for suffix in ("csv", "json", "png")]
    arguments = ["sphere-2", "--lmbda", "10", "20", "--method", "known", "mixture", "wgd", *QUICK]
    assert main([*arguments, "--csv", str(files[0]), "--json", str(files[1]), "--plot", str(files[2])]) == 0
    printed = capsys.readouterr().out
    assert "distortion: half SSE" in printed
    assert "2.54063" in printed
    table = read_table(files[0], RATE_DISTORTION)
    assert sorted(set(table["method"])) == ["closed form", "mixture", "wgd"]
    assert set(table["lmbda"]) == {10.0, 20.0}
    again = tmp_path / "again.csv"
    assert main([*arguments, "--csv", str(again)]) == 0
    assert list(read_table(again, RATE_DISTORTION)["f_nats"]) == list(table["f_nats"])
    content = json.loads(files[1].read_text())
    assert len(content["estimates"]) == 6
    assert content["refused"] == []
    assert files[2].stat().st_size > 1000


def test_a_table_of_a_discrete_source_is_solved_between_its_bounds(tmp_path: Path, capsys) -> None:
    path = tmp_path / "pair.csv"
    path.write_text("0.3,0,1\n0.7,1,0\n")
    assert main([str(path), "--lmbda", "1"]) == 0
    truth = named_source("binary").bounds(1.0)[0]
    assert capsys.readouterr().out.count(f"{truth:.5f}") == 2  # upper and lower bound


def test_patches_of_a_folder(tmp_path: Path, capsys) -> None:
    write_image(tmp_path / "a.png", torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0)))
    assert main([str(tmp_path), "--patch", "4", "--lmbda", "0.01", "--method", "mixture", *QUICK]) == 0
    assert "patches-4" in capsys.readouterr().out


def test_a_refusal_is_said_and_the_rest_goes_on(capsys) -> None:
    arguments = ["gaussian-32", "--method", "known", "wgd", "--particles", "16", "--samples", "200"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "refused: wgd: the rate must stay" in printed
    assert "closed form" in printed
    assert main(["gaussian-32", "--method", "wgd", "--particles", "16", "--samples", "200"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bananna"], "a source must be laplace, "),
        (["binary", "--method", "mixture"], "mixture needs vectors under squared error, got binary"),
        (["gaussian-3", "--method", "ba"], "ba needs a finite alphabet or a source of one or two coordinates"),
        (["binary", "--lmbda", "-1"], "argument --lmbda: must be positive and finite, got -1"),
        (["binary", "--lmbda", "1", "1"], "--lmbda must be different numbers"),
        (["binary", "--plot", "x.txt"], "argument --plot: must end in"),
        (["banana", "--samples", "0"], "argument --samples: must be at least 1, got 0"),
        (["banana", "--method", "mixture", "--samples", "1"], "1.0: `samples` must be at least 2, got 1"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], said: str, capsys) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"python -m rdgap.rate_distortion: error: {said}")
    assert error.count("\n") == 1


def test_a_folder_without_images_and_a_damaged_table_are_refused(tmp_path: Path, capsys) -> None:
    assert main([str(tmp_path)]) == 2
    assert "A folder of images must hold" in capsys.readouterr().err
    (tmp_path / "x.csv").write_text("0.5,0,1\n0.5,1\n")
    assert main([str(tmp_path / "x.csv")]) == 2
    assert "x.csv: must hold rows of numbers" in capsys.readouterr().err


def test_methods_suit_their_source() -> None:
    assert suitable(named_source("binary")) == ("known", "ba")
    assert suitable(named_source("gaussian-32")) == ("known", "mixture")
    assert suitable(named_source("sawbridge")) == ("known", "wgd", "dual")
    assert suitable(named_source("banana")) == ("known", "ba", "mixture", "wgd", "dual")


def test_shade_lies_between_the_bounds() -> None:
    def point(side: str, lmbda: float, f_nats: float, distortion: float = math.nan) -> Estimate:
        rate = f_nats - lmbda * distortion
        shared = {"lmbda": lmbda, "f_nats": f_nats, "rate_nats": rate, "distortion": distortion}
        return Estimate(method=side, side=side, **shared)

    uppers = [point("upper", 1.0, 2.0, 0.5), point("upper", 2.0, 2.4, 0.3)]
    figure = draw([*uppers, point("lower", 1.0, 1.5), point("lower", 2.0, 2.0)], "toy", "SSE")
    left, right = figure.axes
    vertices = left.collections[0].get_paths()[0].vertices
    assert vertices[:, 1].min() == pytest.approx(1.5)
    assert vertices[:, 1].max() == pytest.approx(2.4)
    below = right.collections[0].get_paths()[0].vertices
    assert below[:, 1].min() == pytest.approx(1.0)  # 1.5 - 1.0 * 0.5 and 2.0 - 2.0 * 0.5 meet at a distortion of 0.5
