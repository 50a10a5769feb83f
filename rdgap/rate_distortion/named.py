"""Sources by the names that the command knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .source import DiscreteSource, Source
from .sources import Banana, Gaussian, HammingSource, Laplace, LaplaceAbsolute, Patches, Sawbridge, Sphere


def _sized(make: Callable[[int], Source], least: int) -> Callable[[str], Source]:
    def build(text: str) -> Source:
        if not text.isdecimal() or int(text) < least:
            raise ValueError(f"the number of dimensions must be at least {least}, got {text!r}.")
        return make(int(text))

    return build


_SIZED = {
    "gaussian": _sized(Gaussian.spectrum, 1),
    "laplace": _sized(Laplace, 1),
    "banana": _sized(Banana, 2),
    "sphere": _sized(Sphere, 2),
    "sawbridge": _sized(Sawbridge, 2),
    "hamming": _sized(lambda size: HammingSource([1 / size] * size, name=f"hamming-{size}"), 2),
}
_PLAIN: dict[str, Callable[[], Source]] = {
    "laplace": Laplace,
    "laplace-absolute": LaplaceAbsolute,
    "banana": Banana,
    "sawbridge": Sawbridge,
    "binary": lambda: HammingSource([0.3, 0.7], name="binary"),
}
NAMES = (*_PLAIN, *(f"{name}-N" for name in _SIZED))


def named_source(name: str, *, patch: int = 8) -> Source:
    """Return the source that the command calls `name`.

    Args:
        name: One of `NAMES` (`gaussian-32`, `banana`, ...), a CSV file of a discrete source, a folder of images, or
            `package.module:callable` for a function of yours that returns a source.
        patch: Side of the patches of a folder.

    Raises:
        ValueError: If there is none of that name.
    """
    if name in _PLAIN:
        return _PLAIN[name]()
    family, _, size = name.rpartition("-")
    if family in _SIZED:
        return _SIZED[family](size)
    path = Path(name)
    if path.is_dir():
        return Patches([path], patch)
    if path.suffix.lower() == ".csv" and path.exists():
        return DiscreteSource.read(path)
    if ":" in name:
        return _own(name)
    raise ValueError(
        f"a source must be {', '.join(NAMES)}, a folder of images, a .csv file or package.module:callable, "
        f"got {name!r}."
    )


def _own(name: str) -> Source:
    from ..zoo import imported

    found = imported("SOURCE", name)()
    if not isinstance(found, Source):
        raise ValueError(f"{name} must return a source (`rdgap.rate_distortion.Source`), got {type(found).__name__}.")
    return found
