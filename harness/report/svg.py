"""Matplotlib figures as SVG that follows the page: its text colour, its font, its reader."""

import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK = "#010203"  # stands for the text colour until the SVG is written
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: selectable, searchable, in the page's font
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "svg.hashsalt": "llmatrix",  # the same figure gives the same bytes
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 10,
    "ytick.labelsize": 11,
    "xtick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "hatch.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
}
_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_NAMESPACE = ' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_PAPER = ' style="background:#fff;color:#1f2328;font-family:system-ui,sans-serif"'


@dataclass(frozen=True, slots=True)
class Plot:
    """One figure with the words that replace it for those who cannot see it."""

    slug: str  # names its file and prefixes its element ids
    title: str
    caption: str
    inline: str  # an <svg> element for HTML, in currentColor, free of addresses

    @property
    def file(self) -> str:
        """The same figure as a document of its own, on paper: it cannot know what is behind it."""
        head, rest = self.inline.split(">", 1)
        return f"{head}{_NAMESPACE}{_PAPER}>{rest}"


@contextmanager
def style() -> Iterator[None]:
    """Context in which figures of the report are made."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's font may have it
        yield


def plot(figure: Figure, *, slug: str, title: str, caption: str) -> Plot:
    """The figure as SVG; to be called within `style()`."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", slug)
    buffer = StringIO()
    figure.savefig(buffer, format="svg", metadata=_METADATA)
    text = buffer.getvalue()
    view = re.search(r'viewBox="([^"]+)"', text)
    body = text[text.index(">", text.index("<svg")) + 1 :]
    head = (
        f'<svg viewBox="{view.group(1) if view else ""}" role="img"'
        f' aria-labelledby="{slug}-title {slug}-desc">'
        f'<title id="{slug}-title">{escape(title)}</title>'
        f'<desc id="{slug}-desc">{escape(caption)}</desc>'
    )
    return Plot(slug, title, caption, head + _tidy(body, slug))


def _tidy(body: str, slug: str) -> str:
    """Ink in currentColor, ids unique to the page, no font of this machine, no idle spaces.

    Only what stands in tags is touched: the words and numbers of a figure are its message.
    """
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r"<[^>]+>", lambda tag: _tidy_tag(tag[0], used, slug), body)
    return re.sub(r">\s+<", "><", body).strip()


def _tidy_tag(tag: str, used: Collection[str], slug: str) -> str:
    tag = tag.replace(INK, "currentColor")
    tag = re.sub(r' id="([^"]+)"', lambda m: f' id="{slug}-{m[1]}"' if m[1] in used else "", tag)
    tag = re.sub(r'(href="#|url\(#)', rf"\1{slug}-", tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r' transform="rotate\(-?0 [^"]*"', "", tag)
    return re.sub(r"(\d+\.\d\d)\d+", r"\1", tag)
