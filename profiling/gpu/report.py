"""A results file as Markdown: one line a shape, a geometric mean a group, what is below 0.9x.

Everything comes from the file, so the same file gives the same pages on any machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from profiling.ladder.rows import SET as LADDER
from profiling.ladder.rows import ladder_table, rows_of_ladder
from profiling.results import Results, Row, geomean

from .cases import conv_kind
from .parts import TOOLS
from .steps import page as steps

SLOW = 0.9  # a speedup below it is listed
CONVOLUTIONS = (
    "conv_fprop", "conv_dgrad", "conv_wgrad", "conv_dgrad_relu", "conv_dgrad_add",
    "conv_bias_relu", "conv_bias_relu_pool", "conv_bias_relu_pool_backward",
    "norm_relu6_conv", "norm_relu6_then_conv", "norm_relu6_conv_wgrad",
)  # fmt: skip
KINDS = ("plain", "stem", "depthwise", "grouped", "1-D", "3-D", "fully connected")
OPERATIONS = (
    *CONVOLUTIONS, "max_pool", "max_pool_backward", "average_pool", "average_pool_backward",
    "change_layout", "batch_norm_train", "batch_norm_backward", "batch_norm_relu_train",
    "batch_norm_relu_backward", "batch_norm_add_relu_train", "batch_norm_add_relu_backward",
    "softmax_cross_entropy", "activation_forward", "activation_backward", "sgd_update",
    "adam_update",
)  # fmt: skip
NUMBER_FORMATS = (
    "float32 strict", "float32 tf32", "float32 fp32x3", "bfloat16 mixed", "float16 mixed",
    "float64 strict",
)  # fmt: skip
Group = tuple[str, str, str, str]  # number format, kind ("" but for convolutions), op, against


def group_of(row: Row) -> Group:
    """Return the group that a row's speedup is averaged in."""
    kind = conv_kind(row["shape"]) if row["op"] in CONVOLUTIONS else ""
    return f"{row['dtype']} {row['math']}", kind, row["op"], row["against"]


def groups(rows: Iterable[Row]) -> dict[Group, list[Row]]:
    """Return the rows by group, in a fixed order: strict float32 first, convolutions first.

    Within a group they stand by set, layout and batch, the heaviest first, as they were measured.
    """

    def place(group: Group) -> tuple[int, int, int, str]:
        number, kind, op, against = group
        kinds = KINDS.index(kind) if kind else len(KINDS)
        return NUMBER_FORMATS.index(number), kinds, OPERATIONS.index(op), against

    found: dict[Group, list[Row]] = {}
    rows = (row for row in rows if row["set"] != LADDER)
    for row in sorted(rows, key=lambda r: (r["set"], r["layout"], r["shape"].get("batch", 0))):
        found.setdefault(group_of(row), []).append(row)
    return {group: found[group] for group in sorted(found, key=place)}


def name_of(group: Group, number: bool = True) -> str:
    """
    >>> name_of(("float32 strict", "depthwise", "conv_fprop", "torch"))
    'conv_fprop depthwise, float32 strict'
    >>> name_of(("float32 strict", "", "max_pool", "torch.compile"), number=False)
    'max_pool against torch.compile'
    """
    number_format, kind, op, against = group
    name = f"{op} {kind}".strip()
    name += f", {number_format}" if number else ""
    return name if against == "torch" else f"{name} against {against}"


