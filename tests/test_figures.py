"""Every figure is drawn from the committed tables, without torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FIGURES = sorted((ROOT / "figures").glob("*.py"))


@pytest.mark.skipif(not (ROOT / "analysis/tables/kodak_learned.csv").exists(), reason="Kodak was not measured")
@pytest.mark.parametrize("script", FIGURES, ids=lambda path: path.stem)
def test_the_figure_is_drawn_without_torch(script: Path, tmp_path: Path) -> None:
    tables = re.findall(r'"tables" / "([^"]+)"', script.read_text(encoding="utf-8"))
    missing = [name for name in tables if not (ROOT / "analysis" / "tables" / name).exists()]
    if missing:
        pytest.skip(f"not measured yet: {', '.join(missing)}")
    code = (
        "import runpy, sys; from pathlib import Path; names = runpy.run_path(sys.argv[1]); "
        "names['main'].__globals__['OUT'] = Path(sys.argv[2]); names['main'](); print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(script), str(tmp_path)],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["False"]
    assert {path.name for path in tmp_path.glob(f"{script.stem}.*")} == {f"{script.stem}.png", f"{script.stem}.pdf"}
