"""The parts of docs/ladder.md that a program writes: what is counted, and what was measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from profiling.results import Results

from . import measured, rows
from .counts import COUNTED, Counts, bank_clocks, count
from .picture import svg

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "ladder.md"
PICTURE = ROOT / "docs" / "images" / "ladder.svg"
_PART = re.compile(
    r"(<!-- (\w+), written by: python -m profiling\.ladder -->\n)(.*?)(<!-- until here -->)",
    re.DOTALL,
)


def parts(page: str) -> dict[str, str]:
    """Return what stands between the marks of each part, by its name."""
    return {name: text for _, name, text, _ in _PART.findall(page)}


def with_parts(page: str, new: dict[str, str]) -> str:
    """Return the page with these parts in place of its own."""
    return _PART.sub(lambda found: found[1] + new[found[2]] + found[4], page)


def counted(counts: Sequence[Counts]) -> str:
    lines = [
        "| | rung | block | threads | registers | shared memory | at once | multiply |"
        " multiply-adds an instruction | bytes a multiply-add | ceiling, TFLOP/s | set by |",
        "|--:|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for c in counts:
        made = c.loop.multiply_adds * c.block.saved / c.loop.instructions
        lines.append(
            f"| {c.rung.number} | {c.rung.name} | {c.block.pixels} x {c.block.filters} |"
            f" {c.threads:,} | {c.registers} | {c.shared_bytes / 1024:.0f} KiB | {c.blocks} |"
            f" {c.loop.multiplying:,} of {c.loop.instructions:,} | {made:,.0f} | {c.bytes:.3g} |"
            f" {_rate(c.ceiling)} | {c.bound} |"
        )
    return "\n".join(lines) + "\n"


def _rate(tflops: float) -> str:
    return f"{tflops:,.0f}" if tflops >= 100 else f"{tflops:.1f}"


def banks() -> str:
    """The clocks of one read of shared memory, as the kernels lay it out and as it comes."""

    def rows(pitch: int, swizzled: bool) -> list[int]:
        """The first 16 bytes of 8 rows; chunk c of row r stands at c ^ swizzle(r)."""
        chunks = pitch // 16
        swizzle = [r % 8 if chunks >= 8 else r // (8 // chunks) % chunks for r in range(8)]
        return [r * pitch + swizzle[r] * swizzled * 16 for r in range(8)]

    cases = (
        ("1", "32 filters' weights, a word each", "rows of 32", "rows of 33",
         [lane * 128 for lane in range(32)], [lane * 132 for lane in range(32)], 4),
        ("6", "8 rows of 16 bytes, by `ldmatrix`", "rows of 64 bytes", "the same, swizzled",
         rows(64, False), rows(64, True), 16),
        ("7-9", "8 rows of 16 bytes, by `wgmma`", "rows of 128 bytes", "the same, swizzled by TMA",
         rows(128, False), rows(128, True), 16),
    )  # fmt: skip
    lines = [
        "| rung | a read | as it comes | clocks | as it lies | clocks |",
        "|---|---|---|--:|---|--:|",
    ]
    for rung, read, plain, laid, before, after, width in cases:
        lines.append(
            f"| {rung} | {read} | {plain} | {bank_clocks(before, width)} | {laid} |"
            f" {bank_clocks(after, width)} |"
        )
    return "\n".join(lines) + "\n"


def results_part(results: Results) -> str:
    meta, name = results.meta, results.path.name
    said = (
        f"From [{name}](../profiling/results/{name}): {meta['gpu']}, {meta['date']}, commit"
        f" {meta['commit']}."
    )
    if not rows.rows_of_ladder(results.rows):
        said = (
            f"No results file has the ladder's own rows yet: they are measured by"
            f" `{measured.COMMAND}`. Until then, what other benchmarks have found of its rungs."
            f" {said}"
        )
    lines = [said, "", *measured.table(results)]
    picture = results.path.with_name(f"{results.path.stem}-ladder.png")
    if picture.exists():
        lines += ["", f"![TFLOP/s of each rung](../profiling/results/{picture.name})"]
    return "\n".join(lines) + "\n"


def write() -> None:
    """Write the parts and the picture.

    Raises:
        FileNotFoundError: there is no nvdisasm, or no GPU's results.
    """
    results = measured.newest()
    if results is None:
        raise FileNotFoundError(f"no GPU's results in {measured.FOLDER}")
    counts = [count(rung) for rung in COUNTED]
    new = {"counted": counted(counts), "banks": banks(), "measured": results_part(results)}
    PAGE.write_text(with_parts(PAGE.read_text("utf-8"), new), "utf-8")
    PICTURE.write_text(svg(counts), "utf-8")
