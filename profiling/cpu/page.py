"""A results file as Markdown and as the README's table; everything comes from the file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpucnn.bench.cases import CONVOLUTIONS, STEPS, geometry
from gpucnn.bench.rows import OWN_CHOICE, key
from profiling.results import Results, Row, geomean

from .groups import GROUPS, ratio

BEGIN = "<!-- what follows is written by: python -m profiling.cpu report --readme -->"
END = "<!-- until here -->"
PROTOCOL = (
    "float32, random data. Each library in a process of its own, with as many threads; a sample is"
    " the median call of 45 ms, and samples of the libraries alternate. A window in which other"
    " programs had more than 4 % of the cores is measured again. PyTorch in its better layout,"
    " networks in inference also traced and frozen by TorchScript; gpucnn's are frozen, the BLAS"
    " with as many threads (`freeze(blas_threads=2)`). A ratio is gpucnn's time over PyTorch's"
    " within a window: medians over the windows of a run, then over the runs. An error is the"
    " largest deviation from float64 over the root mean square."
)
MEGABYTE = 1e6


def write(path: Path, readme: Path | None = None) -> list[Path]:
    """Write the page and the chart beside a results file, and the README's table where asked."""
    results = Results(path)
    files = [path]
    try:
        from . import chart

        files += chart.write(results, path)
    except ModuleNotFoundError:
        print("left out the chart: Matplotlib is not installed")
    pictures = files[1:]
    page = path.with_suffix(".md")
    page.write_text(markdown(results, [picture.name for picture in pictures]), "utf-8")
    files.append(page)
    if readme is not None:
        text = readme.read_text("utf-8")
        readme.write_text(with_table(text, table_for(results, files, readme.parent)), "utf-8")
        files.append(readme)
    return files


def with_table(text: str, table: str) -> str:
    """Return a text with what stands between its markers replaced.

    Raises:
        ValueError: a marker is missing.

    >>> print(with_table(f"a\\n{BEGIN}\\nold\\n{END}\\nb", "new"))  # doctest: +ELLIPSIS
    a
    <!-- ... -->
    new
    <!-- until here -->
    b
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the text must hold {BEGIN!r} and, behind it, {END!r}")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def table_for(results: Results, files: Sequence[Path], folder: Path) -> str:
    """Return the README's part: the means by group, and where the rest stands."""
    meta = results.meta
    place = {path.suffix: Path(os.path.relpath(path, folder)).as_posix() for path in files}
    lines = [f"![Ratios by group]({place['.png']})", ""] if ".png" in place else []
    lines += [
        f"gpucnn's time over PyTorch {meta['torch']}'s on {meta['cpu']}, {meta['threads']} threads,"
        f" float32; geometric means, below 1 gpucnn is faster. [All rows]({place['.md']}).",
        "",
    ]
    return "\n".join([*lines, *_means(results)])


def markdown(results: Results, pictures: Sequence[str] = ()) -> str:
    """Return the whole page."""
    meta, rows = results.meta, results.rows
    lines = [f"# {meta['cpu']}, {meta['date']}, commit {meta['commit']}", "", _machine(meta), ""]
    lines += [f"![]({name})\n" for name in pictures]
    lines += ["## gpucnn's time over PyTorch's, by group", "", PROTOCOL, "", *_means(results), ""]
    memory = [row for row in rows if "ours_peak_bytes" in row]
    if memory:
        lines += ["## Memory", "", MEMORY, "", *_memory(memory), ""]
    for title, chosen in _parts(rows):
        if not chosen:
            continue
        lines += [f"## {title}", "", *_table(meta, chosen), ""]
    lines += _notes(meta, rows)
    return "\n".join(lines)


MEMORY = (
    "The most memory of a process that runs the step a few times and does nothing else, and how"
    " much of it the step added: of a training step with its network and images, of a layer"
    " without its inputs and its result. Megabytes of 10^6 bytes."
)


def _machine(meta: dict[str, Any]) -> str:
    cores = ", ".join(f"{setting}: {core}" for setting, core in meta["cores"].items())
    said = [f"{meta['threads']} threads of {meta['cpus']} cores", f"NumPy {meta['numpy']}"]
    said += [f"{meta['blas'] or 'BLAS unknown'}, its core by {cores}"]
    if meta.get("torch"):
        said.append(f"PyTorch {meta['torch']} ({meta['torch_capability']})")
    if meta.get("jax"):
        said.append(f"JAX {meta['jax']}")
    return "; ".join([*said, f"Python {meta['python']}"]) + "."


