"""The Pareto plot: word error rate against latency and against memory, by matplotlib (the extra `sweep`).

Every composition is a numbered point. Its shape is its value on the first axis of the sweep, its colour the value on
the second; what is on the front is filled, what missed a gate has a cross on it. The line in a panel joins
those on the front that no other beats in that panel's two numbers. The same rows give the same bytes with the same
version of matplotlib: no clock, no random ids, no settings of the user.
"""

from __future__ import annotations

import importlib
import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from whisper_factory.sweeps import legend, placing
from whisper_factory.sweeps.front import Numeric, Ranked, dominates, number
from whisper_factory.sweeps.legend import CROSS, INK, LETTER, LINE, PAPER, SIZE, Style, marker
from whisper_factory.sweeps.placing import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REMEDY = "pip install 'whisper-factory[sweep]'"
PANELS: tuple[tuple[Numeric, str], ...] = (("latency_ms_p50", "median latency, ms a clip"),
                                           ("peak_mb", "peak memory, MB"))
WIDTH, HEIGHT = 5.6, 4.3  # inches of a panel
SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "whisper_factory", "svg.fonttype": "none", "text.parse_math": False, "font.size": 10,
    "font.family": ["DejaVu Sans", "sans-serif"], "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "figure.facecolor": "none", "axes.facecolor": "none", "legend.frameon": False, "savefig.dpi": 144,
}
NO_DATES = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Drawing:
    """The whole plot as PNG and SVG, and its parts as SVG elements that a page can lay out and colour itself."""

    png: bytes
    svg: bytes
    parts: tuple[str, ...]  # the two panels, then what shapes and colours mean


def installed() -> bool:
    """Whether matplotlib is here, and whole: a sweep that took hours is not to end on half of it."""
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError:
        return False
    return True


def draw(entries: Sequence[Ranked]) -> Drawing:
    """Draw the compositions that were measured in all three objectives: at least one. Needs matplotlib."""
    drawn = [entry for entry in entries if entry.drawable]
    with _settings():
        style = Style.of(entries)
        whole = _whole(drawn, style)
        parts = [_alone(drawn, style, panel) for panel in range(len(PANELS))] + [_legend_alone(drawn, style)]
        png = io.BytesIO()
        whole.savefig(png, format="png", facecolor=PAPER, metadata={"Software": None})
        return Drawing(png.getvalue(), _svg(whole, PAPER), tuple(_element(part, i) for i, part in enumerate(parts)))


@contextmanager
def _settings() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def _whole(drawn: Sequence[Ranked], style: Style) -> Figure:
    from matplotlib.figure import Figure

    longest = max(len(entry.label) for entry in drawn)
    columns = max(1, min(4, len(drawn), int(2 * WIDTH / (LETTER * longest + 0.35))))
    lines = -(-len(drawn) // columns)
    key = 0.35 + LINE * lines
    height = key + HEIGHT + legend.height(drawn, style, 2 * WIDTH)
    figure = Figure(figsize=(2 * WIDTH, height))
    for panel in range(len(PANELS)):
        left = (0.62 + panel * WIDTH) / (2 * WIDTH)
        box = (left, (key + 0.5) / height, (WIDTH - 0.85) / (2 * WIDTH), (HEIGHT - 0.6) / height)
        _panel(figure.add_axes(box), drawn, style, panel)
    legend.draw(figure, drawn, style)
    for index, entry in enumerate(drawn):
        column, line = divmod(index, lines)
        left, middle = 0.45 + column * (2 * WIDTH - 0.35) / columns, (key - 0.28 - LINE * line) / height
        how: dict[str, Any] = {"fontsize": 9, "fontweight": "bold" if entry.on_front else "normal", "va": "center"}
        figure.text(left / (2 * WIDTH), middle, str(entry.number), ha="right", **how)
        figure.text((left + 0.12) / (2 * WIDTH), middle, entry.label, **how)
    return figure


def _alone(drawn: Sequence[Ranked], style: Style, panel: int) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.9 * WIDTH, HEIGHT))
    _panel(figure.add_axes((0.12, 0.13, 0.86, 0.84)), drawn, style, panel)
    return figure


