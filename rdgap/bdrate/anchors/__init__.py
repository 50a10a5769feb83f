"""Anchor codecs whose measured points travel with the library; README.md tells where they come from."""

from __future__ import annotations

from pathlib import Path

SHIPPED_ANCHORS = {
    "bpg": "BPG 4:4:4 on Kodak: bpgenc 0.9.8 -f 444 -c ycbcr -b 8 -e x265 at its default -m 8, as in the literature",
    "bpg-m9": "BPG 4:4:4 on Kodak: bpgenc 0.9.8 -f 444 -c ycbcr -b 8 -e x265 -m 9, the slowest and best",
}
"""Name of each shipped anchor and what it is."""


def shipped_anchor_path(name: str) -> Path:
    """Return the evaluation table of a shipped anchor.

    Raises:
        ValueError: If there is no such anchor.
    """
    if name not in SHIPPED_ANCHORS:
        raise ValueError(f"The shipped anchors are {', '.join(SHIPPED_ANCHORS)}, got {name!r}.")
    return Path(__file__).with_name(f"{name}.csv")
