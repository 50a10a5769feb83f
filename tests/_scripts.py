"""The scripts of `analysis/`, which no package holds, as modules; and trials of them, each run once for all tests."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent


def script(name: str) -> ModuleType:
    """Load `analysis/<name>.py`, whose folder is on the path of the tests."""
    return importlib.import_module(name)


def every_experiment() -> ModuleType:
    """Load `analysis/__main__.py`."""
    return _load("every_experiment", ROOT / "analysis" / "__main__.py")


def figure(name: str) -> ModuleType:
    """Load `figures/<name>.py`; some have the name of an experiment."""
    return _load(f"figure_{name}", ROOT / "figures" / f"{name}.py")


def _load(name: str, path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Trials:
    """Trials of the experiments, as `make smoke` runs them, in one folder; each runs when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tables = folder, folder / "tables"
        self.main = every_experiment()
        self.main.write_smoke_images(folder / "images")
        self._done: set[str] = set()

    def arguments(self, name: str) -> list[str]:
        """Return the arguments of a trial."""
        return self.main.smoke_arguments(name, self.folder)

    def after(self, name: str) -> Path:
        """Return the folder of the tables, once the trial of an experiment, and those it reads from, are there."""
        reads = {"ablations": ("complexity", "kodak", "sga_kodak"), "claims": ("ablations", "latent_curvature")}
        for needed in (*reads.get(name, ()), name):
            if needed in reads and needed != name:
                self.after(needed)
            elif needed not in self._done:
                assert script(needed).main(self.arguments(needed)) == 0
                self._done.add(needed)
        return self.tables