def _legend_alone(drawn: Sequence[Ranked], style: Style) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.9 * WIDTH, legend.height(drawn, style, 0.9 * WIDTH)))
    legend.draw(figure, drawn, style)
    return figure


def _panel(axes: Axes, drawn: Sequence[Ranked], style: Style, panel: int) -> None:
    """One panel: WER in percent against a number, the points, their numbers, and the front's steps."""
    column, title = PANELS[panel]
    points = [(_known(entry, column), _known(entry, "wer")) for entry in drawn]
    _scale(axes.xaxis, [x for x, _ in points])
    _scale(axes.yaxis, [y for _, y in points])
    axes.set_xlabel(title)
    axes.set_ylabel("word error rate, %")
    axes.grid(color=INK, alpha=0.13, linewidth=0.8)
    steps = _steps([point for entry, point in zip(drawn, points, strict=True) if entry.on_front])
    axes.step([x for x, _ in steps], [y for _, y in steps], where="post", color=INK, linewidth=1.2, zorder=2)
    for entry, (x, y) in reversed(list(zip(drawn, points, strict=True))):  # the front on top
        shape, colour = style.of_entry[entry.number]
        axes.plot([x], [y], **marker(shape, colour, entry.on_front), zorder=4 if entry.on_front else 3)
        if entry.row["status"] == "missed":
            axes.plot([x], [y], **CROSS, zorder=3)
    _number(axes, drawn, points, steps)


def _number(axes: Any, drawn: Sequence[Ranked], points: Sequence[Point], steps: Sequence[Point]) -> None:
    """Each point's number beside it, where it covers neither a point nor a line nor another number."""
    scale = 72 / axes.figure.dpi  # pixels -> 1/72 inch
    frame = axes.get_window_extent().extents * scale
    corners = [corner for one, other in pairwise(steps) for corner in (one, (other[0], one[1]))] + [*steps[-1:]]
    turns = [tuple(corner) for corner in axes.transData.transform(corners) * scale] if corners else []
    places = [tuple(place) for place in axes.transData.transform(points) * scale]
    offsets = placing.beside(places, [str(entry.number) for entry in drawn], SIZE, tuple(frame), turns)
    for entry, point, offset in zip(drawn, points, offsets, strict=True):
        far = math.hypot(*offset) > 2 * SIZE
        leader = {"arrowstyle": "-", "color": INK, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4} if far else None
        axes.annotate(str(entry.number), point, offset, textcoords="offset points", ha="center", va="center",
                      fontsize=9, zorder=5, fontweight="bold" if entry.on_front else "normal", arrowprops=leader)


def _scale(axis: Any, values: Sequence[float]) -> None:
    """Logarithmic, labelled 1-2-5, where the numbers span more than a factor of three; with room at both ends."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = min(values), max(values)
    setting = {"x": "set_xlim", "y": "set_ylim"}[axis.axis_name]
    if low > 0 and high > 3 * low:
        axis._set_axes_scale("log")
        room = (high / low) ** 0.09
        subs = (1, 1.5, 2, 3, 5, 7) if high < 8 * low else (1, 2, 3, 5, 7) if high < 30 * low else (1, 2, 5)
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
        getattr(axis.axes, setting)(low / room, high * room)
    else:
        room = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
        getattr(axis.axes, setting)(low - room, high + room)


def _steps(points: Sequence[Point]) -> list[Point]:
    """Of these, the ones that none beats in both numbers, from the left."""
    return sorted({one for one in points if not any(dominates(other, one) for other in points)})


def _svg(figure: Figure, background: str) -> bytes:
    text = io.BytesIO()
    figure.savefig(text, format="svg", facecolor=background, metadata=NO_DATES)
    return text.getvalue()


def _element(figure: Figure, index: int) -> str:
    """An <svg> for a page: ids that no other part has, a size that follows the page, the page's ink and paper."""
    text = _svg(figure, "none").decode("utf-8")
    text = re.sub(r"^.*?(?=<svg)", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="\w+?_\d+">', "<g>", text)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>part{index}-", text)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    return text.replace(INK, "currentColor").replace(PAPER, "var(--paper)").strip()


def _known(entry: Ranked, column: Numeric) -> float:
    value = number(entry.row, column)
    assert value is not None
    return value