def operations(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of single operations: whole steps have a part of their own."""
    return [row for row in rows if not steps.is_step(row)]


def counted(rows: Iterable[Row]) -> list[Row]:
    """Return the operations that enter a mean: without an error, with a peer's time, no rungs."""
    timed = (row for row in operations(rows) if not row.get("error") and row.get("speedup"))
    return [row for row in timed if row["set"] != LADDER]


def title(row: Row) -> str:
    """Return a row's name, ``conv_fprop resnet50 conv1 N32 float32 strict NHWC``."""
    batch = row["shape"].get("batch")
    words = (
        row["op"], row["set"], row["layer"], f"N{batch}" if batch else "", row["dtype"],
        row["math"], row["layout"],
    )  # fmt: skip
    return " ".join(filter(None, words))


def geometry(row: Row) -> str:
    """Return a row's shape in the field's short form.

    >>> geometry({"op": "conv_fprop", "shape": {"batch": 2, "channels": 3, "filters": 64,
    ...     "input": [9, 8], "kernel": [7, 7], "strides": [2, 2], "groups": 1}})
    'N2 C3 9x8, K64 7x7/2'
    >>> geometry({"op": "batch_norm_train", "shape": {"batch": 2, "channels": 3, "length": 64}})
    'N2 C3 64'
    """
    s = row["shape"]
    if "classes" in s:
        return f"{s['rows']} x {s['classes']}"
    if "parameters" in s:
        return f"{s['parameters']:,} in {s['tensors']}"
    if "size" in s:
        return f"{s['size']:,} {s['kind']}"
    if "length" in s:
        return f"N{s['batch']} C{s['channels']} {s['length']}"
    window = _times(s["kernel"] if "kernel" in s else s["window"])
    stride = s["strides"] if len(set(s["strides"])) > 1 else s["strides"][:1]
    over = "" if set(s["strides"]) == {1} else f"/{_times(stride)}"
    filters = f"K{s['filters']} " if "filters" in s else ""
    grouped = f" g{s['groups']}" if s.get("groups", 1) > 1 else ""
    return f"N{s['batch']} C{s['channels']} {_times(s['input'])}, {filters}{window}{over}{grouped}"


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def of_floor(row: Row) -> float | None:
    """Return the floor over the time: 1 is as fast as the GPU can be."""
    return row["floor_us"] / row["ours_us"] if row.get("floor_us") and row.get("ours_us") else None


# ---- the page -----------------------------------------------------------------------------------


def write(path: Path) -> list[Path]:
    """Write the Markdown beside a results file, and the plots if Matplotlib is there."""
    results = Results(path)
    page = path.with_suffix(".md")
    pictures: list[Path] = []
    try:
        from . import figures

        pictures = figures.write(results, path)
    except ModuleNotFoundError:
        pass
    page.write_text(markdown(results, [picture.name for picture in pictures]), "utf-8")
    return [path, page, *pictures]


def markdown(results: Results, pictures: Sequence[str] = ()) -> str:
    """Return the whole page."""
    meta, rows = results.meta, results.rows
    lines = [f"# {meta['gpu']}, {meta['date']}, commit {meta['commit']}", ""]
    lines += [_machine(meta), ""]
    lines += [f"![]({name})\n" for name in pictures]
    lines += _correctness(meta)
    lines += steps.markdown(rows, meta)
    lines += ["## Against the peer, by group", "", PROTOCOL, "", *_means(rows), ""]
    slow = [row for row in counted(rows) if row["speedup"] < SLOW]
    lines += [f"## Below {SLOW}x: {len(slow)} of {len(counted(rows))}", ""]
    if slow:
        slow.sort(key=lambda row: row["speedup"])
        lines += ["| x peer | row | peer |", "|---:|---|---|"]
        lines += [f"| {row['speedup']:.2f} | {title(row)} | {row['peer']} |" for row in slow]
        lines.append("")
    failed = [row for row in rows if row.get("error")]
    if failed:
        lines += ["## Failed", "", *(f"- {title(row)}: {row['error']}" for row in failed), ""]
    if meta.get("left_out") or meta.get("left_out_rows"):
        lines += ["## Left out", ""]
        lines += [f"- {part}: {why}" for part, why in meta.get("left_out", {}).items()]
        if meta.get("left_out_rows"):
            lines += [f"- {meta['left_out_rows']} rows of the benchmark set, for want of time"]
        lines.append("")
    rungs = rows_of_ladder(rows)
    if rungs:
        lines += ["## The ladder of docs/ladder.md", "", *ladder_table(rungs), ""]
    for group, members in groups(operations(rows)).items():
        lines += [f"## {name_of(group)}", "", *_table(members), ""]
    return "\n".join(lines)


PROTOCOL = (
    "Same dtype and arithmetic, random data; each side in a CUDA graph over buffers larger than"
    " the L2 cache, replayed in turn; medians. PyTorch at its best: `cudnn.benchmark` over all"
    " algorithms, both layouts, and cuDNN's own fusions where it has them. The floor is the time"
    " that arithmetic or memory traffic alone would take; a Winograd kernel may beat it. An error"
    " is the largest deviation from float64, over the number itself or the root mean square."
)


def _machine(meta: dict[str, Any]) -> str:
    names = ("driver", "cuda", "cupy", "torch", "cudnn", "numpy", "python")
    text = ", ".join(f"{name} {meta[name]}" for name in names if meta.get(name))
    measured = meta.get("measured")
    if not measured:
        return f"{text}."
    rates = ", ".join(f"{measured[n]:.0f} ({n})" for n in NUMBER_FORMATS if n in measured)
    return (
        f"{text}.\n\nMeasured: copies at {measured['bandwidth']:.0f} GB/s, the library's matrix"
        f" products at {rates} TFLOP/s."
    )


def _correctness(meta: dict[str, Any]) -> list[str]:
    lines = []
    tests = meta.get("tests")
    if tests and "with" in tests:
        verdict = "passed" if tests["passed"] else "FAILED"
        lines.append(f"- Tests: {tests['with']}: {verdict}.")
    elif tests:
        counts = ", ".join(f"{tests[n]} {n}" for n in ("passed", "failed", "errors", "skipped"))
        lines.append(f"- Tests marked gpu: {counts}.")
        lines += [f"  - {line}" for line in (*tests["stopped"], *tests["failures"])]
    if meta.get("ptx"):
        outcomes = meta["ptx"]
        passed = sum(outcome == "passed" for outcome in outcomes.values())
        lines.append(f"- kernels/ptx.cuh: {passed} of {len(outcomes)} cases passed.")
        lines += [f"  - {case}: {said}" for case, said in outcomes.items() if said != "passed"]
    for tool in TOOLS:
        if found := meta.get("sanitizer", {}).get(tool):
            lines.append(f"- {tool}: {found['said']} ({found['ran']}).")
    return ["## Correctness", "", *lines, ""] if lines else []


def _means(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| group | rows | x peer, geomean | lowest | highest | below 0.9x | of floor, median |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for group, members in groups(counted(rows)).items():
        speedups = [row["speedup"] for row in members]
        floors = [share for row in members if (share := of_floor(row))]
        slow = sum(speedup < SLOW for speedup in speedups)
        lines.append(
            f"| {name_of(group)} | {len(members)} | {geomean(speedups):.2f} |"
            f" {min(speedups):.2f} | {max(speedups):.2f} | {slow or ''} |"
            f" {f'{median(floors):.0%}' if floors else ''} |"
        )
    return lines


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| set | layer | shape | layout | us | ± | TFLOP/s | GB/s | of floor | x peer | peer |"
        " error | peer's |",
        "|---|---|---|---|---:|---:|---:|---:|---:|---:|---|---:|---:|",
    ]
    for row in rows:
        us = _number(row["ours_us"], ".1f")
        notes = "" if row.get("timing", "graph") == "graph" else f" ({row['timing']})"
        share = of_floor(row)
        lines.append(
            f"| {row['set']} | {row['layer']} | {geometry(row)} | {row['layout']} | {us}{notes} |"
            f" {_number(row['ours_iqr_us'], '.1f')} | {_number(row['tflops'] or None, '.1f')} |"
            f" {_number(row['gbps'], '.0f')} | {_number(share, '.0%')} |"
            f" {_number(row['speedup'], '.2f')} | {_peer(row)} |"
            f" {_number(row['err_ours'], '.0e')} | {_number(row['err_peer'], '.0e')} |"
        )
    return lines


def _peer(row: Row) -> str:
    """Return what is of interest in the peer's name: its layout or its function."""
    name = (row["peer"] or "").removeprefix("torch").strip()
    return f"{name} ({row['peer_timing']})" if row.get("peer_timing") == "loop" else name


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def means_as_text(rows: Sequence[Row]) -> str:
    """Return the geometric means as lines for a terminal."""
    lines = [
        f"  {geomean([row['speedup'] for row in members]):6.2f}x of {len(members):3d}"
        f"  {name_of(group)}"
        for group, members in groups(counted(rows)).items()
    ]
    return "\n".join(["x peer, geometric means:", *lines])
