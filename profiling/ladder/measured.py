"""What benchmarks on a GPU have found of the rungs, from the results files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from profiling.gpu.report import geometry
from profiling.results import Results, Row

from . import RUNGS, Rung
from .rows import SET, ladder_table, peer, rate, rows_of_ladder

FOLDER = Path(__file__).parents[1] / "results"
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


def table(results: Results) -> list[str]:
    """Return the ladder's rows as a Markdown table, or where there are none what others tell."""
    rows = rows_of_ladder(results.rows)
    return ladder_table(rows) if rows else others_table(results.rows)


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
        lines.append(f"| {rung.name} | {row['dtype']} | {layer} | {rate(row)} | {peer(row)} |")
    return lines