def _means(results: Results) -> list[str]:
    """A line a group: the mean ratio with each core of OpenBLAS, beside what is aimed at."""
    cores = list(results.meta["cores"])
    heads = [f"{_setting(core)} | goal" for core in cores]
    second = any(row.get("second_ratio") for row in results.rows)
    heads += ["over JAX's"] if second else []
    columns = 1 + 2 * len(cores) + second
    lines = [f"| group | rows | {' | '.join(heads)} |", f"|---|{'---:|' * columns}"]
    for group in GROUPS:
        count = len(group.ratios(results.rows, OWN_CHOICE))
        if not count:
            continue
        cells = []
        for core in cores:
            cells += [_number(group.mean(results.rows, core)), _number(group.goals.get(core))]
        if second:
            over = [
                row["second_ratio"] for row in results.rows
                if row["core"] == OWN_CHOICE and group.holds(row) and row.get("second_ratio")
            ]  # fmt: skip
            cells.append(_number(geomean(over) if over else None))
        lines.append(f"| {group.name} | {count} | {' | '.join(cells)} |")
    return lines


def _setting(core: str) -> str:
    return "ratio" if core == OWN_CHOICE else f"with OpenBLAS's {core} core"


def _memory(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| step | gpucnn added | PyTorch added | gpucnn's most | PyTorch's most |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        name = f"{row['layer']} {row['op']}, {geometry(row['shape'])}"
        cells = [
            _number(value and value / MEGABYTE, ".1f")
            for value in (
                row.get("ours_added_bytes"), row.get("peer_added_bytes"), row["ours_peak_bytes"],
                row.get("peer_peak_bytes"),
            )
        ]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _parts(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Yield the tables of rows that were measured: convolutions by direction, the rest, steps."""
    good = [row for row in rows if not row.get("error")]
    for op in CONVOLUTIONS:
        yield op, [row for row in good if row["op"] == op]
    others = [row for row in good if row["op"] not in (*CONVOLUTIONS, *STEPS)]
    yield "Between the convolutions", others
    for op in STEPS:
        yield op.replace("_", " ").capitalize(), [row for row in good if row["op"] == op]


def _table(meta: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    cores = list(meta["cores"])
    found = {key(row): row for row in rows}
    heads = [f"{_setting(core)} | runs" for core in cores]
    lines = [
        f"| layer | shape | us | ± | GFLOP/s | {' | '.join(heads)} | PyTorch us | layout | JAX us |"
        " error | PyTorch's |",
        f"|---|---|---:|---:|---:|{'---:|' * 2 * len(cores)}---:|---|---:|---:|---:|",
    ]
    for (*name, core), row in found.items():
        if core != OWN_CHOICE:
            continue
        several = row["op"] not in (*CONVOLUTIONS, *STEPS)  # operations in one table
        cells = [row["layer"] + f" {row['op']}" * several, geometry(row["shape"])]
        cells += [_number(row["ours_us"], ".0f"), _number(row["ours_iqr_us"], ".0f")]
        cells += [_number(row["tflops"] and 1e3 * row["tflops"], ".0f")]
        for other in cores:
            cells += _ratio_cells(found.get((*name, other)))
        layout = (row["peer"] or "").removeprefix("torch ")
        cells += [_number(row["peer_us"], ".0f"), layout, _number(row.get("second_us"), ".0f")]
        cells += [_number(row["err_ours"], ".0e"), _number(row["err_peer"], ".0e")]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _ratio_cells(row: Row | None) -> list[str]:
    """Return the ratio, with a question mark where others kept the cores busy, and its range."""
    if row is None or not row["speedup"]:
        return ["", ""]
    runs = [run["ratio"] for run in row["runs"] if "ratio" in run]
    doubt = " ?" if row["contended"] else ""
    return [f"{ratio(row):.2f}{doubt}", f"{min(runs):.2f}-{max(runs):.2f}"]


def _notes(meta: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    lines = []
    doubtful = sum(bool(row.get("contended")) for row in rows)
    discarded = sum(row.get("discarded") or 0 for row in rows if row["core"] == OWN_CHOICE)
    if meta.get("load_known"):
        lines.append(f"- {discarded} windows were disturbed by other programs and repeated.")
    else:
        lines.append("- This system does not say how busy other programs kept it.")
    if doubtful:
        lines.append(f"- {doubtful} rows, marked ?, hold windows that stayed disturbed.")
    if meta.get("left_out_cases"):
        lines.append(f"- {meta['left_out_cases']} cases of the last run: no time was left.")
    lines += [f"- {name}: {text}" for name, text in _failures(rows)]
    return ["## Notes", "", *lines, ""]


def _failures(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    for row in rows:
        name = f"{row['layer']} {row['op']} N{row['shape']['batch']}, {row['core']}"
        if row.get("error"):
            yield name, row["error"]
        elif row.get("peer_error") and row["core"] == OWN_CHOICE:
            yield f"{name}, PyTorch", row["peer_error"]


def _number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)
