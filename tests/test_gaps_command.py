from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from rdgap.gaps import __main__ as command
from rdgap.gaps import decompose, jobs
from rdgap.gaps.report import differences, means
from rdgap.model import Codec, from_modules
from rdgap.schemas import BOTH_SIDES, GAPS, ROUNDED
from rdgap.tables import read_table

from ._toys import patch_means

QUICK = ["--fit-steps", "20", "--temperatures", "5", "--samples", "8", "--chains", "4"]


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images, three of one size and two of another."""
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(1)
    for name, shape in zip("abcde", [(8, 8), (8, 12), (8, 8), (8, 12), (8, 8)], strict=True):
        Image.fromarray(generator.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def _toy_zoo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def load(name: str, *_: object, **__: object) -> Codec:
        return wide_patch_means() if name == "wide" else patch_means()

    monkeypatch.setattr(command, "named_codec", load)
    monkeypatch.setattr(jobs, "named_codec", load)
    jobs._loaded.cache_clear()
    yield
    jobs._loaded.cache_clear()


def wide_patch_means() -> Codec:
    """As `patch_means`, with another prior, which can be sampled."""
    toy, normal = patch_means(), torch.distributions.Normal(0.0, 4.0)
    return from_modules(
        lambda images: toy.infer(images)[0],
        lambda latents: toy.decode((latents,)),
        lambda latents: normal.log_prob(latents).sum((1, 2, 3)),
        lambda like, generator: 4 * torch.randn(like.shape, generator=generator),
    )


def measured(path: Path) -> pd.DataFrame:
    """The table of a run less the time it took."""
    return read_table(path, GAPS).drop(columns="seconds")


def test_the_schema_names_every_column_that_is_measured() -> None:
    gaps = decompose(
        patch_means(), torch.rand(1, 3, 8, 8), 0.01, generator=torch.Generator(), fit_steps=1, temperatures=2, samples=2
    )
    assert set(gaps.to_frame().columns) | jobs.Settings.__dataclass_fields__.keys() == GAPS.keys() - {
        "model",
        "image",
        "device",
    }


@pytest.mark.usefixtures("_toy_zoo")
def test_command_prints_and_writes_what_it_measured(
    photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "second.png"
    Image.open(photograph).transpose(Image.Transpose.ROTATE_90).save(other)
    outputs = {kind: tmp_path / "new" / f"gaps.{kind}" for kind in ("csv", "json", "png")}
    arguments = [str(photograph), str(other), "--crop", "8", *QUICK]
    arguments += ["--csv", str(outputs["csv"]), "--json", str(outputs["json"]), "--plot", str(outputs["png"])]
    assert command.main(arguments) == 0
    printed, progress = capsys.readouterr()
    assert progress == ""
    table = read_table(outputs["csv"], GAPS)
    content = json.loads(outputs["json"].read_text())
    assert list(table.image) == ["photo", "second"]
    assert list(table.num_pixels) == [64, 64]
    assert content["settings"]["crop"] == 8
    pd.testing.assert_frame_equal(pd.DataFrame(content["images"])[list(GAPS)], table)
    assert content["differences"] == []
    (mean,) = content["means"]
    assert mean["modeling_gap_lower_bpp"] == 0
    assert f"[0, {mean['neg_log_gamma_upper_bpp']:.4f}]" in printed
    for name in ("encoder", "fitted_gaussian", "equilibrium_lower", "inference_gap_lower"):
        for index in (0, 1):
            assert f"{table[f'{name}_bpp'][index]:.4f}±{table[f'{name}_stderr_bpp'][index]:.4f}" in printed
        assert mean[f"{name}_bpp"] == pytest.approx(table[f"{name}_bpp"].mean())
        assert mean[f"{name}_image_stderr_bpp"] == pytest.approx(abs(table[f"{name}_bpp"].diff()[1]) / 2)
        assert mean[f"{name}_estimator_stderr_bpp"] == pytest.approx(np.hypot(*table[f"{name}_stderr_bpp"]) / 2)
        assert f"{mean[f'{name}_bpp']:.4f}±{mean[f'{name}_estimator_stderr_bpp']:.4f}" in printed
    with Image.open(outputs["png"]) as picture:
        assert picture.width > 1000


@pytest.mark.usefixtures("_toy_zoo")
def test_one_image_has_no_error_over_images(
    photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = tmp_path / "gaps.json"
    assert command.main([str(photograph), "--crop", "8", *QUICK, "--model", "toy", "wide", "--json", str(content)]) == 0
    written = json.loads(content.read_text())
    assert [mean["encoder_image_stderr_bpp"] for mean in written["means"]] == [None, None]
    assert written["differences"][0]["lower_95_bpp"] is None
    printed = capsys.readouterr().out
    assert "nan" not in printed
    assert "(one image)" in printed


@pytest.mark.usefixtures("_toy_zoo")
def test_models_are_measured_at_each_lmbda_and_compared_image_by_image(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, content, picture = (tmp_path / f"gaps.{kind}" for kind in ("csv", "json", "png"))
    arguments = [str(folder), *QUICK, "--model", "toy", "wide", "--lmbda", "0.02", "0.01", "--csv", str(table)]
    assert command.main([*arguments, "--json", str(content), "--plot", str(picture)]) == 0
    rows, written = read_table(table, GAPS), json.loads(content.read_text())
    assert len(rows) == 20
    assert [(mean["model"], mean["lmbda"]) for mean in written["means"]] == [
        (model, lmbda) for model in ("toy", "wide") for lmbda in (0.02, 0.01)
    ]
    printed = capsys.readouterr().out
    for difference in written["differences"]:
        gaps = rows[rows.lmbda == difference["lmbda"]].pivot(
            index="image", columns="model", values="inference_gap_lower_bpp"
        )
        each = gaps["toy"] - gaps["wide"]
        half = 2.7764 * each.std() / 5**0.5  # Student's t at 97.5 % with 4 degrees of freedom
        assert difference["difference_bpp"] == pytest.approx(each.mean())
        assert difference["lower_95_bpp"] == pytest.approx(each.mean() - half, abs=1e-4 * half)
        assert difference["upper_95_bpp"] == pytest.approx(each.mean() + half, abs=1e-4 * half)
        assert f"{difference['difference_bpp']:+.4f}" in printed
    assert [difference["lmbda"] for difference in written["differences"]] == [0.02, 0.01]


def test_an_interval_of_differences_covers_their_mean_as_often_as_it_says() -> None:
    generator, number = np.random.default_rng(0), 600
    frames = [
        pd.DataFrame(
            {
                "lmbda": float(trial),
                "model": np.repeat(["a", "b"], 6),
                "image": list("pqrstu") * 2,
                "inference_gap_lower_bpp": np.concatenate([generator.normal(0.3, 1, 6), np.zeros(6)]),
            }
        )
        for trial in range(number)
    ]
    pairs = differences(pd.concat(frames))
    covered = ((pairs.lower_95_bpp <= 0.3) & (pairs.upper_95_bpp >= 0.3)).mean()
    assert covered == pytest.approx(0.95, abs=5 * (0.95 * 0.05 / number) ** 0.5)


# the same rows wherever and whenever they are measured


@pytest.mark.usefixtures("_toy_zoo")
def test_rows_do_not_depend_on_where_they_are_measured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    arguments = [str(folder), *QUICK, "--model", "toy", "wide", "--batch", "8", "--csv"]
    assert command.main([*arguments, str(here)]) == 0

    @contextmanager
    def threads(address: str) -> Iterator[ThreadPoolExecutor]:
        assert address == "tcp://scheduler:8786"
        with ThreadPoolExecutor(2) as executor:
            yield executor

    monkeypatch.setattr(command._cli, "executor", threads)
    assert command.main([*arguments, str(there), "--cluster", "tcp://scheduler:8786"]) == 0
    pd.testing.assert_frame_equal(measured(here), measured(there))


@pytest.mark.usefixtures("_toy_zoo")
def test_an_interrupted_run_goes_on_and_ends_with_the_same_rows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, resumed = tmp_path / "whole.csv", tmp_path / "resumed.csv"
    arguments = [str(folder), *QUICK, "--batch", "8", "--csv"]
    assert command.main([*arguments, str(whole)]) == 0
    done: list[jobs.Job] = []

    def measure(job: jobs.Job) -> pd.DataFrame:
        if len(done) == stop_after:
            raise RuntimeError("power cut")
        done.append(job)
        return jobs.measure(job)

    monkeypatch.setattr(command, "measure", measure)
    stop_after = 2
    assert command.main([*arguments, str(resumed)]) == 1
    assert len(read_table(resumed, GAPS)) == 3  # two of one size, and the third
    stop_after = None
    assert command.main([*arguments, str(resumed)]) == 0
    pd.testing.assert_frame_equal(measured(resumed), measured(whole))
    assert sorted(path.stem for job in done for path in job.paths) == list("abcde")
    before = resumed.read_bytes()
    assert command.main([*arguments, str(resumed)]) == 0
    assert len(done) == 3
    assert resumed.read_bytes() == before


@pytest.mark.usefixtures("_toy_zoo")
def test_rows_that_this_run_did_not_ask_for_are_kept_and_not_shown(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "gaps.csv"
    assert command.main([str(folder / "a.png"), *QUICK, "--csv", str(table)]) == 0
    first = measured(table)
    capsys.readouterr()
    assert command.main([str(folder / "b.png"), *QUICK, "--model", "wide", "--csv", str(table)]) == 0
    assert "two-layer-lite" not in capsys.readouterr().out
    both = measured(table)
    assert list(both.image) == ["a", "b"]
    pd.testing.assert_frame_equal(both[:1], first)


@pytest.mark.usefixtures("_toy_zoo")
def test_a_table_of_other_settings_or_columns_is_refused_and_left_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, arguments = tmp_path / "gaps.csv", [str(folder / "a.png"), *QUICK, "--csv", str(tmp_path / "gaps.csv")]
    assert command.main(arguments) == 0
    before = table.read_bytes()
    capsys.readouterr()
    for options, message in ((["--seed", "7"], "rows with seed 0, this run has 7"), (["--bf16"], "bf16 0.*has 1")):
        assert command.main([*arguments, *options]) == 2
        _is_one_line(capsys.readouterr(), message)
    assert table.read_bytes() == before
    header, row = before.decode().splitlines()
    table.write_text(f"{header}\n{row}\n{row}\n")
    assert command.main(arguments) == 2
    _is_one_line(capsys.readouterr(), "one row per model, lmbda and image")
    table.write_text("image,bits\nphoto,3\n")
    assert command.main(arguments) == 2
    _is_one_line(capsys.readouterr(), "the columns must be model, lmbda")
    assert table.read_text() == "image,bits\nphoto,3\n"


def test_without_dask_a_cluster_is_one_line_and_exit_code_2(
    photograph: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "rdgap.cluster", raising=False)
    assert command.main([str(photograph), "--crop", "8", "--cluster", "tcp://127.0.0.1:8786"]) == 2
    _is_one_line(capsys.readouterr(), r"pip install 'rdgap\[cluster\]'")


@pytest.mark.usefixtures("_toy_zoo")
def test_few_effective_chains_and_divergences_are_noted(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "gaps.csv"
    assert command.main([str(folder), *QUICK, "--csv", str(table)]) == 0
    rows = read_table(table, GAPS).assign(divergent_share=0.0, effective_chains=3.0)
    assert "note:" not in command.format_report(rows)
    assert "divergent proposals" in command.format_report(rows.assign(divergent_share=[0.0] * 4 + [0.1]))
    assert "hardly more than one chain" in command.format_report(rows.assign(effective_chains=[3.0] * 4 + [1.1]))
    assert means(rows.assign(effective_chains=[3.0] * 4 + [1.1])).effective_chains[0] == 1.1


@pytest.mark.usefixtures("_toy_zoo")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "missing.png"),
        (["text.png"], "text.png"),
        (["cut.png"], "cut.png"),
        (["photo.png", "--crop", "25"], "photo.png.*25"),
        (["photo.png", "--plot", "gaps.xyz"], "must end in .*got gaps.xyz"),
        (["photo.png", "--chains", "1"], "--chains: must be at least 2, got 1"),
        (["photo.png", "--lmbda", "-1"], "--lmbda: must be positive"),
        (["photo.png", "--device", "abacus"], "`--device` must name a device"),
        (["photo.png", "--model", "toy", "toy"], "--model must be different .*got toy twice"),
        (["photo.png", "--lmbda", "0.01", "0.010"], "--lmbda must be different .*got 0.01 twice"),
        (["photo.png", "copy/photo.png"], "names of the images must be different .*got photo twice"),
        (["photo.png", "--csv", "text.png/gaps.csv"], "must be a file that can be written"),
        (["photo.png", "--target-acceptance", "1"], "must lie between 0 and 1, got 1"),
        (["photo.png", "--cluster", "abacus"], "must be like tcp://HOST:PORT, got abacus"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    photograph: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(photograph.parent)
    Path("copy").mkdir()
    Path("copy", "photo.png").write_bytes(photograph.read_bytes())
    Path("text.png").write_text("no image")
    Path("cut.png").write_bytes(photograph.read_bytes()[:900])
    assert command.main(arguments) == 2
    _is_one_line(capsys.readouterr(), message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--model", "no-such-model"], "no-such-model"), (["--lmbda", "0.0123"], "0.0123|trained")],
)
def test_unknown_model_or_lmbda_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(photograph), *arguments]) == 2
    _is_one_line(capsys.readouterr(), message)


def test_module_runs_from_another_directory(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    finished = subprocess.run(
        [sys.executable, "-m", "rdgap.gaps", "missing.png"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    _is_one_line((finished.stdout, finished.stderr), "missing.png")


@pytest.mark.usefixtures("_toy_zoo")
def test_the_rounded_codec_gets_a_table_of_its_own_and_goes_on_with_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rounded.csv"
    arguments = [str(folder), "--crop", "8", *QUICK, "--rounded", str(file)]
    assert command.main(arguments) == 0
    table = read_table(file, ROUNDED)
    parts = table.neg_log_gamma_upper_bpp + table.determinism_gap_bpp + table.search_gap_lower_bpp
    assert list(parts) == pytest.approx(list(table.rounded_bpp))
    assert f"{table.determinism_gap_bpp.mean():.4f}" in capsys.readouterr().out
    before = file.read_bytes()
    assert command.main(arguments) == 0
    assert file.read_bytes() == before
    assert command.main([*arguments, "--csv", str(file)]) == 2


@pytest.mark.usefixtures("_toy_zoo")
def test_both_sides_get_a_table_of_their_own_which_holds_their_gap(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, content = tmp_path / "sides.csv", tmp_path / "sides.json"
    arguments = [str(folder), "--crop", "8", "--model", "wide", *QUICK]
    arguments += ["--both-sides", str(file), "--json", str(content)]
    assert command.main(arguments) == 0
    table = read_table(file, BOTH_SIDES)
    assert list(table.image) == list("abcde")
    apart = table.neg_log_gamma_upper_bpp - table.neg_log_gamma_lower_bpp
    assert list(table.bidirectional_gap_bpp) == pytest.approx(list(apart))
    assert (apart > -5 * table.bidirectional_gap_stderr_bpp).all()
    assert 0 < apart.mean() < 0.2  # five temperatures leave the bounds apart
    assert (table.bidirectional_gap_stderr_bpp < 0.2).all()
    assert f"{apart.max():.4f}±" in capsys.readouterr().out
    assert len(json.loads(content.read_text())["both_sides"]) == 5
    before = file.read_bytes()
    assert command.main(arguments) == 0
    assert file.read_bytes() == before


@pytest.mark.usefixtures("_toy_zoo")
def test_both_sides_of_a_codec_that_cannot_be_sampled_are_refused_before_the_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(folder), "--model", "flat", "--both-sides", str(tmp_path / "sides.csv")]
    assert command.main(arguments) == 2
    _is_one_line(capsys.readouterr(), "`--both-sides` needs a codec with `sample_prior`, got flat")


def _is_one_line(captured: tuple[str, str], message: str) -> None:
    printed, error = captured
    assert printed == ""
    assert len(error.splitlines()) == 1
    assert re.search(message, error)
