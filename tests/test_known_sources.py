"""The table of known sources: what it claims, and that the script which makes it runs from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from tests import _scripts
from tests._scripts import Trials

ROOT = Path(__file__).parent.parent
TABLES = ROOT / "analysis" / "tables"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return _scripts.script("known_sources")


@pytest.fixture(scope="module")
def estimates() -> pd.DataFrame:
    return pd.read_csv(TABLES / "known_estimates.csv")


@pytest.fixture(scope="module")
def codecs() -> pd.DataFrame:
    return pd.read_csv(TABLES / "known_sources.csv")


def test_bounds_lie_on_their_side_and_errors_are_small(estimates: pd.DataFrame) -> None:
    answered = estimates[estimates.refused == 0]
    sampled = answered[answered.stderr_nats > 0]
    known = sampled[~sampled.source.str.startswith("patches")]
    assert (known.stderr_nats < 0.01 * known.f_nats).all()
    upper, lower = (sampled[sampled.side == side] for side in ("upper", "lower"))
    assert (upper.f_nats + 5 * upper.stderr_nats > upper.known_lower_nats).all()
    assert (lower.f_nats - 5 * lower.stderr_nats < lower.known_upper_nats).all()
    for name in ("gaussian-2", "banana"):
        both = sampled[(sampled.source == name)].set_index(["seed", "method"]).f_nats.unstack()
        assert (both["dual"] > 0.6 * both["mixture"]).all()


def test_estimates_are_at_the_truth_over_three_seeds(estimates: pd.DataFrame) -> None:
    known = estimates[(estimates.known_upper_nats - estimates.known_lower_nats < 1e-9) & (estimates.refused == 0)]
    for name in ("gaussian-2", "gaussian-32", "gaussian-256", "sphere-2", "sphere-5", "sphere-10"):
        rows = known[(known.source == name) & (known.side == "upper")]
        assert set(rows.seed) == {0, 1, 2}
        z = (rows.f_nats - rows.known_lower_nats) / rows.stderr_nats
        assert (z.abs().groupby(rows.seed).min() < 5).all(), name
        assert (z > -5).all()
    exact = known[known.method == "Blahut-Arimoto"]
    assert set(exact.source) == {"binary", "hamming-4"}
    assert ((exact.f_nats - exact.known_lower_nats).abs() < 1e-7).all()


def test_nerd_and_particles_are_refused_at_high_rates(estimates: pd.DataFrame) -> None:
    rows = estimates[(estimates.source == "gaussian-32") & estimates.method.isin(["nerd", "wgd"])]
    assert len(rows) == 6
    assert (rows.refused == 1).all()


def test_terms_add_up_to_the_cost(codecs: pd.DataFrame) -> None:
    total = codecs.neg_log_gamma_nats + codecs.inference_gap_nats
    assert (total - codecs.measured_nats).abs().max() < 1e-9
    parts = codecs.amortization_gap_nats + codecs.approximation_gap_nats
    assert (parts - codecs.inference_gap_nats).abs().max() < 1e-9
    low = codecs.irreducible_lower_nats + codecs.modeling_gap_lower_nats + codecs.inference_gap_nats
    high = codecs.irreducible_upper_nats + codecs.modeling_gap_upper_nats + codecs.inference_gap_nats
    assert (low <= codecs.measured_nats + 1e-9).all()
    assert (high >= codecs.measured_nats - 1e-9).all()


def test_no_interval_excludes_the_truth(codecs: pd.DataFrame) -> None:
    integrated = codecs[codecs.latents <= 2]
    assert len(integrated) >= 5
    off = integrated.inference_gap_nats - integrated.inference_gap_truth_nats
    assert (off.abs() < 5 * integrated.neg_log_gamma_stderr_nats + 1e-3).all()
    exact = integrated.dropna(subset=["modeling_gap_truth_nats"])
    assert {"gaussian-2", "sphere-2"} <= set(exact.source)
    slack = 5 * exact.modeling_gap_stderr_truth_nats
    assert (exact.modeling_gap_truth_nats + slack > exact.modeling_gap_lower_nats).all()
    assert (exact.modeling_gap_truth_nats - slack < exact.modeling_gap_upper_nats).all()
    for term in ("modeling", "prior", "transform"):
        assert (codecs[f"{term}_gap_lower_nats"] <= codecs[f"{term}_gap_upper_nats"]).all()


def test_patches_say_that_their_sandwich_is_vacuous(codecs: pd.DataFrame) -> None:
    patches = codecs[codecs.source.str.startswith("patches")].set_index("source")
    assert set(patches.index) == {"patches-8", "patches-16"}
    assert (patches.vacuous == (patches.irreducible_lower_nats < 0.6 * patches.irreducible_upper_nats)).all()


def test_prior_gap_vanishes_as_the_prior_is_refitted() -> None:
    refits = pd.read_csv(TABLES / "known_refits.csv")
    for _, rows in refits.groupby("source"):
        width = rows.sort_values("share_of_best_prior").fitted_width_nats.to_numpy()
        assert (width[1:] < width[:-1]).all()
        assert width[-1] < 0.02


def test_readme_shows_the_tables(script: ModuleType) -> None:
    assert script.markdown(TABLES) in (ROOT / "README.md").read_text(encoding="utf-8")
    provenance = json.loads((TABLES / "known_sources.json").read_text(encoding="utf-8"))
    assert provenance["commit"]


def test_script_goes_on_where_it_was(script: ModuleType, trials: Trials) -> None:
    def written() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in trials.tables.glob("known_*.csv")}

    trials.after("known_sources")
    before = written()
    assert set(before) == {"known_estimates.csv", "known_sources.csv", "known_refits.csv"}
    assert script.main(trials.arguments("known_sources")) == 0
    assert written() == before


def test_a_trial_run_may_not_overwrite_the_real_tables(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--smoke"]) == 2
    assert "`--smoke` needs `--tables FOLDER`" in capsys.readouterr().err
