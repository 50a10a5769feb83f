"""The experiments run from end to end on two tiny images; the README shows what their tables say."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from types import ModuleType

import bjontegaard
import numpy as np
import pandas as pd
import pytest
import torch

from rdgap._files import sha256
from rdgap.bdrate import codec_grids, published_curve, shipped_anchor_path
from rdgap.complexity import count
from rdgap.gaps.bidirectional import REVERSE_MOVES
from rdgap.schemas import (
    ABLATIONS,
    ABLATIONS_LAGRANGIAN,
    BD,
    CODED,
    COMPLEXITY,
    CURVATURE,
    ENCODED,
    EVALUATION,
    GAPS_ALONG_TRAINING,
    RECIPE_STEPS,
)
from rdgap.tables import read_table, write_table
from rdgap.training.results import LOG_COLUMNS
from rdgap.zoo import model_directory, shipped_recipe, trained_models
from tests._data import data_folder
from tests._scripts import Trials, every_experiment, script

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


@pytest.fixture(scope="module")
def sga_kodak() -> ModuleType:
    return script("sga_kodak")


EXPERIMENTS = every_experiment().EXPERIMENTS


def test_every_script_is_one_of_the_experiments() -> None:
    scripts = {path.stem for path in (ROOT / "analysis").glob("*.py") if not path.stem.startswith("_")}
    assert scripts == set(EXPERIMENTS)


@pytest.mark.skipif(not trained_models(), reason="no trained model is there")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_from_end_to_end(name: str, trials: Trials) -> None:
    """What `make smoke` does; tests below look at the same trials."""
    tables = trials.after(name)
    made = {"known_sources": "known_estimates", "tecnick_clic": "tecnick_learned"}.get(name, name)
    table = tables / ("kodak_learned.csv" if name == "kodak" else f"{made}.csv")
    assert len(pd.read_csv(table)) > 0
    without = ("complexity", "published_bd_rate", "published_jpeg", "claims")
    if name not in without:
        provenance = json.loads(next(tables.glob(f"{table.stem.removesuffix('_estimates')}*.json")).read_text())
        assert "torch" in provenance


@pytest.mark.skipif(not trained_models(), reason="no trained model is there")
def test_kodak_experiment_measures_only_what_is_missing(
    kodak: ModuleType, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = trials.after("kodak")
    summary = pd.read_csv(tables / "kodak_lagrangian.csv")
    assert {"jpeg", "webp", "bpg-m9", "two-layer of the paper"} < set(summary["method"])
    table, record = tables / "kodak_learned.csv", tables / "kodak_learned.json"
    measured = read_table(table, EVALUATION)
    assert list(measured["image"]) == ["kodim01", "kodim02"] * 4
    assert measured["lpips"].notna().all()
    assert set(read_table(tables / "kodak_bd_rate.csv", BD)["averaging"]) == {
        "mean quality",
        "mean distortion",
        "images",
    }
    measured_again = []

    def evaluate(points: list, images: list) -> pd.DataFrame:
        measured_again.extend((point.codec, point.setting) for point in points)
        (point,) = points
        its_rows = (measured["codec"] == point.codec) & (measured["setting"] == point.setting)
        return measured.loc[its_rows, :].assign(bits=1.0)

    monkeypatch.setattr(kodak, "evaluate", evaluate)
    assert kodak.main(trials.arguments("kodak")) == 0
    assert not measured_again
    known = json.loads(record.read_text())
    changed = min(known["weights_sha256"])
    record.write_text(json.dumps(known | {"weights_sha256": known["weights_sha256"] | {changed: "0"}}))
    before = table.read_bytes()
    codecs = kodak.few_models()
    images = sorted((trials.folder / "images").iterdir())[:2]
    kodak.measure_learned(table, codecs, images, dataset="kodak", command="none", device=torch.device("cpu"))
    assert [f"{codec}-{lmbda:g}" for codec, lmbda in measured_again] == [changed]
    assert set(read_table(table, EVALUATION)["bits"]) > {1.0}
    assert json.loads(record.read_text())["weights_sha256"] == known["weights_sha256"]
    table.write_bytes(before)


def test_new_weights_in_the_zoo_are_found_without_a_change_here(
    kodak: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = script("_experiment")
    monkeypatch.setattr(experiment, "trained_models", lambda: ["factorized-lite", "two-layer"])
    monkeypatch.setattr(experiment, "trained_lmbdas", lambda name: [0.01, 0.08] if name == "two-layer" else [0.04])
    found = [("factorized-lite", 0.04), ("two-layer", 0.01), ("two-layer", 0.08)]
    assert kodak.every_model() == found


def test_rows_of_changed_weights_are_dropped_and_the_others_kept_to_the_digit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = script("_experiment")
    for name in ("a-lite-0.01", "a-lite-0.04"):
        (tmp_path / f"{name}.safetensors").write_text(name)
    monkeypatch.setattr(experiment, "model_directory", lambda: tmp_path)
    monkeypatch.setattr(experiment, "every_model", lambda: [("a-lite", 0.01), ("a-lite", 0.04)])
    hashes = {name: sha256(tmp_path / f"{name}.safetensors") for name in ("a-lite-0.01", "a-lite-0.04")}
    record, table, other = (tmp_path / name for name in ("t.json", "t.csv", "other.csv"))
    record.write_text(json.dumps({"command": "x", "weights_sha256": hashes | {"control": "1"}}))
    text = "model,lmbda,bits\na-lite,0.010,1.50\na-lite,0.04,2e3\ncontrol,,7.0\n"
    table.write_text(text)
    experiment.forget_other_weights(record, [table, tmp_path / "missing.csv"])
    assert table.read_text() == text
    (tmp_path / "a-lite-0.01.safetensors").write_text("trained anew")
    other.write_text("model,lmbda\na-lite,0.01\n")
    experiment.forget_other_weights(record, [table, other])
    assert table.read_text() == "model,lmbda,bits\na-lite,0.04,2e3\ncontrol,,7.0\n"
    assert not other.exists()
    noted = json.loads(record.read_text())["weights_sha256"]
    assert noted == hashes | {"a-lite-0.01": sha256(tmp_path / "a-lite-0.01.safetensors"), "control": "1"}
    table.write_text(text)  # measured with the present weights: kept
    experiment.forget_other_weights(record, [table])
    assert table.read_text() == text


def test_a_trial_run_may_not_overwrite_the_real_tables(kodak: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert kodak.main(["--smoke"]) == 2
    assert "`--smoke` needs `--tables FOLDER`" in capsys.readouterr().err


@pytest.mark.skipif(not (TABLES / "kodak_learned.csv").exists(), reason="Kodak was not measured")
def test_readme_shows_the_table_that_the_measurements_give(kodak: ModuleType) -> None:
    assert kodak.markdown(kodak.summarize(TABLES)) in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not (TABLES / "kodak_learned.csv").exists(), reason="Kodak was not measured")
def test_cards_of_all_models_say_what_was_measured_on_kodak(kodak: ModuleType) -> None:
    rows = kodak.card_rows(TABLES)
    assert set(rows) == {kodak.weights_of(*pair) for pair in kodak.every_model()}
    for weights, row in rows.items():
        card = weights.with_suffix(".md").read_text(encoding="utf-8")
        assert kodak.with_row(card, row) == card
        assert "| Kodak |" in card


@pytest.mark.skipif(not (TABLES / "kodak_learned.csv").exists(), reason="Kodak was not measured")
def test_shipped_models_beat_jpeg_and_two_layers_beat_one(kodak: ModuleType) -> None:
    costs = kodak.summarize(TABLES).set_index(["method", "lmbda"])["lagrangian_bpp"]
    for model in ("two-layer-lite", "jpeg-like-lite", "mean-scale-lite"):
        for lmbda in (0.0025, 0.01, 0.04):
            assert costs[model, lmbda] < costs["jpeg", lmbda]
    for lmbda in (0.0025, 0.01, 0.04):
        assert costs["two-layer-lite", lmbda] < costs["jpeg-like-lite", lmbda]
    assert costs["two-layer-lite", 0.01] <= 1.0
    rates = read_table(TABLES / "kodak_bd_rate.csv", BD)
    rates = rates.loc[(rates["interpolation"] == "pchip") & (rates["averaging"] == "mean quality"), :]
    over_bpg = rates.loc[rates["measure"] == "psnr", :].set_index("codec")["bd_rate_percent"]
    for model, most in (("two-layer-lite", 60), ("mean-scale-lite", 60), ("jpeg-like-lite", 90)):
        assert over_bpg[model] <= most


@pytest.mark.skipif(not trained_models(), reason="no trained model is there")
def test_gaps_experiment_goes_on_where_it_was(kodak_gaps: ModuleType, trials: Trials) -> None:
    table = trials.after("kodak_gaps") / "kodak_gaps.csv"
    measured = table.read_bytes()
    assert list(pd.read_csv(table).image) == ["kodim01", "kodim02"]
    assert "two-layer-lite" in kodak_gaps.markdown(trials.tables)
    assert kodak_gaps.main(trials.arguments("kodak_gaps")) == 0
    assert table.read_bytes() == measured  # seconds included: nothing was measured again


@pytest.mark.skipif(not (TABLES / "kodak_gaps_means.csv").exists(), reason="the gaps were not measured")
def test_readme_shows_the_gaps_that_the_measurements_give(kodak_gaps: ModuleType) -> None:
    assert kodak_gaps.markdown(TABLES) in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not (TABLES / "kodak_gaps_means.csv").exists(), reason="the gaps were not measured")
def test_twice_the_temperatures_move_no_crop_by_a_hundredth_of_a_bit(kodak_gaps: ModuleType) -> None:
    keys = ["model", "lmbda", "image"]
    single, doubled = (pd.read_csv(TABLES / f"kodak_gaps{kind}.csv") for kind in ("", "_doubled"))
    both = single.merge(doubled, on=keys, suffixes=("", "_doubled"))
    assert set(zip(both["model"], both["lmbda"], strict=True)) >= {(model, 0.01) for model in kodak_gaps.MODELS}
    moved = (both["neg_log_gamma_upper_bpp_doubled"] - both["neg_log_gamma_upper_bpp"]).abs()
    assert moved.max() < 0.01
    assert moved.quantile(0.9) < 0.003
    sides = pd.read_csv(TABLES / "kodak_gaps_bidirectional.csv")
    # At .0025 posteriors have narrow parts, which chains take long to leave; the README says so.
    assert sides.loc[sides["lmbda"] > 0.0025, "bidirectional_gap_bpp"].max() < 0.01
    assert sides["bidirectional_gap_bpp"].max() < 0.04
    assert set(sides.loc[sides["lmbda"] == 0.0025, "reverse_moves"]) == {REVERSE_MOVES}
    assert (single["neg_log_gamma_upper_bpp"] < single["encoder_bpp"]).all()
    of_codec = single.groupby(["model", "lmbda"])["image"].nunique()
    assert of_codec.to_dict() == dict.fromkeys(product(kodak_gaps.MODELS, kodak_gaps.LMBDAS), 24)


@pytest.mark.skipif(not trained_models(), reason="no trained model is there")
def test_coding_experiment_goes_on_where_it_was(coded_kodak: ModuleType, trials: Trials) -> None:
    path = trials.after("coded_kodak") / "coded_kodak.csv"
    table = read_table(path, CODED)
    assert list(table["image"]) == ["kodim01", "kodim02"]
    assert list(table["latents_differing_old_cpu"].notna()) == [True, False]
    assert f"| {table['model'].iloc[0]} | 1 | 2 |" in coded_kodak.markdown(table)
    changed = table.assign(bits_coded=table["bits_coded"] + 8)
    write_table(path, changed, CODED)
    images = sorted((trials.folder / "images").iterdir())[:2]
    coded_kodak._measure_missing(path, images, [(table["model"].iloc[0], table["lmbda"].iloc[0])])
    assert read_table(path, CODED).equals(changed)


@pytest.mark.skipif(not (TABLES / "coded_kodak.csv").exists(), reason="Kodak was not coded")
def test_readme_shows_what_coding_measured(coded_kodak: ModuleType) -> None:
    table = read_table(TABLES / "coded_kodak.csv", CODED)
    assert coded_kodak.markdown(table) in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not (TABLES / "coded_kodak.csv").exists(), reason="Kodak was not coded")
def test_kodak_is_coded_within_its_estimates_and_decoded_exactly(coded_kodak: ModuleType) -> None:
    table = read_table(TABLES / "coded_kodak.csv", CODED)
    over_estimate, over_estimate_less_savings = coded_kodak.shares_of_allowance(table)
    assert over_estimate.max() < 1
    assert over_estimate_less_savings.min() > 0
    assert over_estimate_less_savings.max() < 1
    assert (table["bits_coded"] > 0.95 * table["bits_estimated"]).all()
    threads = table[["model", "values_differing_one_to_two_threads", "values_differing_two_to_one_threads"]].dropna()
    assert set(threads["model"]) == set(table["model"])
    assert not threads.drop(columns="model").to_numpy().any()
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
    names = sorted(path.stem for path in model_directory().glob("*.toml"))
    expected = pd.concat([count(shipped_recipe(name)).to_frame() for name in names], ignore_index=True)
    pd.testing.assert_frame_equal(table, expected)
    assert script("complexity").markdown(table) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_iterative_encoding_experiment_goes_on_and_forgets_other_weights(
    sga_kodak: ModuleType, trials: Trials, tmp_path: Path
) -> None:
    for name in ("sga_kodak.csv", "sga_kodak.json"):
        (tmp_path / name).write_bytes((trials.after("sga_kodak") / name).read_bytes())
    arguments = [
        str(tmp_path) if argument == str(trials.tables) else argument for argument in trials.arguments("sga_kodak")
    ]
    table, provenance = tmp_path / "sga_kodak.csv", tmp_path / "sga_kodak.json"
    measured = table.read_bytes()
    assert list(read_table(table, ENCODED)["image"]) == ["kodim01", "kodim02"]
    write_table(table, read_table(table, ENCODED).iloc[:1], ENCODED)
    assert sga_kodak.main(arguments) == 0
    assert table.read_bytes().splitlines()[:2] == measured.splitlines()[:2]  # seconds included: not measured again
    assert len(read_table(table, ENCODED)) == 2
    known = json.loads(provenance.read_text(encoding="utf-8"))
    (weights,) = known["weights_sha256"]
    provenance.write_text(json.dumps(known | {"weights_sha256": {weights: "0"}}), encoding="utf-8")
    assert sga_kodak.main(arguments) == 0
    assert table.read_bytes().splitlines()[1] != measured.splitlines()[1]  # its seconds
    assert json.loads(provenance.read_text(encoding="utf-8"))["weights_sha256"] == known["weights_sha256"]


@pytest.mark.skipif(not (TABLES / "sga_kodak.csv").exists(), reason="iterative encoding was not measured")
def test_readme_shows_what_iterative_encoding_saves(sga_kodak: ModuleType) -> None:
    summary = sga_kodak.means(read_table(TABLES / "sga_kodak.csv", ENCODED))
    assert sga_kodak.markdown(summary) in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not (TABLES / "sga_kodak.csv").exists(), reason="iterative encoding was not measured")
def test_annealing_lowers_the_cost_of_every_crop_under_every_model(sga_kodak: ModuleType) -> None:
    table = read_table(TABLES / "sga_kodak.csv", ENCODED)
    assert set(table["method"]) == {"sga"}
    assert set(table["steps"]) == {500}
    assert set(table.groupby(["model", "lmbda"]).size()) == {6}
    assert set(table["num_pixels"]) == {256**2}
    assert (table["saving_percent"] > 0).all()
    cost = table["bits"] / table["num_pixels"] + table["lmbda"] * table["mse"]
    before = table["encoder_bits"] / table["num_pixels"] + table["lmbda"] * table["encoder_mse"]
    assert ((1 - cost / before) * 100 - table["saving_percent"]).abs().max() < 1e-9
    assert table["saving_percent"].mean() >= 3
    said = (
        f"L falls on each of the {len(table)} crops, by {table['saving_percent'].min():.1f} % at least and "
        f"{table['saving_percent'].mean():.1f} % on average"
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert said in readme
    rates = read_table(TABLES / "sga_bd_rate.csv", BD)
    for row in rates.loc[rates["averaging"] == "mean quality", :].to_dict("records"):
        assert f"`{row['anchor']}` [{-row['bd_rate_high_percent']:.1f}, {-row['bd_rate_low_percent']:.1f}]" in readme


@pytest.fixture(scope="module")
def published_bd_rate() -> ModuleType:
    return script("published_bd_rate")


def test_published_bd_rates_are_those_of_the_table(trials: Trials) -> None:
    tables = trials.after("published_bd_rate")
    keys = ["codec", "anchor", "dataset", "measure", "interpolation", "averaging"]
    ours, committed = (read_table(folder / "published_bd_rate.csv", BD).set_index(keys) for folder in (tables, TABLES))
    for column in ("bd_rate_percent", "bd_quality", "quality_low", "quality_high"):
        assert ours[column].to_numpy() == pytest.approx(committed.loc[ours.index, column].to_numpy(), rel=1e-9)
    assert len(ours) == len(committed)
    for name in ("published_baselines_bd_rate.csv", "published_savings.csv"):
        again, before = pd.read_csv(tables / name), pd.read_csv(TABLES / name)
        assert list(again["codec"]) == list(before["codec"])
        column = "bd_rate_percent" if "bd_rate" in name else "savings_percent"
        assert again[column].to_numpy() == pytest.approx(before[column].to_numpy(), rel=1e-9, abs=1e-9)


def test_published_bd_rates_agree_with_bjontegaard_and_have_the_papers_order() -> None:
    table = read_table(TABLES / "published_bd_rate.csv", BD)
    rows = table.loc[(table["measure"] == "psnr") & (table["averaging"] == "mean quality"), :]
    bpg = codec_grids(read_table(shipped_anchor_path("bpg"), EVALUATION))["bpg"].averaged_curve("mean quality")
    rates: dict[str, list[float]] = {}
    for row in rows.loc[rows["anchor"] == "bpg", :].to_dict("records"):
        test = published_curve(f"paper/{row['codec']}", "kodak")
        expected = bjontegaard.bd_rate(
            bpg.rate_bpp, bpg.quality, test.rate_bpp, test.quality,
            method=row["interpolation"], require_matching_points=False, min_overlap=0,
        )  # fmt: skip
        assert row["bd_rate_percent"] == pytest.approx(expected, abs=1e-5)
        assert row["bd_rate_low_percent"] < row["bd_rate_percent"] < row["bd_rate_high_percent"]
        rates.setdefault(row["codec"], []).append(row["bd_rate_percent"])
    assert max(rates["2-layer_syn+SGA"]) < 0 < min(rates["2-layer_syn"])
    assert max(rates["2-layer_syn"]) < min(rates["JPEG-like_syn"])
    assert all(max(of_codec) - min(of_codec) < 0.3 for of_codec in rates.values())


def test_jpeg_here_is_the_published_jpeg_of_kodak() -> None:
    folder = data_folder()
    if folder is None or not (folder / "kodak").is_dir():
        pytest.skip("needs the Kodak photographs of the data folder")
    measured = script("published_jpeg").compare(sorted((folder / "kodak").glob("*.png")), [10, 50]).set_index("way")
    committed = pd.read_csv(TABLES / "published_jpeg.csv").set_index(["way", "quality"])
    published = published_curve("compressai/jpeg", "kodak")
    for way, row in measured.iterrows():
        assert row["psnr_db"] == pytest.approx(committed.loc[(way, row["quality"]), "psnr_db"], abs=0.02)
        if way == "jpeg-default":
            assert np.abs(published.rate_bpp / row["rate_bpp"] - 1).min() < 1e-3  # the same files
            assert abs(row["difference_db"]) < 0.14
        if way == "jpeg-default, chroma by DCT":
            assert abs(row["difference_db"]) < 0.02


def test_readme_shows_the_published_bd_rates(published_bd_rate: ModuleType) -> None:
    assert published_bd_rate.summary(TABLES) in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def latent_curvature() -> ModuleType:
    return script("latent_curvature")


@pytest.mark.skipif(not trained_models(), reason="no trained model is there")
def test_curvature_experiment_runs_on_two_pairs_and_goes_on_where_it_was(
    latent_curvature: ModuleType, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = trials.after("latent_curvature") / "latent_curvature.csv"
    measured = read_table(table, CURVATURE)
    assert len(measured) == 4
    assert measured["model"].iloc[-1] == latent_curvature.RANDOM
    assert (measured.loc[measured["model"] == latent_curvature.RANDOM, "eta"] > 1.01).all()
    assert latent_curvature.RANDOM in latent_curvature.markdown(trials.tables)
    monkeypatch.setattr(latent_curvature, "measure_pairs", None)  # nothing is measured again
    monkeypatch.setattr(latent_curvature, "geometry_of", None)
    assert latent_curvature.main(trials.arguments("latent_curvature")) == 0
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


def test_gaps_along_training_take_snapshots_of_one_run_alone(
    trials: Trials, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    along = script("gaps_along_training")
    tables = trials.after("gaps_along_training")
    rows = read_table(tables / "gaps_along_training.csv", GAPS_ALONG_TRAINING)
    assert list(rows["step"]) == [0, 2]
    assert set(rows["model"]) == {"two-layer-lite"}
    parts = rows["neg_log_gamma_upper_bpp"] + rows["approximation_gap_bpp"] + rows["amortization_gap_lower_bpp"]
    assert (parts - rows["encoder_bpp"]).abs().max() < 1e-9
    snapshots = sorted((trials.folder / "training").glob("*-step-*.safetensors"))
    shipped = str(model_directory() / "two-layer-lite-0.01.safetensors")
    common = ["--smoke", "--images", str(trials.folder / "images"), "--tables"]
    for chosen, line in (
        ([str(snapshots[0]), shipped], "must be of one run, got 2 runs"),
        ([str(snapshots[0])] * 2, "must be of a step of its own, got 0"),
    ):
        assert along.main([*common, str(tmp_path), "--snapshots", *chosen]) == 2
        assert line in capsys.readouterr().err
    assert along.main([*common, str(tmp_path)]) == 2
    assert "`--train PHOTOS` or `--snapshots FILE ...`" in capsys.readouterr().err
    record = tables / "gaps_along_training.json"
    written = record.read_text()
    record.write_text(written.replace(json.loads(written)["snapshots_sha256"]["2"], "0"))
    assert along.main([*common, str(tables), "--snapshots", *map(str, snapshots)]) == 2
    assert "holds other snapshots" in capsys.readouterr().err
    record.write_text(written)


@pytest.mark.skipif(not (TABLES / "gaps_along_training_means.csv").exists(), reason="no training was decomposed")
def test_readme_shows_which_gap_training_closes() -> None:
    along = script("gaps_along_training")
    summary = along.summarize(read_table(TABLES / "gaps_along_training.csv", GAPS_ALONG_TRAINING))
    assert along.markdown(summary) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_shows_what_the_tables_say_of_the_claims() -> None:
    claims = script("claims")
    found = claims.findings(TABLES)
    assert len(found) == 7
    table = pd.DataFrame([vars(finding) for finding in found])
    assert claims.markdown(table) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_claims_are_judged_by_their_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = script("claims")
    labels = {"reference": "a-lite", "reference_macs_per_pixel": 1.0, "variant_macs_per_pixel": 1.0, "lmbdas": 3}
    labels |= {"images": 24, "quality_low": 28.0, "quality_high": 35.0}

    def write(ablation: str, part: str, variant: str, low: float, high: float) -> None:
        row = labels | {"ablation": ablation, "part": part, "variant": variant}
        row |= {"bd_rate_percent": (low + high) / 2, "bd_rate_low_percent": low, "bd_rate_high_percent": high}
        write_table(tmp_path / "ablations.csv", pd.DataFrame([row]), ABLATIONS)

    for low, high, verdict in ((-12.0, -9.0, True), (-3.0, 1.0, False), (2.0, 5.0, False)):
        write("two layers for one", "synthesis", "two-layer-lite", low, high)
        assert claims.two_layers(tmp_path)[0] is verdict
    write_table(tmp_path / "complexity.csv", pd.read_csv(TABLES / "complexity.csv"), COMPLEXITY)
    for low, high, alike, verdict in ((8.0, 13.0, 4.0, True), (20.0, 30.0, 4.0, False), (8.0, 13.0, 1.0, False)):
        monkeypatch.setattr(claims, "trained_alike", lambda *_, percent=alike: percent)
        write("cheap hyper synthesis", "hyper_synthesis", "jpeg-like-hyper-lite", low, high)
        holds, here = claims.hyper_synthesis(tmp_path)
        assert holds is verdict
        assert "15.18 to 1.80 thousand MAC per pixel" in here
    with pytest.raises(claims.OutOfReachError, match="jpeg-like-lite and two-layer-lite are not both trained yet"):
        claims.two_layers(tmp_path)
    common = {"ablation": "scaled-down baseline", "part": "synthesis", "reference": "two-layer-lite", "images": 24}
    common |= {"variant": "cenic-lite", "reference_lagrangian_bpp": 1.0, "variant_lagrangian_bpp": 1.0}
    rows = [
        common | {"lmbda": lmbda, "change_percent": low + 1, "change_low_percent": low, "change_high_percent": low + 2}
        for lmbda, low in ((0.0025, -5.0), (0.04, 3.0))
    ]
    write_table(tmp_path / "ablations_lagrangian.csv", pd.DataFrame(rows), ABLATIONS_LAGRANGIAN)
    for alike, verdict in ((-1.0, False), (3.0, True)):
        monkeypatch.setattr(claims, "trained_alike", lambda *_, percent=alike: percent)
        holds, here = claims.scaled_down(tmp_path)
        assert holds is verdict
    assert "L -4.0 % [-5.0, -3.0] at lmbda 0.0025, L +4.0 % [+3.0, +5.0] at lmbda 0.04" in here
    assert "elic-xs-lite" in here


def test_models_trained_alike_must_have_had_as_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = script("claims")
    monkeypatch.setattr(claims, "TRAINED_ALIKE", tmp_path / "alike")
    monkeypatch.setattr(claims, "model_directory", lambda: tmp_path)
    for variant in "bc":
        (tmp_path / "alike" / variant).mkdir(parents=True)
    logs = {"alike/b/a": (2.0, 10), "alike/c/a": (1.0, 10), "b": (2.1, 10), "c": (2.1, 20)}
    for name, (cost, steps) in logs.items():
        rows = [
            dict.fromkeys(LOG_COLUMNS, 0.0) | {"step": step, "validation_lagrangian_bpp": bpp}
            for step, bpp in ((5, 9.0), (steps, cost))
        ]
        pd.DataFrame(rows).to_csv(tmp_path / f"{name}-0.01.csv", index=False)
    assert claims.trained_alike("a", "b", 0.01) == pytest.approx(5.0)
    with pytest.raises(ValueError, match="must have had as many steps"):
        claims.trained_alike("a", "c", 0.01)
    with pytest.raises(claims.OutOfReachError, match="no c was trained as b at lmbda"):
        claims.trained_alike("c", "b", 0.01)


def test_ablations_are_differences_of_the_measured_costs(tmp_path: Path) -> None:
    ablations = script("ablations")
    random = np.random.default_rng(0)
    rows = [
        {"codec": codec, "setting": lmbda, "dataset": "kodak", "image": f"kodim{image:02d}", "num_pixels": 1000,
         "bits": factor * (500 + 100 * image) * lmbda**0.5, "rate_kind": "estimated", "mse": 1 / lmbda,
         "psnr_db": 10 * np.log10(255**2 * lmbda), "ms_ssim": 0.9, "lpips": random.random(), "encoder": "own",
         "encoder_steps": 0}
        for codec, factor in (("jpeg-like-lite", 1.0), ("two-layer-lite", 0.9), ("cnn-analysis-96-lite", 0.99))
        for lmbda in (0.01, 0.02, 0.04)
        for image in (1, 2, 3)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    pair = ablations.PAIRS[0]
    row, changes = ablations._compare(table, pair, "jpeg-like-lite", "two-layer-lite", 50)
    assert row["bd_rate_percent"] == pytest.approx(-10)
    assert row["bd_rate_low_percent"] == pytest.approx(-10)
    assert [change["lmbda"] for change in changes] == [0.01, 0.02, 0.04]
    rates = [(500 + 100 * image) * 0.1 / 1000 for image in (1, 2, 3)]
    expected = [100 * ((0.9 * rate + 1) / (rate + 1) - 1) for rate in rates]
    assert changes[0]["change_percent"] == pytest.approx(np.mean(expected))
    assert changes[0]["change_low_percent"] < changes[0]["change_percent"] < changes[0]["change_high_percent"]
    assert ablations._is_variant("cnn-analysis-96-lite", ("cnn-analysis",), "-lite")
    assert not ablations._is_variant("cnn-analysis-96-lite", ("cnn-analysis",), "")
    assert not ablations._is_variant("jpeg-like-hyper-lite", ("jpeg-like",), "-lite")
    one, (change,) = ablations._compare(
        table.loc[table["setting"] == 0.01], pair, "jpeg-like-lite", "two-layer-lite", 50
    )
    assert not one
    assert change["lmbda"] == 0.01
