"""Draw a results file: the ratios of each group as bars, what is aimed at as lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gpucnn.bench.rows import OWN_CHOICE
from gpucnn.plots import style
from profiling.results import Results

from .groups import GROUPS, Group

ROW_INCHES = 0.34
COLOURS = (style.BLUE, "#7fb2d3")  # OpenBLAS's own choice of its core, and the other one
TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50)


def write(results: Results, path: Path) -> list[Path]:
    """Save the chart beside the results file; nothing where there is no ratio."""
    figure = chart(results)
    if figure is None:
        return []
    file = path.with_name(f"{path.stem}-ratios.png")
    figure.savefig(file, metadata={"Software": None})
    return [file]


def chart(results: Results) -> Figure | None:
    """Bars from 1 to the mean of each group, one a core; a line where the goal is."""
    groups = [group for group in GROUPS if group.ratios(results.rows, OWN_CHOICE)]
    if not groups:
        return None
    cores = list(results.meta["cores"])
    figure = style.canvas(None, 8.2, ROW_INCHES * len(groups) + 1.3)
    style.title(figure, "gpucnn's time over PyTorch's on the CPU: left of 1 it is faster")
    axes = figure.subplots()
    style.clean(axes)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=style.FAINT)
    axes.set_xscale("log")
    drawn = [_bars(axes, place, group, results, cores) for place, group in enumerate(groups)]
    axes.axvline(1, color=style.INK, linewidth=1)
    axes.set_yticks(range(len(groups)), [group.name for group in groups], fontsize=style.SMALL)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    _ratio_axis(axes, [value for values in drawn for value in values])
    _legend(axes, results, cores)
    return figure


def _bars(
    axes: Axes, place: int, group: Group, results: Results, cores: Sequence[str]
) -> list[float]:
    """Draw one group; return every number that is in the picture."""
    height = 0.8 / len(cores)
    numbers = []
    for number, core in enumerate(cores):
        mean = group.mean(results.rows, core)
        if mean is None:
            continue
        y = place + (number - (len(cores) - 1) / 2) * height
        axes.barh(y, mean - 1, left=1, height=0.9 * height, color=COLOURS[number])
        axes.annotate(
            f"{mean:.2f}", (1, y), (4, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize=style.SMALL, color=style.INK,
        )  # fmt: skip
        numbers.append(mean)
        goal = group.goals.get(core)
        if goal is not None:
            axes.vlines(goal, y - height / 2, y + height / 2, color=style.RED, linewidth=1.6)
            numbers.append(goal)
    return numbers


def _ratio_axis(axes: Axes, numbers: Sequence[float]) -> None:
    low, high = min(*numbers, 0.9) / 1.1, max(*numbers, 1.1) * 1.1
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in TICKS if low < tick < high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(axes: Axes, results: Results, cores: Sequence[str]) -> None:
    meta = results.meta
    texts = [
        (f"OpenBLAS's core by its own choice ({meta['cores'][core]})" if core == OWN_CHOICE
         else f"its {core} core", colour)
        for core, colour in zip(cores, COLOURS, strict=False)
    ]  # fmt: skip
    text = f"{meta['cpu']}, {meta['threads']} threads"
    for place, (said, colour) in enumerate([*texts, ("goal", style.RED), (text, style.MUTED)]):
        axes.annotate(
            said, (0, 0), (0, -22 - 11 * place), xycoords="axes fraction",
            textcoords="offset points", fontsize=style.SMALL, color=colour, va="top",
        )  # fmt: skip
