"""What shapes and colours mean in the Pareto plot, and the legend that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whisper_factory.sweeps.front import Ranked, axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHAPES = "osD^vPX<>ph*"
COLOURS = ("#1b7fc4", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31")  # after Okabe and Ito
INK, PAPER = "#1f2328", "#fffffe"  # a page replaces both by its own
LINE, SIZE = 0.21, 9.0  # inches of a line of the key; points of a marker
LETTER, EDGE = 0.082, 0.1  # inches, generously: a letter of the legend and the key; above and below the legend
CROSS: dict[str, Any] = {"marker": "x", "color": INK, "markersize": 0.7 * SIZE, "linestyle": "none"}


@dataclass(frozen=True)
class Style:
    """Which shape and colour each composition has, and what they stand for."""

    shapes: dict[str, str]  # a value of the first axis -> a marker
    colours: dict[str, str]  # a value of the second; of the first, where there is no second
    of_entry: dict[int, tuple[str, str]]  # an entry's number -> marker, colour

    @classmethod
    def of(cls, entries: Sequence[Ranked]) -> Style:
        """The first two axes that vary over the sweep."""
        varying = list(axes([entry.row for entry in entries]).values())
        first = varying[0] if varying else [""] * len(entries)
        second = varying[1] if len(varying) > 1 else first
        shapes = {value: SHAPES[i % len(SHAPES)] for i, value in enumerate(dict.fromkeys(sorted(first)))}
        colours = {value: COLOURS[i % len(COLOURS)] for i, value in enumerate(dict.fromkeys(sorted(second)))}
        chosen = {entry.number: (shapes[one], colours[two])
                  for entry, one, two in zip(entries, first, second, strict=True)}
        return cls(shapes, colours, chosen)


def marker(shape: str, colour: str, filled: bool) -> dict[str, Any]:
    """How matplotlib is to draw a point."""
    return {"marker": shape, "markersize": SIZE, "markeredgewidth": 1.6, "linestyle": "none",
            "markeredgecolor": INK if filled else colour, "markerfacecolor": colour if filled else PAPER}


def draw(figure: Figure, drawn: Sequence[Ranked], style: Style) -> None:
    """At the figure's top: what varies, and below it how it did."""
    taken = EDGE
    for handles in _handles(drawn, style):
        top, columns = 1 - taken / figure.get_figheight(), _columns(handles, figure.get_figwidth())
        figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, top), ncols=columns, fontsize=9,
                      handlelength=1.6, handletextpad=0.5, columnspacing=1.2, borderaxespad=0, borderpad=0)
        taken += LINE * -(-len(handles) // columns)


def height(drawn: Sequence[Ranked], style: Style, width: float) -> float:
    """Inches, in a figure of so many inches."""
    return 2 * EDGE + sum(LINE * -(-len(handles) // _columns(handles, width)) for handles in _handles(drawn, style))


def _columns(handles: Sequence[Any], width: float) -> int:
    """How many entries of a legend fit side by side."""
    longest = max(len(handle.get_label()) for handle in handles)
    return max(1, min(len(handles), int(width / (LETTER * longest + 0.42))))


def _handles(drawn: Sequence[Ranked], style: Style) -> list[list[Any]]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    redundant = list(style.shapes) == list(style.colours)
    varying: list[Any] = []
    if redundant and len(style.shapes) > 1:
        varying = [Line2D([], [], label=value, **marker(shape, style.colours[value], True))
                   for value, shape in style.shapes.items()]
    elif not redundant:
        varying = [Line2D([], [], label=value, **marker(shape, INK, False)) for value, shape in style.shapes.items()]
        varying += [Patch(label=value, color=colour) for value, colour in style.colours.items()]
    states = [Line2D([], [], label="on the front", **marker("o", INK, True)),
              Line2D([], [], label="not on it", **marker("o", INK, False)),
              Line2D([], [], label="front of the two", color=INK, linewidth=1.2)]
    if any(entry.row["status"] == "missed" for entry in drawn):
        states.append(Line2D([], [], label="missed a gate", **CROSS))
    return [handles for handles in (varying, states) if handles]
