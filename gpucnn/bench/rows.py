"""Rows of results, as profiling/results.py has them: what the runs found out about a case.

A row's own numbers are the medians of its runs, which it keeps. ``speedup`` is the peer's time over
ours; ``ratio``, which the runs have, is ours over the peer's.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from .cases import CONVOLUTIONS, Case
from .protocol import Outcome

Row = dict[str, Any]

OWN_CHOICE = "own choice"  # of OpenBLAS's core, by the machine
PEER, SECOND_PEER = "torch", "jax"


def new_row(case: Case, core: str) -> Row:
    """Return a row that nothing is known of yet; ``core`` is OpenBLAS's."""
    return {
        "op": case.op, "set": case.group, "layer": case.layer, "shape": case.shape,
        "dtype": "float32", "math": "strict", "layout": "NHWC", "core": core, "runs": [],
    }  # fmt: skip


def key(row: Row) -> tuple[Any, ...]:
    """Return what tells a row from all others."""
    return row["op"], row["set"], row["layer"], row["shape"]["batch"], row["core"]


def add_run(row: Row, case: Case, outcome: Outcome) -> None:
    """Add what one run found, and bring the row's own numbers up to date."""
    core = row["core"]
    if outcome.failures.get(PEER):
        row["peer_error"] = outcome.failures[PEER]
    if not outcome.measured(core):
        if not row["runs"]:
            row["error"] = outcome.failures[core]
        return
    run = dict(zip(("ours_us", "ours_iqr_us"), _micro(*outcome.spread(core)), strict=True))
    if outcome.measured(PEER):
        run |= dict(zip(("peer_us", "peer_iqr_us"), _micro(*outcome.spread(PEER)), strict=True))
        run |= {"peer": f"{PEER} {outcome.best(PEER)}", "ratio": outcome.ratio(core, PEER)}
        run["err_peer"] = outcome.error(PEER)
    if outcome.measured(SECOND_PEER):
        run["second_us"], _ = _micro(*outcome.spread(SECOND_PEER))
        run |= {"second": SECOND_PEER, "second_ratio": outcome.ratio(core, SECOND_PEER)}
        run["err_second"] = outcome.error(SECOND_PEER)
    run["err_ours"] = outcome.error(core)
    run |= {"discarded": outcome.discarded, "contended": outcome.contended}
    row["runs"].append(run)
    _summarise(row, case)


def _micro(*seconds: float) -> list[float]:
    return [1e6 * value for value in seconds]


def _summarise(row: Row, case: Case) -> None:
    runs = row["runs"]

    def middle(name: str) -> float | None:
        values = [run[name] for run in runs if run.get(name) is not None]
        return median(values) if values else None

    for name in ("ours_us", "ours_iqr_us", "peer_us", "peer_iqr_us", "second_us", "second_ratio"):
        row[name] = middle(name)
    for name in ("err_ours", "err_peer", "err_second"):  # the first run's: the same in each
        row[name] = next((run[name] for run in runs if run.get(name) is not None), None)
    ratio = middle("ratio")
    row["speedup"] = 1 / ratio if ratio else None
    for name in ("peer", "second"):
        row[name] = next((run[name] for run in reversed(runs) if name in run), None)
    if case.op in CONVOLUTIONS:
        row["tflops"] = 2 * case.conv.multiply_adds / row["ours_us"] / 1e6
    for name in ("discarded", "contended"):
        row[name] = sum(run[name] for run in runs)
