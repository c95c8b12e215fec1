"""The timeline of a step: each layer forward and backward, as long as it took, on one axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import FigureBase
from matplotlib.patches import Patch

from . import style

if TYPE_CHECKING:
    from ..profiler import Pass, Profile, Row

COLOURS = {
    "convolution": style.BLUE, "dense": style.RED, "normalisation": style.PINK,
    "pooling": style.GREEN, "activation": style.AMBER, "other": style.MUTED,
}  # fmt: skip
PALE = 0.35  # how much colour a bar has beyond its floor
ROW = 0.21  # inches
HEAD = -1.1  # where the head stands, in rows
COLUMNS = 38, 78  # where the numbers end, in points right of the bars


def timeline(
    profile: Profile, *, title: str | None = None, on: FigureBase | None = None
) -> FigureBase:
    """Draw a step of a network from left to right, a line for each layer.

    A bar begins and ends when the layer did; its full colour is the floor, the least time that the
    layer's arithmetic and memory allow. A layer's time and how often its floor goes into it stand
    at the end of its line. Networks within the network are left out: their layers are there.
    """
    rows = [row for row in profile.rows if not row.is_network]
    others = [
        (name, part)
        for name, part in (("loss", profile.loss), ("optimizer", profile.optimizer))
        if part
    ]
    lines = len(rows) + len(others)
    figure = style.canvas(on, 9.0, 1.2 + ROW * lines)
    style.title(figure, title or _title(profile))
    axes = figure.subplots()
    end = profile.step_us
    unit, name = (1e3, "ms") if end >= 1e3 else (1.0, "us")
    for place, row in enumerate(rows):
        for one in row.passes:
            _bar(axes, place, one, COLOURS[row.family], unit, profile.peaks.floor_us(one.work))
    for place, (_, part) in enumerate(others, len(rows)):
        _bar(axes, place, part, style.INK, unit, 0.0)
    _frame(axes, end / unit, lines, name)
    names = ["/".join(row.path) for row in rows] + [name for name, _ in others]
    axes.set_yticks(range(lines), names, fontsize=style.SMALL, color=style.INK)
    _head(axes, rows, unit)
    _numbers(axes, profile, rows, others)
    _legend(axes, rows, lines)
    return figure


def _title(profile: Profile) -> str:
    batch = profile.rows[0].output_shape[0]
    what = "a training step" if profile.training else "an answer"
    us = profile.step_us
    step = f"{us / 1e3:,.2f} ms" if us >= 1e3 else f"{us:.0f} us"
    return f"{profile.model}: {what} of {batch} in {step}, {profile.dtype}"


def _bar(axes: Axes, place: int, one: Pass, colour: str, unit: float, floor: float) -> None:
    """Draw a time, and over it as much of the floor as fits into it."""
    start, length = one.start_us / unit, one.us / unit
    axes.barh(place, length, 0.72, start, color=_pale(colour), linewidth=0)
    axes.barh(place, min(floor / unit, length), 0.72, start, color=colour, linewidth=0)


def _pale(colour: str) -> tuple[float, ...]:
    return tuple(1 - PALE * (1 - part) for part in to_rgb(colour))


def _frame(axes: Axes, end: float, lines: int, unit: str) -> None:
    style.clean(axes)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=style.FAINT)
    axes.set_xlim(0, end)
    axes.set_ylim(lines - 0.4, -0.6)
    axes.set_xlabel(unit, fontsize=style.SMALL, color=style.MUTED)


def _head(axes: Axes, rows: list[Row], unit: float) -> None:
    """Write over the bars which are forward and which backward."""
    for name in ("forward", "backward"):
        found = [one for row in rows if (one := getattr(row, name))]
        if found:
            first = min(one.start_us for one in found)
            last = max(one.start_us + one.us for one in found)
            axes.text(
                (first + last) / 2 / unit, HEAD, name, ha="center", va="center",
                fontsize=style.SMALL, color=style.MUTED,
            )  # fmt: skip


def _numbers(axes: Axes, profile: Profile, rows: list[Row], others: list[tuple[str, Pass]]) -> None:
    """Write each line's time and its multiple of the floor to the right of the axes."""
    lines = [(row.us, profile.floor_us(row)) for row in rows]
    lines += [(part.us, 0.0) for _, part in others]
    look = {
        "xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "va": "center",
        "ha": "right", "fontsize": style.SMALL,
    }  # fmt: skip
    for column, text in zip(COLUMNS, ("us", "x floor"), strict=True):
        axes.annotate(text, (1, HEAD), (column, 0), color=style.MUTED, **look)
    for place, (us, floor) in enumerate(lines):
        texts = f"{us:,.0f}", f"{us / floor:,.1f}" if floor else ""
        for column, text in zip(COLUMNS, texts, strict=True):
            axes.annotate(text, (1, place), (column, 0), color=style.INK, **look)


def _legend(axes: Axes, rows: list[Row], lines: int) -> None:
    families = [family for family in COLOURS if any(row.family == family for row in rows)]
    patches = [Patch(color=COLOURS[family], label=family) for family in families]
    patches.append(Patch(color=_pale(style.MUTED), label="beyond the floor"))
    axes.legend(
        handles=patches, loc="lower left", bbox_to_anchor=(0, 1 + 1.2 / lines), ncols=len(patches),
        frameon=False, fontsize=style.SMALL, labelcolor=style.INK, handlelength=1.0,
        handleheight=1.0, columnspacing=1.2, borderpad=0, borderaxespad=0,
    )  # fmt: skip
