"""Codecs of other makes, seen by what they have, not by where they come from: nothing else needs to be installed."""

from __future__ import annotations

from ..model import Codec
from .autoencoder import AutoencoderCodec, from_autoencoder
from .compressai import CompressAICodec, from_compressai

__all__ = ["AutoencoderCodec", "CompressAICodec", "adapted", "from_autoencoder", "from_compressai"]


def adapted(model: object) -> Codec:
    """Return a codec of the protocol as it is, and a CompressAI model as one.

    Raises:
        ValueError: If it is neither; an autoencoder needs a step, which only its user can choose.
    """
    if isinstance(model, Codec) and not isinstance(model, type):
        return model
    if hasattr(model, "g_a") and hasattr(model, "g_s"):
        return from_compressai(model)
    if hasattr(model, "encode") and hasattr(model, "decode"):
        raise ValueError(
            "an autoencoder has no quantization step of its own: return `rdgap.from_autoencoder(model, step=...)`, "
            f"got {type(model).__name__} alone."
        )
    raise ValueError(
        "a codec must have `infer`, `quantize`, `log_prior` and `decode` (`rdgap.model.Codec`), or `g_a` and `g_s` as "
        f"CompressAI's models do, got {type(model).__name__}."
    )
