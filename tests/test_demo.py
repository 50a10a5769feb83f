"""The demo: what it prints of models that are not trained at every lmbda."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from rdgap import demo
from tests._recipes import tiny_codec


def test_models_without_weights_at_some_lmbda_have_a_dash_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = torch.Generator().manual_seed(0)
    photographs = {name: torch.rand(3, 96, 80, generator=generator) for name in ("a", "b")}
    lmbdas = {"everywhere": [0.01, 0.04], "elsewhere": [0.04]}
    monkeypatch.setattr(demo, "sample_photographs", lambda: photographs)
    monkeypatch.setattr(demo, "trained_models", lambda: list(lmbdas))
    monkeypatch.setattr(demo, "trained_lmbdas", lambda name: lmbdas[name])
    monkeypatch.setattr(demo, "load_codec", lambda *_, **__: tiny_codec(0))
    monkeypatch.setattr(demo, "DEFAULT_MODEL", "everywhere")
    monkeypatch.setattr(demo, "PAIR_SIZE", 64)
    monkeypatch.setattr(demo, "GAP_SIZE", 16)
    monkeypatch.setattr(demo, "decompose", partial(demo.decompose, fit_steps=5, temperatures=3))
    assert demo.main(["--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    rows = {line.split("  ")[0]: line.split() for line in printed.splitlines() if line}
    assert rows["everywhere"][1] != "-"
    assert rows["elsewhere"][1:2] == ["-"]
    assert rows["jpeg, best quality"]
    assert printed.count("eta = ") == 1  # straightness is looked at where the weights of the default lmbda are
    table = pd.read_csv(tmp_path / "rate_distortion.csv")
    assert set(table["codec"]) == {"jpeg", "everywhere", "elsewhere"}
    assert {"gaps.png", "curvature.png", "rate_distortion.png"} <= {path.name for path in tmp_path.iterdir()}
