"""What every kernel takes on every architecture, by NVRTC and ptxas: no GPU is needed.

    python -m profiling.resources                    all kernels -> profiling/results/resources.*
    python -m profiling.resources dropout.cu         the table of some files, printed alone

resources.json has a row for each specialisation: registers of a thread, static shared memory of a
block, and bytes of stack and of spilled registers of a thread, which should be 0. A list follows
the meta's architectures, with null where the kernel needs a newer one; a number stands for all
alike. resources.md sums up each kernel.

The meta says of each file what was compiled, by a hash of its code. Where that and the compiler are
the same as in the table that is there, its rows stay: all kernels take half an hour of two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gpucnn.backends.cuda  # noqa: F401 - declares all families
from gpucnn.backends.cuda.compiler import OPTIONS, Resources, compile_cubin, kernel_folder
from gpucnn.backends.cuda.kernel import FAMILIES, Kernel, modules
from gpucnn.files import place

from .results import Row, dumps

ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
FILES = sorted({family.file for family in FAMILIES})


def compiler() -> str:
    """Return the compiler's name and version."""
    from cupy.cuda import nvrtc

    return f"NVRTC {'.'.join(map(str, nvrtc.getVersion()))}"


def code_hash(file: str, folder: Path | None = None) -> str:
    """Return a hash over all that a file's cubins are made of, but the compiler and comments."""
    folder = folder or kernel_folder()
    texts: dict[str, str] = {}
    waiting = [file]
    while waiting:
        name = waiting.pop()
        if name not in texts and (folder / name).is_file():  # else the emulator's
            texts[name] = re.sub(r"//[^\n]*", "", (folder / name).read_text("utf-8"))
            waiting += re.findall(r'^\s*#\s*include\s+"([^"]+)"', texts[name], re.MULTILINE)
    code = [(name, texts[name].split()) for name in sorted(texts)]
    made = [(kernel.symbol, kernel.defines) for group in modules_of(file) for kernel in group]
    return hashlib.sha256(repr((code, made, OPTIONS)).encode()).hexdigest()[:16]


def modules_of(file: str, architecture: str | None = None) -> list[list[Kernel]]:
    """Return a file's kernels, those of each cubin together; those that an architecture has."""
    return [
        kernels
        for kernels in modules().values()
        if kernels[0].file == file
        and (architecture is None or kernels[0].exists_on(int(architecture[3:])))
    ]


def rows_of(file: str, executor: Executor) -> list[Row]:
    """Return a row for each specialisation in a file."""
    taken: dict[Kernel, dict[str, Resources]] = {}
    for architecture in ARCHITECTURES:
        groups = modules_of(file, architecture)
        leads = [kernels[0] for kernels in groups]
        compiled = executor.map(compile_cubin, leads, [architecture] * len(leads))
        for kernels, (_, resources) in zip(groups, compiled, strict=True):
            for kernel in kernels:
                taken.setdefault(kernel, {})[architecture] = resources[kernel.symbol]
    rows = []
    for kernel, by_architecture in taken.items():
        records = [by_architecture.get(name) for name in ARCHITECTURES]
        columns = {
            name: _brief([record and getattr(record, name) for record in records])
            for name in asdict(next(iter(by_architecture.values())))
        }
        variant = kernel.suffix.removeprefix("_")
        rows.append({"file": file, "kernel": kernel.function, "variant": variant, **columns})
    return rows


def _brief(values: list[int | None]) -> Any:
    return values[0] if len(set(values)) == 1 else values


def known_rows(table: Path, meta: Row) -> dict[str, list[Row]]:
    """Return the rows of a table that is there, by the file, of files that are as they were."""
    if not table.exists():
        return {}
    content = json.loads(table.read_text("utf-8"))
    before = content["meta"]
    if any(before[key] != meta[key] for key in ("compiler", "architectures")):
        return {}
    rows: dict[str, list[Row]] = {}
    for row in content["rows"]:
        if before.get("sources", {}).get(row["file"], "") == meta["sources"].get(row["file"]):
            rows.setdefault(row["file"], []).append(row)
    return rows


def markdown(meta: Row, rows: Sequence[Row]) -> str:
    """Return the table of the kernels: how many there are of each, and the most that one takes."""
    architectures = meta["architectures"]

    def most(group: Sequence[Row], column: str, place: int) -> int | None:
        values = [row[column] for row in group]
        found = [value[place] if isinstance(value, list) else value for value in values]
        return max((value for value in found if value is not None), default=None)

    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["file"], row["kernel"]), []).append(row)
    lines = [
        "# What the kernels take",
        "",
        f"{len(rows)} specialisations of {len(groups)} kernels, by {meta['compiler']} at"
        f" {meta['commit']}, {meta['date']}. Of the specialisations of a kernel the one that takes"
        " most counts: registers of a thread on each architecture; static shared memory of a block"
        " in bytes; bytes of stack and of spilled registers of a thread.",
        "",
        f"| file | kernel | | {' | '.join(architectures)} | shared | stack | spilled |",
        f"|---|---|--:|{'--:|' * len(architectures)}--:|--:|--:|",
    ]
    for (file, kernel), group in groups.items():
        registers = [most(group, "registers", place) for place in range(len(architectures))]
        others = [
            max(most(group, column, place) or 0 for place in range(len(architectures)))
            for column in ("shared_bytes", "stack_bytes", "spill_bytes")
        ]
        cells = ["" if count is None else f"{count:,}" for count in (*registers, *others)]
        lines.append(f"| {file} | {kernel} | {len(group)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    from .gpu.machine import ROOT, describe

    parser = argparse.ArgumentParser(
        prog="python -m profiling.resources", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("files", nargs="*", metavar="FILE", help="of kernels/; by default all")
    parser.add_argument("--out", type=Path, default=ROOT / "profiling" / "results")
    options = parser.parse_args(arguments)
    unknown = set(options.files) - set(FILES)
    if unknown:
        parser.error(f"FILE must be one of {', '.join(FILES)}. Received: {', '.join(unknown)}")
    about = describe(None)
    meta = {
        "compiler": compiler(),
        "commit": about["commit"], "date": about["date"], "architectures": ARCHITECTURES,
        "sources": {file: code_hash(file) for file in FILES},
    }  # fmt: skip
    table = options.out / "resources.json"
    known = {} if options.files else known_rows(table, meta)
    rows = []
    with ThreadPoolExecutor(os.cpu_count()) as executor:  # NVRTC releases the GIL
        for file in options.files or FILES:
            found = known.get(file) or rows_of(file, executor)
            says = "as before" if file in known else f"{len(found)} specialisations"
            print(f"{file}: {says}", file=sys.stderr, flush=True)
            rows += found
    if options.files:
        print(markdown(meta, rows), end="")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    place(table, dumps(meta, rows).encode())
    place(options.out / "resources.md", markdown(meta, rows).encode())


if __name__ == "__main__":
    main()
