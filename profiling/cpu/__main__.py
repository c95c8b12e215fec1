"""Measure gpucnn on this machine's CPU beside PyTorch and JAX, and keep what came out.

    python -m profiling.cpu                          everything, a quarter of an hour
    python -m profiling.cpu --quick                  a minute: a few layers and one network
    python -m profiling.cpu --file RESULTS.json      go on with a run that was ended
    python -m profiling.cpu --readme                 ... and write the README's table
    python -m profiling.cpu report --file RESULTS.json [--readme]     nothing is measured

Results go to cpu-<date>-<commit>.json in profiling/results, with a page and a chart beside. What is
measured and how, ``gpucnn.bench`` says; the machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpucnn.bench.rows import key
from gpucnn.bench.runs import Benchmark, Plan, usable_cores
from profiling.gpu.machine import ROOT, describe
from profiling.results import COLUMNS, NUMBERS, UNFINISHED, Results, Row

TIME_LIMIT = 1200.0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m profiling.cpu", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("part", nargs="?", choices=("run", "report"), default="run")
    parser.add_argument("--quick", action="store_true", help="a few layers and one network")
    parser.add_argument("--runs", type=int, help="how often everything is measured; default 3")
    parser.add_argument(
        "--threads", type=int, default=usable_cores(), help="of each library; default one a core"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="layers, groups or networks of these names only"
    )
    parser.add_argument(
        "--time-limit", type=float, default=TIME_LIMIT, metavar="SECONDS",
        help=f"begin nothing more after these; default {TIME_LIMIT:.0f}",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=ROOT / "profiling" / "results", help="folder of the results"
    )
    parser.add_argument("--file", type=Path, help="a results file to go on with, or to report")
    parser.add_argument("--commit", help="what to call the sources where there is no git")
    parser.add_argument("--readme", action="store_true", help="write the README's table")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.part == "report":
        if options.file is None or not options.file.exists():
            parser().error(f"report needs a results file. Received: --file {options.file}")
        return report(options.file, options.readme)
    meta = describe(options.commit)
    meta = {"cpu": cpu(), **meta}
    path = options.file or options.out / f"cpu-{meta['date']}-{meta['commit']}.json"
    results = Results(path)
    if results.meta.get("commit") not in (None, meta["commit"]):
        parser().error(
            f"{path} holds rows of commit {results.meta['commit']}; give --commit with it if the"
            f" sources are the same. Received: {meta['commit']}"
        )
    results.meta = meta | results.meta
    try:
        run(plan_of(options), results)
    except KeyboardInterrupt:
        print(f"interrupted; go on with --file {path}", flush=True)
    finally:
        results.save()
    failed = [row for row in results.rows if row.get("error")]
    print(f"{len(results.rows)} rows, {len(failed)} failed", flush=True)
    return report(path, options.readme) or int(bool(failed))


def plan_of(options: argparse.Namespace) -> Plan:
    plan = (Plan.quick if options.quick else Plan.full)(options.threads)
    wanted = options.only and set(options.only)
    return replace(
        plan, runs=options.runs or plan.runs, seconds=min(plan.seconds, options.time_limit),
        cases=[c for c in plan.cases if not wanted or wanted & {c.group, c.layer}],
    )  # fmt: skip


def run(plan: Plan, results: Results, **replaced: Any) -> None:
    """Measure, and keep each row in the file as it changes."""
    blank = dict.fromkeys((*COLUMNS, *NUMBERS))
    # what was begun and interrupted is measured again
    results.rows = [row for row in results.rows if row.get("error") != UNFINISHED]
    places = {key(row): place for place, row in enumerate(results.rows)}

    def begun(row: Row) -> None:
        places[key(row)] = len(results.rows)
        results.begin(row)

    def changed(row: Row) -> None:
        results.rows[places[key(row)]] = blank | row
        results.save()
        print(line(row), flush=True)

    benchmark = Benchmark(plan, results.rows, begun=begun, changed=changed, **replaced)
    try:
        benchmark.run()
    finally:
        results.meta |= benchmark.meta


def line(row: Row) -> str:
    """Return a row as one line: what it is, us, and the ratio to the peer."""
    what = f"{row['layer']} {row['op']} N{row['shape']['batch']}, {row['core']}"
    if row.get("error"):
        return f"{what}: {row['error']}"
    ratio = f" | {1 / row['speedup']:.2f} of {row['peer']}" if row["speedup"] else ""
    doubt = f" | {row['contended']} windows disturbed" if row["contended"] else ""
    return f"{what}: {row['ours_us']:.0f} us{ratio}{doubt}"


def cpu() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    for entry in info.read_text().splitlines() if info.exists() else ():
        name, _, value = entry.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def report(path: Path, readme: bool) -> int:
    from . import page

    for file in page.write(path, ROOT / "README.md" if readme else None):
        print(f"wrote {file}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
