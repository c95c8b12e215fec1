"""The part of a report on whole steps: what was aimed at, and a table for each kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from profiling.results import Row

from .cases import DEPENDENT, MOST_MICROSECONDS, TRAINING

KINDS = {
    TRAINING: "Training steps",
    "inference": "Answers",
    "cold_start": "Cold start",
    "time_to_accuracy": "Time to an accuracy",
}
PEERS = (
    "torch", "torch graph", "torch.compile", "torch.compile graph", "jax", "gpucnn", DEPENDENT,
)  # fmt: skip
PROTOCOL = (
    "gpucnn's step is recorded and replayed. It is set against PyTorch eager, the same captured by"
    " hand in one CUDA graph, torch.compile with max-autotune and graphs of its own, the same"
    " captured by hand, JAX's jit, gpucnn's own step that is not recorded, and the recorded one by"
    " dependent launches (docs/steps.md). Same weights, same"
    " batches of random numbers on the device, SGD with momentum (PyTorch's fused), channels last,"
    " float32 without TF32; in bfloat16 PyTorch has autocast over float32 weights (for answers"
    " weights of 16 bits), gpucnn float32 masters. Sides take turns in one process, events around"
    " some tens of steps, medians; against JAX a host clock. A row whose first six results differ"
    " by more than rounding has failed. Memory is what a library's allocator holds of the device to"
    " make a step, without CUDA's context; of a cold start it is all that the process has there."
)


def is_step(row: Row) -> bool:
    return row["op"] in KINDS


def markdown(rows: Sequence[Row], meta: dict[str, Any]) -> list[str]:
    """Return the lines of the part, or none where nothing was measured."""
    rows = [row for row in rows if is_step(row)]
    left = [*meta.get("left_out_steps", ()), *meta.get("left_out_jax", ())]
    if not rows and not left:
        return []
    lines = ["## Whole steps", "", PROTOCOL, "", *goals(rows)]
    for kind, title in KINDS.items():
        members = [row for row in rows if row["op"] == kind and row.get("speedup")]
        if members:
            lines += [f"### {title}", "", *TABLES.get(kind, _steps)(members), ""]
    listed = launches(rows)
    if listed:
        lines += ["### What a recorded step launches", "", *listed, ""]
    if left:
        lines += ["### Left out for want of time", "", *(f"- {name}" for name in left), ""]
    return lines


def goals(rows: Iterable[Row]) -> list[str]:
    """Return a table of the rows where something is aimed at."""
    aimed = [row for row in rows if row.get("goal") and row.get("speedup")]
    if not aimed:
        return []
    lines = ["| what | x peer | aimed at | |", "|---|---:|---:|---|"]
    for row in aimed:
        verdict = "failed" if row.get("error") else _verdict(row["speedup"] >= row["goal"])
        lines.append(f"| {title(row)} | {row['speedup']:.2f} | {row['goal']:g} | {verdict} |")
    for row in aimed:
        most = MOST_MICROSECONDS.get(row["set"])
        if row["op"] == TRAINING and row["against"] == "torch" and most:
            verdict = _verdict(row["ours_us"] <= most)
            what = f"{row['set']} N{row['shape']['batch']} {row['dtype']}: us a step"
            lines.append(f"| {what} | {row['ours_us']:.1f} | {most:g} | {verdict} |")
    return [*lines, ""]


def _verdict(reached: bool) -> str:
    return "reached" if reached else "missed"


def title(row: Row) -> str:
    """
    >>> title({"op": "training_step", "set": "lenet5", "layer": "", "shape": {"batch": 512},
    ...     "dtype": "float32", "against": "torch"})
    'training_step lenet5 N512 float32 against torch'
    """
    words = row["op"], row["set"], row["layer"], f"N{row['shape']['batch']}", row["dtype"]
    return f"{' '.join(filter(None, words))} against {row['against']}"


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Return rows by network, dtype, batch, and peer."""
    return sorted(
        rows,
        key=lambda row: (
            row["set"], row["dtype"] != "float32", row["shape"]["batch"],
            PEERS.index(row["against"]),
        ),
    )  # fmt: skip


