"""The ladder's rows in a results file, and their table."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from profiling.results import Row

from . import LAYERS, RUNGS

SET = "ladder"  # of these rows


def rows_of_ladder(rows: Iterable[Row]) -> list[Row]:
    """Return the ladder's rows as the rungs stand, layer by layer."""
    order = {
        f"{layer} {rung.name}": place
        for place, (layer, rung) in enumerate(itertools.product(LAYERS, RUNGS))
    }
    mine = [row for row in rows if row["set"] == SET and not row.get("error")]
    return sorted(mine, key=lambda row: order[row["layer"]])


def ladder_table(rows: Sequence[Row]) -> list[str]:
    """A line a rung: its time and rate, and how many times faster it is than the rung before."""
    lines = [
        "| layer | rung | | us | TFLOP/s | of the floor | gain | x PyTorch |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    before: Row | None = None
    for row in rows:
        layer, name = row["layer"].split()
        gain = ""
        if before is not None and before["layer"].split()[0] == layer:
            gain = f"{before['ours_us'] / row['ours_us']:.1f}"
        lines.append(f"| {layer} | {name} | {row['dtype']} | {rate(row)} | {gain} | {peer(row)} |")
        before = row
    return lines


def rate(row: Row) -> str:
    """Return the cells of its time, its TFLOP/s, and what these are of the floor's."""
    share = f"{row['floor_us'] / row['ours_us']:.0%}" if row.get("floor_us") else ""
    return f"{row['ours_us']:,.1f} | {row['tflops']:.1f} | {share}"


def peer(row: Row) -> str:
    """Return the cell of how many times faster it is than PyTorch."""
    return f"{row['speedup']:.2f}" if row.get("speedup") else ""
