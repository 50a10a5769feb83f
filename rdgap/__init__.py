"""Where do the bits of a learned image codec go?

The names below are loaded when they are first used, so that `import rdgap` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .adapters import from_autoencoder as from_autoencoder
    from .adapters import from_compressai as from_compressai
    from .bdrate import RDCurve as RDCurve
    from .bdrate import bd_quality as bd_quality
    from .bdrate import bd_rate as bd_rate
    from .complexity import count as count
    from .curvature import CurveLength as CurveLength
    from .curvature import curve_length as curve_length
    from .encoding import encode_iteratively as encode_iteratively
    from .evaluation import evaluate as evaluate
    from .gaps import GapDecomposition as GapDecomposition
    from .gaps import decompose as decompose
    from .model import Codec as Codec
    from .model import from_modules as from_modules
    from .objective import cost as cost
    from .rate_distortion import blahut_arimoto as blahut_arimoto
    from .rate_distortion import named_source as named_source
    from .training import train as train
    from .zoo import load_codec as load_codec
    from .zoo import named_codec as named_codec

_HOMES = {
    "from_autoencoder": "adapters",
    "from_compressai": "adapters",
    "RDCurve": "bdrate",
    "bd_quality": "bdrate",
    "bd_rate": "bdrate",
    "count": "complexity",
    "CurveLength": "curvature",
    "curve_length": "curvature",
    "encode_iteratively": "encoding",
    "evaluate": "evaluation",
    "GapDecomposition": "gaps",
    "decompose": "gaps",
    "Codec": "model",
    "from_modules": "model",
    "cost": "objective",
    "blahut_arimoto": "rate_distortion",
    "named_source": "rate_distortion",
    "train": "training",
    "load_codec": "zoo",
    "named_codec": "zoo",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'rdgap' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