def _steps(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| network | N | dtype | against | us | ± | peer's us | ± | x peer | images/s | peer's |"
        " MB | peer's | s to be ready | peer's | first results |",
        "|---|---:|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in in_order(rows):
        cells = (
            row["set"], row["shape"]["batch"], row["dtype"], row["against"],
            f"{row['ours_us']:.1f}" + (" (not recorded)" if row.get("not_recorded") else ""),
            f"{row['ours_iqr_us']:.1f}", f"{row['peer_us']:.1f}", f"{row['peer_iqr_us']:.1f}",
            f"{row['speedup']:.2f}", _thousands(row.get("images_per_second")),
            _thousands(row.get("peer_images_per_second")), _megabytes(row.get("memory_bytes")),
            _megabytes(row.get("peer_memory_bytes")), _seconds(row.get("setup_seconds")),
            _seconds(row.get("peer_setup_seconds")), row.get("error") or f"{row['err_ours']:.0e}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def launches(rows: Iterable[Row]) -> list[str]:
    """Return a table of what each case's recording launches, to see what there is to remove."""
    cases: dict[str, Row] = {}
    for row in in_order(row for row in rows if row.get("kernels")):
        cases.setdefault(title(row).partition(" against")[0], row)
    if not cases:
        return []
    lines = ["| what | nodes | kernels | others | kernels by name |", "|---|---:|---:|---:|---|"]
    for name, row in cases.items():
        nodes, own = row.get("nodes"), sum(row["kernels"].values())
        counts = sorted(row["kernels"].items(), key=lambda item: -item[1])
        names = ", ".join(f"{count} {kernel}" for kernel, count in counts)
        others = "" if nodes is None else nodes - own
        lines.append(f"| {name} | {nodes or ''} | {own} | {others} | {names} |")
    return [*lines, "", "Others are copies, and arithmetic of the array module."]


def _starts(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| against | caches | s | import, build, first step | peer's s | import, build, first step"
        " | x peer | MB | peer's |",
        "|---|---|---:|---|---:|---|---:|---:|---:|",
    ]
    for row in rows:
        parts = {
            side: ", ".join(f"{seconds:.2f}" for seconds in parts.values())
            for side, parts in row["seconds"].items()
        }
        cells = (
            row["against"], row["layer"], f"{row['ours_us'] / 1e6:.2f}", parts["gpucnn"],
            f"{row['peer_us'] / 1e6:.2f}", parts[row["against"]], f"{row['speedup']:.2f}",
            _megabytes(row.get("memory_bytes")), _megabytes(row.get("peer_memory_bytes")),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _trainings(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| network | data | N | accuracy | s | ± | epochs | peer's s | ± | epochs | x peer |",
        "|---|---|---:|---:|---:|---:|---|---:|---:|---|---:|",
    ]
    for row in rows:
        epochs = {
            side: ", ".join(str(run["epochs"]) for run in runs)
            for side, runs in row["runs"].items()
        }
        cells = (
            row["layer"], row["set"], row["shape"]["batch"], f"{row['accuracy']:.0%}",
            f"{row['ours_us'] / 1e6:.3f}", f"{row['ours_iqr_us'] / 1e6:.3f}", epochs["gpucnn"],
            f"{row['peer_us'] / 1e6:.3f}", f"{row['peer_iqr_us'] / 1e6:.3f}", epochs["torch"],
            f"{row['speedup']:.2f}" + (f"; {row['error']}" if row.get("error") else ""),
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


TABLES = {"cold_start": _starts, "time_to_accuracy": _trainings}


def _thousands(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _megabytes(value: float | None) -> str:
    return "" if value is None else f"{value / 1e6:,.0f}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
