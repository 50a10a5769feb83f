"""Packages that are no dependencies, in the environment of their own that `make foreign` sets up."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from types import ModuleType

import pytest
import torch


def imported(module: str) -> ModuleType:
    """Import a module of such a package, or skip the tests of the file that asks for it.

    Beside a build of torch for CPUs, PyPI's torchvision lacks its operators, of which these packages use none.
    """
    package = module.split(".")[0]
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return importlib.import_module(module)
        except ModuleNotFoundError as error:
            pytest.skip(f"{package} is not in this environment ({error}); run make foreign", allow_module_level=True)
        except RuntimeError as error:
            missing = re.search(r"operator (torchvision::\w+) does not exist", str(error))
            if missing is None:
                raise
            torch.library.define(missing[1], "(Tensor anything) -> Tensor")
            for name in [name for name in sys.modules if name.split(".")[0] in ("torchvision", package)]:
                del sys.modules[name]
