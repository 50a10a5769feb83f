"""The committed table of estimators beside truths shows what it claims; the script that measures it runs."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from tests import _scripts
from tests._scripts import Trials

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "analysis" / "tables" / "gap_validation.csv"
DIMS = (2, 16, 256, 1024)
TERMS = {
    "encoder cost",
    "best box",
    "best Gaussian",
    "-log Gamma",
    "amortization gap",
    "approximation gap",
    "inference gap",
    "modeling gap",
    "prior gap",
    "transform gap",
    "irreducible",
}
ESTIMATORS = {"AIS forward", "AIS reverse", "TI left", "TI right", "IWAE", "low-rank Gaussian", "ideal curve"}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(TABLE)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return _scripts.script("gap_validation")


def test_table_holds_every_term_and_estimator_in_every_dimension(table: pd.DataFrame) -> None:
    linear = table[table.problem == "linear"]
    assert sorted(set(linear.dim)) == list(DIMS)
    for _, rows in linear.groupby("dim"):
        assert set(rows.term) >= TERMS
        assert set(rows.estimator) >= ESTIMATORS
    assert {"encoder cost", "-log Gamma", "approximation gap"} < set(table[table.problem == "curved"].term)


def test_estimates_lie_within_five_standard_errors_of_the_truth_or_on_their_side(table: pd.DataFrame) -> None:
    z = (table.estimate_nats - table.truth_nats) / table.stderr_nats
    assert (z[table.side.isin(["none", "upper"])] > -5).all()
    assert (z[table.side.isin(["none", "lower"])] < 5).all()
    annealed = table[table.estimator.str.startswith("AIS") & (table.term == "-log Gamma")]
    assert len(annealed) == 3 * len(DIMS) + 1
    assert (z[annealed.index].abs() < 5).all()
    assert (z - table.z_score)[table.side != "exact"].abs().max() < 1e-6
    exact = table[table.side == "exact"]
    assert (exact.estimate_nats - exact.truth_nats).abs().max() < 1e-9


def test_bounds_are_tight_where_the_family_holds_the_posterior(table: pd.DataFrame) -> None:
    linear = table[table.problem == "linear"]
    for name, closeness in {"low-rank Gaussian": 1e-3, "fitted box": 1e-3, "fitted Gaussian": 1e-3}.items():
        rows = linear[linear.estimator == name]
        assert len(rows) == len(DIMS)
        assert ((rows.estimate_nats - rows.truth_nats).abs() < closeness * rows.truth_nats).all(), name


def test_standard_errors_are_small_beside_the_terms(table: pd.DataFrame) -> None:
    measured = table[table.side != "exact"]
    assert (measured.stderr_nats > 0).all()
    relative = measured.stderr_nats / measured.truth_nats.abs()
    assert (relative < 0.01).all()
    assert (relative[measured.dim < 1024] < 0.005).all()
    assert (relative - measured.relative_stderr).abs().max() < 1e-9


@pytest.mark.parametrize("column", ["estimate_nats", "truth_nats"])
@pytest.mark.parametrize("dim", DIMS)
def test_irreducible_modeling_and_inference_gap_add_up_to_the_cost(table: pd.DataFrame, dim: int, column: str) -> None:
    rows = table[(table.problem == "linear") & (table.dim == dim)].set_index("term")[column]
    for whole, parts in {
        "encoder cost": ("irreducible", "modeling gap", "inference gap"),
        "modeling gap": ("transform gap", "prior gap"),
        "inference gap": ("approximation gap", "amortization gap"),
    }.items():
        assert float(rows[list(parts)].sum()) == pytest.approx(float(rows[whole]), rel=0, abs=1e-9)
        assert (rows[list(parts)] > 0.3).all()  # no term is near zero, so that relative errors mean something


def test_provenance_lies_beside_the_table() -> None:
    provenance = json.loads(TABLE.with_suffix(".json").read_text(encoding="utf-8"))
    assert [effort["dim"] for effort in provenance["settings"]["efforts"]] == list(DIMS)
    assert provenance["commit"]


def test_script_measures_from_end_to_end(table: pd.DataFrame, trials: Trials) -> None:
    trial = pd.read_csv(trials.after("gap_validation") / "gap_validation.csv")
    assert list(trial.columns) == list(table.columns)
    assert set(trial.term) == set(table.term)
    assert set(trial.estimator) == set(table.estimator)


def test_a_trial_run_may_not_overwrite_the_real_table(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--smoke"]) == 2
    assert "`--smoke` needs `--tables FOLDER`" in capsys.readouterr().err
