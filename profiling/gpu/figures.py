"""Draw a results file: a roofline for each number format, the speedups of groups, the ladder."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gpucnn.plots import style
from profiling.ladder.rows import rows_of_ladder
from profiling.results import Results, Row, geomean

from .floors import Ceilings
from .report import NUMBER_FORMATS, SLOW, Group, counted, groups, name_of
from .steps import picture

OURS, PEER = style.BLUE, style.RED
ROW_INCHES = 0.21


def write(results: Results, path: Path) -> list[Path]:
    """Save the pictures beside the results file; none of what has no rows."""
    files = []
    rows = counted(results.rows)
    for name, draw, drawn in (
        ("steps", picture.steps, picture.shown(results.rows)), ("roofline", roofline, rows),
        ("ratios", ratios, rows), ("ladder", ladder, rows_of_ladder(results.rows)),
    ):  # fmt: skip
        figure = draw(results.meta, drawn)
        if figure is not None:
            files.append(path.with_name(f"{path.stem}-{name}.png"))
            figure.savefig(files[-1], metadata={"Software": None})
    return files


# ---- roofline -----------------------------------------------------------------------------------


def roofline(meta: dict[str, Any], rows: Sequence[Row]) -> Figure | None:
    """Rates over arithmetic intensity, ours and the peer's, under the GPU's two ceilings.

    Williams et al., "Roofline: an insightful visual performance model", 2009.
    """
    ceilings = Ceilings.of(meta["gpu"], meta.get("measured"))
    panels = {
        number: members
        for number in NUMBER_FORMATS
        if number in ceilings.tflops
        and (members := [row for row in rows if row["tflops"] and _number(row) == number])
    }
    if not panels or ceilings.bandwidth is None:
        return None
    columns = {1: 1, 2: 2, 4: 2}.get(len(panels), 3)
    lines = -(-len(panels) // columns)
    figure = style.canvas(None, 3.6 * columns + 0.6, 3.2 * lines + 0.6)
    style.title(figure, f"Convolutions under the roofline, {_short(meta['gpu'])}")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (number, members) in zip(grid, panels.items(), strict=False):
        _roofline_panel(axes, number, members, ceilings.tflops[number], ceilings.bandwidth)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure


def _roofline_panel(
    axes: Axes, number: str, rows: Sequence[Row], peak: float, bandwidth: float
) -> None:
    style.clean(axes)
    axes.set_xscale("log")
    axes.set_yscale("log")
    intensity = np.array([1e3 * row["tflops"] / row["gbps"] for row in rows])
    mine = np.array([row["tflops"] for row in rows])
    theirs = np.array([row["tflops"] / row["speedup"] for row in rows])
    low, high = min(intensity.min() / 2, 1.0), max(intensity.max(), 1e3 * peak / bandwidth) * 3
    ridge = 1e3 * peak / bandwidth
    axes.plot(
        [low, ridge, high], [low * bandwidth / 1e3, peak, peak], color=style.INK, linewidth=1.4
    )
    axes.annotate(
        f"{peak:.0f} TFLOP/s", (high, peak), (-2, 3), textcoords="offset points", ha="right",
        fontsize=style.SMALL, color=style.INK,
    )  # fmt: skip
    middle = (low * ridge) ** 0.5
    axes.annotate(
        f"{bandwidth / 1e3:.1f} TB/s", (middle, middle * bandwidth / 1e3), (-5, 2),
        textcoords="offset points", ha="right", fontsize=style.SMALL, color=style.INK,
    )  # fmt: skip
    axes.vlines(intensity, theirs, mine, color=style.FAINT, linewidth=1, zorder=1)
    axes.scatter(intensity, theirs, s=13, facecolors="white", edgecolors=PEER, linewidths=1)
    axes.scatter(intensity, mine, s=15, color=OURS, zorder=3)
    axes.set_xlim(low, high)
    bottom = min(mine.min(), theirs.min()) / 2
    axes.set_ylim(bottom, max(peak, mine.max()) * 3)
    axes.set_title(number, loc="left", fontsize=style.TEXT, color=style.INK)
    axes.set_xlabel("operations a byte", fontsize=style.SMALL, color=style.MUTED)
    axes.set_ylabel("TFLOP/s", fontsize=style.SMALL, color=style.MUTED)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    for place, (text, colour) in enumerate((("gpucnn", OURS), ("PyTorch", PEER))):
        axes.annotate(
            text, (1, 0), (-4, 18 - 13 * place), xycoords="axes fraction",
            textcoords="offset points", ha="right", fontsize=style.TEXT, color=colour,
        )  # fmt: skip


# ---- ratios -------------------------------------------------------------------------------------


def ratios(meta: dict[str, Any], rows: Sequence[Row]) -> Figure | None:
    """A bar a group, from 1 to its geometric mean, with a dot for each of its rows."""
    found = list(groups(rows).items())
    if not found:
        return None
    numbers = [number for number in NUMBER_FORMATS if any(g[0] == number for g, _ in found)]
    lines = len(found) + 1.6 * len(numbers)
    figure = style.canvas(None, 8.2, ROW_INCHES * lines + 1.1)
    style.title(figure, f"Times faster than PyTorch, {_short(meta['gpu'])}")
    axes = figure.subplots()
    style.clean(axes)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=style.FAINT)
    axes.set_xscale("log")
    y, places, names = 0.0, [], []
    for number in numbers:
        axes.annotate(
            number, (0, y + 0.2), (-6, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", va="center", fontsize=style.TEXT,
            fontweight="bold", color=style.INK,
        )  # fmt: skip
        y += 1.2
        for group, members in found:
            if group[0] == number:
                _bar(axes, y, group, members)
                places.append(y)
                names.append(name_of(group, number=False).replace("_", " "))
                y += 1
        y += 0.4
    axes.set_yticks(places, names, fontsize=style.SMALL, color=style.INK)
    axes.set_ylim(y - 0.2, -0.6)
    axes.axvline(1, color=style.INK, linewidth=1)
    _ratio_axis(axes, [row["speedup"] for row in rows])
    return figure


def _bar(axes: Axes, y: float, group: Group, rows: Sequence[Row]) -> None:
    speedups = [row["speedup"] for row in rows]
    mean = geomean(speedups)
    colour = OURS if mean >= 1 else PEER
    axes.barh(y, mean - 1, left=1, height=0.62, color=colour, alpha=0.85)
    dots = [style.RED if speedup < SLOW else style.INK for speedup in speedups]
    axes.scatter(speedups, [y] * len(rows), s=5, c=dots, linewidths=0, alpha=0.55, zorder=3)
    axes.annotate(
        f"{mean:.2f}x", (1, y), (6, 0), xycoords=("axes fraction", "data"),
        textcoords="offset points", va="center", fontsize=style.SMALL, color=colour,
    )  # fmt: skip
    axes.annotate(
        f"of {len(rows)}", (1, y), (42, 0), xycoords=("axes fraction", "data"),
        textcoords="offset points", va="center", fontsize=style.SMALL, color=style.MUTED,
    )  # fmt: skip


def _ratio_axis(axes: Axes, speedups: Sequence[float]) -> None:
    low, high = min(*speedups, 0.9) / 1.15, max(*speedups, 1.1) * 1.15
    axes.set_xlim(low, high)
    wanted = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
    if log10(high / low) < 1.2:
        wanted = (*wanted, 0.25, 0.35, 0.7, 1.4, 3, 4, 7)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in wanted if low < tick < high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))


# ---- ladder -------------------------------------------------------------------------------------


def ladder(meta: dict[str, Any], rows: Sequence[Row]) -> Figure | None:
    """A bar a rung, its TFLOP/s and what they are of the peak, a panel for each layer."""
    if not rows:
        return None
    peaks = Ceilings.of(meta["gpu"], meta.get("measured")).tflops
    panels: dict[str, list[Row]] = {}
    for row in rows:
        panels.setdefault(row["layer"].split()[0], []).append(row)
    figure = style.canvas(None, 8.2, ROW_INCHES * 1.3 * len(rows) + 0.7 * len(panels) + 0.5)
    style.title(figure, f"The rungs of the ladder, {_short(meta['gpu'])}")
    grid = figure.subplots(
        len(panels), 1, squeeze=False, height_ratios=[len(panel) for panel in panels.values()]
    )
    for axes, (layer, panel) in zip(grid.ravel(), panels.items(), strict=True):
        style.clean(axes)
        axes.grid(axis="y", visible=False)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_title(f"{layer}, TFLOP/s", loc="left", fontsize=style.TEXT, color=style.INK)
        for place, row in enumerate(panel):
            colour = OURS if row["dtype"] == "float32" else style.GREEN
            axes.barh(place, row["tflops"], height=0.62, color=colour)
            peak = peaks.get(_number(row))
            share = f", {row['tflops'] / peak:.0%} of {peak:.0f}" if peak else ""
            axes.annotate(
                f"{row['tflops']:.3g}{share}", (row["tflops"], place), (4, 0), va="center",
                textcoords="offset points", fontsize=style.SMALL, color=style.INK,
            )  # fmt: skip
        names = [f"{row['layer'].split()[1]}, {row['dtype']}" for row in panel]
        axes.set_yticks(range(len(panel)), names, fontsize=style.SMALL, color=style.INK)
        axes.invert_yaxis()
        rates = [row["tflops"] for row in panel]
        axes.set_xlim(min(rates) / 2, max(rates) * 6)  # room for what stands behind the bars
    return figure


def _number(row: Row) -> str:
    return f"{row['dtype']} {row['math']}"


def _short(gpu: str) -> str:
    return gpu.removeprefix("NVIDIA ")
