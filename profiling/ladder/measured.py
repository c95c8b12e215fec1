"""What benchmarks on a GPU have found of the rungs, from the results files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from profiling.gpu.report import geometry
from profiling.results import Results, Row

from . import LAYERS, RUNGS, Rung

FOLDER = Path(__file__).parents[1] / "results"
SET = "ladder"  # of its rows, in a results file
COMMAND = "python -m profiling.gpu ladder"
NETWORKS = ("resnet50", "vgg16")


def newest(folder: Path = FOLDER) -> Results | None:
    """Return the newest GPU's results, those with rows of the ladder first; None without any."""
    found = [Results(path) for path in sorted(folder.glob("*.json"))]
    of_gpus = [results for results in found if "gpu" in results.meta]

    def age(results: Results) -> tuple[bool, str]:
        return any(row["set"] == SET for row in results.rows), results.meta["date"]

    return max(of_gpus, key=age, default=None)


def rung_of(row: Row) -> Rung | None:
    """Return the rung that a forward convolution ran on, by its kernels' names."""
    kernels = (row["algorithm"] or "").split(" + ")
    for rung in reversed(RUNGS):  # winograd4 runs the implicit GEMM, too
        if row["op"] == "conv_fprop" and any(re.match(rung.symbol, name) for name in kernels):
            return rung
    return None


def rows_of_ladder(rows: Iterable[Row]) -> list[Row]:
    """Return the ladder's rows as the rungs stand, layer by layer."""
    order = {
        f"{layer} {rung.name}": place
        for place, (layer, rung) in enumerate(itertools.product(LAYERS, RUNGS))
    }
    mine = [row for row in rows if row["set"] == SET and not row.get("error")]
    return sorted(mine, key=lambda row: order[row["layer"]])


def table(results: Results) -> list[str]:
    """Return the ladder's rows as a Markdown table, or where there are none what others tell."""
    rows = rows_of_ladder(results.rows)
    return ladder_table(rows) if rows else others_table(results.rows)


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
        lines.append(
            f"| {layer} | {name} | {row['dtype']} | {_rate(row)} | {gain} | {_peer(row)} |"
        )
        before = row
    return lines


def others_table(rows: Sequence[Row]) -> list[str]:
    """What the rows of whole networks say of the rungs."""
    found = [(rung, row) for row in rows if not row.get("error") and (rung := rung_of(row))]
    found = [each for each in found if each[1]["set"] in NETWORKS]
    lines = [
        "| rung | | layer | us | TFLOP/s | of the floor | x PyTorch |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for rung, row in sorted(found, key=lambda each: (each[0].number, each[1]["tflops"])):
        layer = f"{row['set']} {row['layer']}, {geometry(row)}"
        lines.append(f"| {rung.name} | {row['dtype']} | {layer} | {_rate(row)} | {_peer(row)} |")
    return lines


def _rate(row: Row) -> str:
    share = f"{row['floor_us'] / row['ours_us']:.0%}" if row.get("floor_us") else ""
    return f"{row['ours_us']:,.1f} | {row['tflops']:.1f} | {share}"


def _peer(row: Row) -> str:
    return f"{row['speedup']:.2f}" if row.get("speedup") else ""
