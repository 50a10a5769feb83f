"""The experiments run from end to end on two tiny images; the README shows what their tables say."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch

from rdgap.complexity import count
from rdgap.images import write_image
from rdgap.tables import CODED, RECIPE_STEPS, read_table, write_table
from rdgap.zoo import model_directory, shipped_recipe, trained_models

ROOT = Path(__file__).parent.parent
TABLES = ROOT / "analysis" / "tables"


@pytest.fixture(scope="module")
def kodak() -> ModuleType:
    return script("kodak")


@pytest.fixture(scope="module")
def kodak_gaps() -> ModuleType:
    return script("kodak_gaps")


@pytest.fixture(scope="module")
def coded_kodak() -> ModuleType:
    return script("coded_kodak")


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


@pytest.mark.skipif(not trained_models(), reason="no trained model is there")
def test_coding_experiment_runs_on_two_tiny_images_and_goes_on_where_it_was(
    coded_kodak: ModuleType, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(0)
    for name in ("kodim01", "kodim02"):
        write_image(tmp_path / "images" / f"{name}.png", torch.rand(3, 40, 70, generator=generator))
    command = [sys.executable, str(ROOT / "analysis" / "coded_kodak.py"), "--smoke"]
    command += ["--images", str(tmp_path / "images"), "--tables", str(tmp_path)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    subprocess.run(command, env=environment, check=True)
    table = read_table(tmp_path / "coded_kodak.csv", CODED)
    assert list(table["image"]) == ["kodim01", "kodim02"]
    assert list(table["latents_differing_old_cpu"].notna()) == [True, False]
    assert "| jpeg-like-lite | 1 | 2 |" in coded_kodak.markdown(table)
    changed = table.assign(bits_coded=table["bits_coded"] + 8)
    write_table(tmp_path / "coded_kodak.csv", changed, CODED)
    coded_kodak._measure_missing(
        tmp_path / "coded_kodak.csv", sorted((tmp_path / "images").iterdir()), [("jpeg-like-lite", 0.0025)]
    )
    assert read_table(tmp_path / "coded_kodak.csv", CODED).equals(changed)


@pytest.mark.skipif(not (TABLES / "coded_kodak.csv").exists(), reason="Kodak was not coded")
def test_readme_shows_what_coding_measured(coded_kodak: ModuleType) -> None:
    table = read_table(TABLES / "coded_kodak.csv", CODED)
    assert coded_kodak.markdown(table) in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not (TABLES / "coded_kodak.csv").exists(), reason="Kodak was not coded")
def test_kodak_is_coded_within_its_estimates_and_decoded_exactly(coded_kodak: ModuleType) -> None:
    table = read_table(TABLES / "coded_kodak.csv", CODED)
    assert coded_kodak.share_of_allowance(table).max() < 1
    assert not table["values_differing_one_to_two_threads"].any()
    assert not table["values_differing_two_to_one_threads"].any()
    old = table.dropna()
    assert set(old["model"]) == set(table["model"])
    assert not old["latents_differing_old_cpu"].any()
    assert old["largest_difference_old_cpu"].max() <= 1
    assert (old["values_differing_old_cpu"] < 1e-4 * 3 * old["num_pixels"]).all()


@pytest.mark.parametrize("name", sorted(path.stem for path in model_directory().glob("*-lite.toml")))
def test_every_small_recipe_trains(name: str) -> None:
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    crop = torch.nn.functional.interpolate(image, size=(64, 64), mode="bicubic").clamp(0, 1)
    first, last = script("recipe_steps").train(shipped_recipe(name), crop, steps=10)
    assert last < 0.95 * first


@pytest.mark.skipif(not (TABLES / "recipe_steps.csv").exists(), reason="no recipe was tried")
def test_the_cost_of_every_recipe_fell_within_thirty_full_size_steps() -> None:
    table = read_table(TABLES / "recipe_steps.csv", RECIPE_STEPS)
    assert (table["last_lagrangian_bpp"] < 0.9 * table["first_lagrangian_bpp"]).all()
    assert set(table["steps"]) == {30}
    assert set(table["num_pixels"]) == {256 * 256}


def test_complexity_table_is_what_the_recipes_say_and_the_readme_shows() -> None:
    table = pd.read_csv(TABLES / "complexity.csv")
    names = sorted(path.stem for path in model_directory().glob("*.toml") if not path.stem.endswith("-lite"))
    expected = pd.concat([count(shipped_recipe(name)).to_frame() for name in names], ignore_index=True)
    pd.testing.assert_frame_equal(table, expected)
    assert script("complexity").markdown(table) in (ROOT / "README.md").read_text(encoding="utf-8")
