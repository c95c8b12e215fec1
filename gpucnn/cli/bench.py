"""``gpucnn bench``: how fast this machine's CPU runs gpucnn, beside PyTorch where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import console, details, table

if TYPE_CHECKING:
    from ..bench.rows import Row


def bench(
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="All layers and networks, three times over, with both cores of OpenBLAS and beside"
            " JAX, too: a quarter of an hour.",
        ),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Threads of each library.", show_default="one a core"
        ),
    ] = None,
) -> None:
    """Measure layers and networks on this machine's CPU, beside PyTorch if it is installed.

    Each library runs in a process of its own, in turn with the other; what
    other programs disturb is measured again. A ratio is gpucnn's time over
    PyTorch's, in its better layout.
    """
    from rich.console import Group
    from rich.live import Live

    from ..bench.runs import Benchmark, Plan, usable_cores

    plan = (Plan.full if full else Plan.quick)(threads or usable_cores())
    rows: dict[int, Row] = {}

    def show(row: Row) -> None:
        rows[id(row)] = row
        live.update(Group(_table(list(rows.values()), plan.peers), f"measured {row['layer']}"))

    with Live(console=console, transient=True) as live:
        benchmark = Benchmark(plan, changed=show)
        benchmark.run()
    console.print(_table(list(rows.values()), plan.peers))
    console.print(details(_details(benchmark.meta, list(rows.values()))))


def _table(rows: list[Row], peers: Any) -> Any:
    """Return the rows as a table, with the columns of the peers that are there."""
    from ..bench.cases import geometry

    columns = ["gpucnn ms", "error"]
    columns += ["PyTorch ms", "error", "ratio"] if "torch" in peers else []
    columns += ["JAX ms"] if "jax" in peers else []
    several = len({row["core"] for row in rows}) > 1
    names = ["layer", "operation", "shape", *(["BLAS core"] if several else [])]
    made = table(*names, *columns, numbers=len(columns))
    for row in rows:
        cells = [row["layer"], row["op"], geometry(row["shape"])]
        cells += [row["core"]] if several else []
        if row.get("error"):
            made.add_row(*cells, row["error"], style="red")
            continue
        doubt = " ?" if row["contended"] else ""
        cells += [_ms(row["ours_us"]) + doubt, _number(row["err_ours"], ".0e")]
        if "torch" in peers:
            ratio = 1 / row["speedup"] if row["speedup"] else None
            cells += [_ms(row["peer_us"]), _number(row["err_peer"], ".0e")]
            cells += [_number(ratio, ".2f")]
        if "jax" in peers:
            cells += [_ms(row["second_us"])]
        made.add_row(*cells)
    return made


def _details(meta: dict[str, Any], rows: list[Row]) -> dict[str, str]:
    from statistics import geometric_mean

    cores = ", ".join(f"{setting}: {core}" for setting, core in meta["cores"].items() if core)
    numpy = [f"NumPy {meta['numpy']}", meta["blas"], f"its core by {cores}" if cores else None]
    found = {"threads": str(meta["threads"]), "gpucnn": ", ".join(filter(None, numpy))}
    if meta.get("torch"):
        found["PyTorch"] = f"{meta['torch']}, {meta['torch_capability']}, in its better layout"
    if meta.get("jax"):
        found["JAX"] = meta["jax"]
    ratios: dict[str, list[float]] = {}
    for row in rows:
        if row.get("speedup"):
            ratios.setdefault(row["set"], []).append(1 / row["speedup"])
    means = [f"{name} {geometric_mean(values):.2f}" for name, values in ratios.items()]
    if means:
        found["ratio"] = ", ".join(means)
    disturbed = sum(bool(row.get("contended")) for row in rows)
    if disturbed:
        found["disturbed"] = f"{disturbed} rows, marked ?: other programs kept the cores busy"
    if not meta["load_known"]:
        found["disturbed"] = "unknown: this system does not tell how busy other programs are"
    for name in ("torch", "jax"):
        if meta.get(f"{name}_error"):
            found[name] = meta[f"{name}_error"]
    if meta["left_out_cases"]:
        found["left out"] = f"{meta['left_out_cases']} cases, for want of time"
    return found


def _ms(microseconds: float | None) -> str:
    return _number(microseconds and microseconds / 1e3, ".3f")


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
