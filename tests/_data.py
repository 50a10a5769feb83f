"""Where the data folder with photographs and published tables lies, for tests that compare with them."""

import os
from pathlib import Path


def data_folder() -> Path | None:
    """The folder that RDGAP_DATA names, else `../shared/data` beside the repository, else None."""
    named = os.environ.get("RDGAP_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None
