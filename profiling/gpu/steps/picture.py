"""Draw whole steps: how many times faster than each peer, a line a case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gpucnn.plots import style
from profiling.results import Row

from .cases import DEPENDENT, INFERENCE, TRAINING
from .page import in_order

COLOURS = {
    "torch": style.RED, "torch graph": style.AMBER, "torch.compile": style.BLUE,
    "torch.compile graph": style.PINK, "jax": style.GREEN, "gpucnn": style.MUTED,
    DEPENDENT: style.INK,
}  # fmt: skip
NAMES = {"gpucnn": "gpucnn, not recorded", DEPENDENT: "gpucnn, dependent launches"}
LINE_INCHES = 0.21
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def shown(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that are drawn: steps and answers without an error."""
    return [
        row
        for row in rows
        if row["op"] in (TRAINING, INFERENCE) and not row.get("error") and row.get("speedup")
    ]


def steps(meta: dict[str, Any], rows: Sequence[Row]) -> Figure | None:
    """A dot for each peer, and a tick where it is aimed at; None where there are no rows."""
    cases: dict[str, list[Row]] = {}
    for row in in_order(rows):
        kind = "training" if row["op"] == TRAINING else "answers"
        name = f"{row['set']} {row['shape']['batch']}, {row['dtype']}, {kind}"
        cases.setdefault(name, []).append(row)
    if not cases:
        return None
    ordered = sorted(cases, key=lambda name: name.endswith("answers"))
    figure = style.canvas(None, 8.2, LINE_INCHES * len(ordered) + 1.5)
    style.title(figure, f"gpucnn's recorded steps, {meta['gpu'].removeprefix('NVIDIA ')}")
    axes = figure.subplots()
    style.clean(axes)
    axes.grid(axis="y", color=style.FAINT)
    axes.grid(axis="x", color=style.FAINT)
    axes.set_xscale("log")
    for y, name in enumerate(ordered):
        for row in cases[name]:
            colour = COLOURS[row["against"]]
            axes.scatter(row["speedup"], y, s=22, color=colour, zorder=3)
            if row.get("goal"):
                axes.vlines(row["goal"], y - 0.35, y + 0.35, color=colour, linewidth=1.4)
    axes.set_yticks(range(len(ordered)), ordered, fontsize=style.SMALL, color=style.INK)
    axes.set_ylim(len(ordered) - 0.4, -0.6)
    axes.axvline(1, color=style.INK, linewidth=1)
    values = [row[name] for row in rows for name in ("speedup", "goal") if row.get(name)]
    axes.set_xlim(min(*values, 0.9) / 1.2, max(*values, 1.1) * 1.2)
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.set_xlabel(
        "times faster than the peer; a tick: aimed at", fontsize=style.SMALL, color=style.MUTED
    )
    present = [peer for peer in COLOURS if any(row["against"] == peer for row in rows)]
    marks = [axes.scatter([], [], s=22, color=COLOURS[peer]) for peer in present]
    figure.legend(
        marks, [NAMES.get(peer, peer) for peer in present], loc="outside lower center",
        ncols=len(present), frameon=False, fontsize=style.SMALL,
    )  # fmt: skip
    return figure
