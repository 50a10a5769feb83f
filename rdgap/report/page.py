"""A self-contained HTML page: text, tables and pictures in one file that asks for nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .._plots import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_READABLE = 0.62  # least share of a plot's full width
_STYLE = """
:root { --ink: #1d2530; --soft: #5b6675; --line: #d9dee5; --paper: #ffffff; --shade: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem clamp(1rem, 4vw, 2.5rem) 4rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.5rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0.5rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: 0.5rem 0; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; margin: 0.75rem 0; }
a { color: #1f5fa8; }
small, figcaption, .soft { color: var(--soft); font-size: 0.875rem; }
.scroll { overflow-x: auto; margin: 0.75rem 0; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.75rem 0.3rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; }
.plot img { display: block; height: auto; max-width: 100%; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
.samples figure { margin: 0; }
.samples .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0.25rem; align-items: start; }
.samples img { display: block; width: 100%; height: auto; background: var(--shade); }
h3 { font-size: 1rem; margin: 1.25rem 0 0.5rem; }
code { font-size: 0.875em; background: var(--shade); padding: 0.1em 0.3em; overflow-wrap: anywhere; }
"""


def page(title: str, lead: str, sections: Sequence[tuple[str, str]]) -> str:
    """Return the page.

    Args:
        title: Its heading, plain text.
        lead: What stands below, HTML.
        sections: Headings, plain text, each with its HTML.
    """
    links = "".join(f'<a href="#s{number}">{escape(heading)}</a>' for number, (heading, _) in enumerate(sections))
    body = "".join(
        f'<section id="s{number}"><h2>{escape(heading)}</h2>{content}</section>\n'
        for number, (heading, content) in enumerate(sections)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n{lead}\n<nav>{links}</nav>\n{body}</main>\n</body>\n</html>\n"
    )


def paragraph(text: str, *, soft: bool = False) -> str:
    """Return a paragraph of plain text."""
    return f'<p class="soft">{escape(text)}</p>' if soft else f"<p>{escape(text)}</p>"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table of plain texts, the first row its header, that scrolls where it is too wide."""
    header, *others = rows
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in others)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def plot(figure: Figure, alternative: str) -> str:
    """Return a figure that shrinks where it is too wide, as far as its texts stay readable, and scrolls from there."""
    import matplotlib as mpl

    content = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(content, format="svg", metadata={"Date": None})
    width_px = 1.5 * 96 * figure.get_size_inches()[0]
    return (
        f'<figure class="plot scroll"><img src="{_inline(content.getvalue(), "svg+xml")}" alt="{escape(alternative)}" '
        f'width="{width_px:.0f}" style="min-width: {_READABLE * width_px:.0f}px"></figure>'
    )


def pictures(of: Mapping[str, np.ndarray], caption: str) -> str:
    """Return up to two images side by side, each (height, width, 3) of uint8, without loss, named by what they show."""
    shown = "".join(
        f'<img src="{_png(pixels)}" alt="{escape(name)}" width="{pixels.shape[1]}" height="{pixels.shape[0]}">'
        for name, pixels in of.items()
    )
    return f'<figure><div class="pair">{shown}</div><figcaption>{escape(caption)}</figcaption></figure>'


def _png(pixels: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG", optimize=True)
    return _inline(content.getvalue(), "png")


def _inline(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
