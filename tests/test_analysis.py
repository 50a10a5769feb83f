"""The experiments run from end to end on two tiny images; the README shows what their tables say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch

from rdgap.images import write_image
from rdgap.tables import CURVATURE, read_table
from rdgap.zoo import trained_models

ROOT = Path(__file__).parent.parent
TABLES = ROOT / "analysis" / "tables"


@pytest.fixture(scope="module")
def kodak() -> ModuleType:
    return script("kodak")


@pytest.fixture(scope="module")
def kodak_gaps() -> ModuleType:
    return script("kodak_gaps")


def script(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"analysis_{name}", ROOT / "analysis" / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # so that other processes find its functions
    specification.loader.exec_module(module)
    return module


@pytest.mark.skipif(not trained_models(), reason="no trained model is there")
def test_kodak_experiment_runs_on_two_tiny_images(kodak: ModuleType, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for name in ("kodim01", "kodim02"):
        write_image(tmp_path / "images" / f"{name}.png", torch.rand(3, 40, 48, generator=generator))
    code = kodak.main(["--smoke", "--images", str(tmp_path / "images"), "--tables", str(tmp_path / "tables")])
    assert code == 0
    summary = pd.read_csv(tmp_path / "tables" / "kodak_lagrangian.csv")
    assert {"jpeg", "webp", "bpg-m9", "two-layer of the paper"} < set(summary["method"])
    assert (tmp_path / "tables" / "kodak_learned.json").exists()


def test_a_trial_run_may_not_overwrite_the_real_tables(kodak: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert kodak.main(["--smoke"]) == 2
    assert "`--smoke` needs `--tables FOLDER`" in capsys.readouterr().err


@pytest.mark.skipif(not (TABLES / "kodak_learned.csv").exists(), reason="Kodak was not measured")
def test_readme_shows_the_table_that_the_measurements_give(kodak: ModuleType) -> None:
    assert kodak.markdown(kodak.summarize(TABLES)) in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not (TABLES / "kodak_learned.csv").exists(), reason="Kodak was not measured")
def test_shipped_models_beat_jpeg_and_two_layers_beat_one(kodak: ModuleType) -> None:
    costs = kodak.summarize(TABLES).set_index(["method", "lmbda"])["lagrangian_bpp"]
    for model in ("two-layer-lite", "jpeg-like-lite", "mean-scale-lite"):
        for lmbda in (0.0025, 0.01, 0.04):
            assert costs[model, lmbda] < costs["jpeg", lmbda]
    for lmbda in (0.0025, 0.01, 0.04):
        assert costs["two-layer-lite", lmbda] < costs["jpeg-like-lite", lmbda]
    assert costs["two-layer-lite", 0.01] <= 1.10


@pytest.mark.skipif(not trained_models(), reason="no trained model is there")
def test_gaps_experiment_runs_on_two_crops_and_goes_on_where_it_was(kodak_gaps: ModuleType, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for name in ("kodim01", "kodim02"):
        write_image(tmp_path / "images" / f"{name}.png", torch.rand(3, 64, 70, generator=generator))
    arguments = ["--smoke", "--images", str(tmp_path / "images"), "--tables", str(tmp_path / "tables"), "--jobs", "1"]
    assert kodak_gaps.main(arguments) == 0
    table = tmp_path / "tables" / "kodak_gaps.csv"
    measured = table.read_bytes()
    assert list(pd.read_csv(table).image) == ["kodim01", "kodim02"]
    assert "two-layer-lite" in kodak_gaps.markdown(tmp_path / "tables")
    assert kodak_gaps.main(arguments) == 0
    assert table.read_bytes() == measured  # seconds included: nothing was measured again


@pytest.mark.skipif(not (TABLES / "kodak_gaps_means.csv").exists(), reason="the gaps were not measured")
def test_readme_shows_the_gaps_that_the_measurements_give(kodak_gaps: ModuleType) -> None:
    assert kodak_gaps.markdown(TABLES) in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not (TABLES / "kodak_gaps_means.csv").exists(), reason="the gaps were not measured")
def test_twice_the_temperatures_move_no_crop_by_a_hundredth_of_a_bit(kodak_gaps: ModuleType) -> None:
    keys = ["model", "lmbda", "image"]
    single, doubled = (pd.read_csv(TABLES / f"kodak_gaps{kind}.csv") for kind in ("", "_doubled"))
    both = single.merge(doubled, on=keys, suffixes=("", "_doubled"))
    assert set(both["model"]) == set(kodak_gaps.MODELS)
    assert ((both["neg_log_gamma_upper_bpp_doubled"] - both["neg_log_gamma_upper_bpp"]).abs() < 0.01).all()
    assert (single["neg_log_gamma_upper_bpp"] < single["encoder_bpp"]).all()


@pytest.fixture(scope="module")
def latent_curvature() -> ModuleType:
    return script("latent_curvature")


@pytest.mark.skipif(not trained_models(), reason="no trained model is there")
def test_curvature_experiment_runs_on_two_pairs_and_goes_on_where_it_was(
    latent_curvature: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    for name in ("kodim01", "kodim02", "kodim03"):
        write_image(tmp_path / "images" / f"{name}.png", torch.rand(3, 24, 30, generator=generator))
    arguments = ["--smoke", "--images", str(tmp_path / "images"), "--tables", str(tmp_path / "tables")]
    assert latent_curvature.main(arguments) == 0
    table = tmp_path / "tables" / "latent_curvature.csv"
    measured = read_table(table, CURVATURE)
    assert len(measured) == 4
    assert measured["model"].iloc[-1] == latent_curvature.RANDOM
    assert (measured.loc[measured["model"] == latent_curvature.RANDOM, "eta"] > 1.01).all()
    assert latent_curvature.RANDOM in latent_curvature.markdown(tmp_path / "tables")
    monkeypatch.setattr(latent_curvature, "measure_pairs", None)  # nothing is measured again
    monkeypatch.setattr(latent_curvature, "geometry_of", None)
    assert latent_curvature.main(arguments) == 0
    assert len(read_table(table, CURVATURE)) == 4


CURVES = TABLES / "latent_curvature.csv"


@pytest.mark.skipif(not CURVES.exists(), reason="curvature was not measured")
def test_readme_shows_the_curvature_that_the_measurements_give(latent_curvature: ModuleType) -> None:
    assert latent_curvature.markdown(TABLES) in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not CURVES.exists(), reason="curvature was not measured")
def test_no_measured_curve_is_shorter_than_its_chord_and_controls_are_not_straight(
    latent_curvature: ModuleType,
) -> None:
    table = read_table(CURVES, CURVATURE)
    assert (table["eta"] + table["eta_error"] >= 1).all()
    assert (table["polyline_length"] <= table["length"] + table["length_error"]).all()
    assert (table.groupby(["model", "lmbda", "crop"], dropna=False)["pair"].nunique() == latent_curvature.PAIRS).all()
    affine = table.loc[table["model"] == "jpeg-like-lite"]
    assert ((affine["eta"] - 1).abs() <= affine["eta_error"]).all()
    medians = table.groupby(["model", "crop"])["eta"].median()
    for crop in latent_curvature.POINTS:
        assert medians[latent_curvature.RANDOM, crop] > 1.2
        for model in ("two-layer-lite", "mean-scale-lite"):
            assert 1 < medians[model, crop] < 1.005
            assert medians[latent_curvature.GENERATIVE, crop] - 1 > 2 * (medians[model, crop] - 1)
    shares = [table.loc[(table["model"] == "two-layer-lite") & (table["crop"] == crop)] for crop in (16, 64, 256)]
    assert all(
        rows.loc[rows["lmbda"] == 0.08, "eta"].median() < rows.loc[rows["lmbda"] == 0.00125, "eta"].median()
        for rows in shares
    )
