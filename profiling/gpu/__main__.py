"""Test, check and measure gpucnn on this machine's GPU, in one command with a time limit.

    python -m profiling.gpu                              everything, under nine minutes
    python -m profiling.gpu bench --op conv_fprop        parts can be run alone
    python -m profiling.gpu steps --network lenet5       whole steps, of one network
    python -m profiling.gpu bench --file RESULTS.json    go on with a run that its limit ended
    python -m profiling.gpu report --file RESULTS.json   Markdown and plots of a file, anywhere

Parts: tests (those marked gpu), ptx (every function of kernels/ptx.cuh), sanitize (the tools of
compute-sanitizer over every operation), ladder (every rung of docs/ladder.md on the same layers),
bench (the benchmark set against PyTorch), steps (whole training steps, answers and cold starts
against PyTorch and JAX), report. What they find goes to <gpu>-<date>-<commit>.json, .md and .png
in profiling/results, their output into a folder beside.
Without a GPU the operations, ptx.cuh and the ladder run in the emulator. Nothing here needs a
network.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from profiling.results import Results

from . import machine, parts
from .jobs import Deadline, Job, run_all
from .options import bench_options, parser, steps_options

MEASURING = ("ladder", "bench", "steps")
PARTS = ("tests", "ptx", "sanitize", *MEASURING, "report")
TIME_LIMIT = 520.0
CORRECTNESS_SHARE = 0.37  # of the time limit, at most, when something is to be measured
LADDER_SECONDS = 60.0  # for the ladder, when others are to come
STEPS_SHARE = 0.6  # of what the benchmark finds, when whole steps are to come
JAX_SHARE = 0.12  # of what the steps find: rows against JAX, the last
AIRBENCH_SHARE = 0.4  # likewise, where there is CIFAR-10
REPORT_SECONDS = 20.0  # kept for the report
LEAST_SECONDS = 25.0  # to start measuring with: PyTorch's import, one row
QUICK_SECONDS = 15  # of operations in the emulator, where all of them take minutes
MOST_STARTS = 10  # of a program that loses the GPU
# a row that takes longer hangs; some of the steps are compiled
IDLE_SECONDS = {"ladder": 100.0, "bench": 100.0, "steps": 300.0}
WITHOUT_GPU = {
    "sanitize": "compute-sanitizer",
    "ladder": "the ladder's times",
    "bench": "the benchmark against PyTorch",
    "steps": "whole steps against PyTorch and JAX",
    "report": "a results file and its report",
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser(__doc__, TIME_LIMIT).parse_args(arguments)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser(__doc__, TIME_LIMIT).error(
            f"PART must be one of {', '.join(PARTS)}. Received: {', '.join(unknown)}"
        )
    wanted = options.parts or PARTS
    if tuple(wanted) == ("report",):
        return report_alone(options.file)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    gpu, reason = machine.gpu()
    if gpu is None:
        return without_gpu(wanted, options, reason)
    return Run(options, gpu).all(wanted)


class Run:
    """One run on a GPU: its clock, its results file and its logs."""

    def __init__(self, options: argparse.Namespace, gpu: dict[str, Any]) -> None:
        self.options, self.deadline = options, Deadline(options.time_limit)
        meta = gpu | machine.describe(options.commit)
        # absolute, for the parts run in the checkout
        self.path = (options.file or options.out / f"{machine.stem(meta)}.json").resolve()
        self.results = Results(self.path)
        before = self.results.meta.get("commit")
        if before not in (None, meta["commit"]):
            raise SystemExit(
                f"{self.path} holds rows of commit {before}; give --out for a file of its own, or"
                f" --commit {before} if the sources are the same. Received: {meta['commit']}"
            )
        self.results.meta = meta | self.results.meta
        self.logs = self.path.with_suffix(".logs")
        self.left_out: dict[str, str] = {}

    def all(self, wanted: Sequence[str]) -> int:
        """Run the parts in order; whatever happens, keep and report what there is."""
        print(f"{self.results.meta['gpu']}: {', '.join(wanted)} -> {self.path}", flush=True)
        self.results.save()
        try:
            with self.leaving_out("correctness"):
                self.correctness(wanted)
            if "ladder" in wanted:
                with self.leaving_out("ladder"):
                    self.ladder(alone=not {"bench", "steps"} & {*wanted})
            if "bench" in wanted:
                with self.leaving_out("bench"):
                    self.bench(STEPS_SHARE if "steps" in wanted else 0.0)
            if "steps" in wanted:
                with self.leaving_out("steps"):
                    self.steps()
        except KeyboardInterrupt:
            self.left_out["the rest"] = "interrupted"
        self.update(left_out=self.left_out)
        if "report" in wanted:
            with self.leaving_out("report"):
                write_report(self.path)
        print(closing(self.results), flush=True)
        return 0 if parts.clean(self.results.meta) else 1

    @contextmanager
    def leaving_out(self, part: str) -> Iterator[None]:
        """Let a part that fails in itself cost no other."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.left_out[part] = f"{type(error).__name__}: {error}"

    def update(self, **meta: Any) -> None:
        """Add to the file's meta, which other processes have written to meanwhile."""
        self.results = Results(self.path, meta)
        self.results.save()

    def correctness(self, wanted: Sequence[str]) -> None:
        """Run tests, ptx cases and sanitizers side by side: most of their time is the host's."""
        tests = parts.test_jobs(self.logs, self.options.quick) if "tests" in wanted else []
        ptx = self.ptx_jobs() if "ptx" in wanted else []
        sanitize = self.sanitize_jobs() if "sanitize" in wanted else []
        share = CORRECTNESS_SHARE if {*MEASURING} & {*wanted} else 1.0
        within = Deadline(max(0.0, share * self.deadline.left()))
        cores = max(4, os.cpu_count() or 4)
        run_all([*sanitize, *tests, *ptx], self.logs, cores, within)
        found: dict[str, Any] = {}
        if tests:
            found["tests"] = parts.tests_summary(tests, self.logs)
        if ptx:
            found["ptx"] = parts.ptx_summary(ptx)
        if sanitize:
            found["sanitizer"] = parts.sanitize_summary(sanitize)
        for name, summary in found.items():
            print(f"{name}: {parts.as_text(summary)}", flush=True)
        self.update(**found)

    def ptx_jobs(self) -> list[Job]:
        with self.leaving_out("ptx"):
            return parts.ptx_jobs()
        return []

    def sanitize_jobs(self) -> list[Job]:
        sanitizer = machine.compute_sanitizer()
        if sanitizer is None:
            self.left_out["sanitize"] = "compute-sanitizer is not installed"
            return []
        return parts.sanitize_jobs(sanitizer, self.options.quick)

    def ladder(self, alone: bool) -> None:
        """Measure every rung of docs/ladder.md."""
        most = math.inf if alone else LADDER_SECONDS
        self.measuring("ladder", "profiling.gpu.bench", ["--ladder"], most=most)

    def bench(self, left: float = 0.0) -> None:
        """Measure single operations, and leave this share of the time."""
        self.measuring("bench", "profiling.gpu.bench", bench_options(self.options), left)

    def steps(self) -> None:
        """Measure whole steps: against PyTorch, and in a process without it against JAX."""
        options, shares = steps_options(self.options), {}
        if self.options.cifar:
            shares["airbench"] = AIRBENCH_SHARE
        if machine.has("jax"):
            shares["jax"] = JAX_SHARE
        else:
            self.left_out["steps against JAX"] = "JAX is not installed"
        self.measuring("steps", "profiling.gpu.steps", options, sum(shares.values()))
        if "airbench" in shares:
            self.airbench(shares.get("jax", 0.0) / sum(shares.values()))
        if "jax" in shares:
            self.measuring("steps", "profiling.gpu.steps", [*options, "--jax"])

    def airbench(self, left: float) -> None:
        """Train airbench94 on CIFAR-10, here and in PyTorch, into a file of its own."""
        within = Deadline((self.deadline.left() - REPORT_SECONDS) * (1 - left))
        command = [
            sys.executable, "-m", "profiling.gpu.airbench", "--data", self.options.cifar,
            "--commit", self.results.meta["commit"], "--out", str(self.path.parent),
        ]  # fmt: skip
        job = Job("airbench", command, within.left())
        run_all([job], self.logs, 1, within)
        print(job.tail(), flush=True)
        if job.code != 0:
            self.left_out["airbench"] = job.stopped or job.tail(1)

    def measuring(
        self, part: str, module: str, options: Sequence[str], left: float = 0.0,
        most: float = math.inf,
    ) -> None:  # fmt: skip
        """Run a program that measures, and again when it loses the GPU, until the time is up."""
        if not machine.has("torch"):
            self.left_out[part] = "PyTorch is not installed"
            return
        until = Deadline(min(most, (self.deadline.left() - REPORT_SECONDS) * (1 - left)))
        for start in range(MOST_STARTS):
            within = Deadline(until.left())
            if within.left() < LEAST_SECONDS:
                self.left_out[part] = "its time was up"
                return
            rows = len(Results(self.path).rows)
            seconds = within.left() - 12  # so that it ends by itself, between two rows
            command = [
                sys.executable, "-m", module, *options, "--file", str(self.path),
                "--seconds", f"{seconds:.0f}",
            ]  # fmt: skip
            name = f"{part}{'-jax' * ('--jax' in options)}-{start}"
            job = Job(name, command, within.left(), self.path, IDLE_SECONDS[part])
            run_all([job], self.logs, 1, within)
            if job.code == 0:
                return
            print(f"{part}: {job.stopped or f'exit status {job.code}'}\n{job.tail()}", flush=True)
            if len(Results(self.path).rows) == rows:  # it did not come to its first row
                self.left_out[part] = job.stopped or job.tail(1)
                return
        self.left_out[part] = f"it lost the GPU {MOST_STARTS} times"


def write_report(path: Path) -> None:
    """Write the Markdown, and the plots where Matplotlib is there."""
    from . import report

    for file in report.write(path):
        print(f"wrote {file}", flush=True)
    if not machine.has("matplotlib"):
        print(
            "left out the plots: Matplotlib is not installed; draw them elsewhere by"
            f" python -m profiling.gpu report --file {path}",
            flush=True,
        )


def report_alone(path: Path | None) -> int:
    if path is None or not path.exists():
        parser(__doc__, TIME_LIMIT).error(f"report needs a results file. Received: --file {path}")
    write_report(path)
    return 0


def closing(results: Results) -> str:
    """Return the last lines of a run: means, what failed, what was left out."""
    from . import report

    failed = [row for row in results.rows if row.get("error")]
    lines = [report.means_as_text(results.rows), f"{len(results.rows)} rows, {len(failed)} failed"]
    lines += [f"  {report.title(row)}: {row['error']}" for row in failed[:10]]
    left = results.meta.get("left_out_rows")
    if left:
        lines.append(f"{left} rows were left out; go on by bench --file {results.path}")
    for name in ("left_out_steps", "left_out_jax"):
        for what in results.meta.get(name, ()):
            lines.append(f"left out for want of time: {what}; go on by steps --file {results.path}")
    lines += [f"left out {part}: {why}" for part, why in results.meta["left_out"].items()]
    return "\n".join(lines)


def without_gpu(wanted: Sequence[str], options: argparse.Namespace, reason: str) -> int:
    """Run what the emulator can, say what was left out, and return 1 if something failed."""
    from tests.emulator.build import CXX

    print(f"no GPU here: {reason}")
    left_out = {part: what for part, what in WITHOUT_GPU.items() if part in wanted}
    jobs = []
    if shutil.which(CXX) is None:
        left_out["tests"] = f"the emulator, which needs a C++ compiler: there is no {CXX}"
    else:
        command = [sys.executable, "-m", "profiling.gpu.sanitized", "--backend", "emulated"]
        command += ["--compare"]
        if options.quick:
            command += ["--dtype", "float32", "--seconds", str(QUICK_SECONDS)]
        if "tests" in wanted:
            jobs.append(Job("operations", command, options.time_limit))
            left_out["tests"] = "the tests marked gpu; make test runs them in the emulator"
        if "ptx" in wanted:
            command = [sys.executable, "-m", "profiling.gpu.ptx", "--emulated"]
            jobs.append(Job("ptx", command, options.time_limit))
        if "ladder" in wanted:
            command = [sys.executable, "-m", "profiling.gpu.ladder"]
            jobs.append(Job("ladder", command, options.time_limit))
    logs = options.out / "without-gpu.logs"
    shutil.rmtree(logs, ignore_errors=True)
    run_all(jobs, logs, 1, Deadline(options.time_limit))
    for job in jobs:
        print(f"{job.name}, in the emulator: {job.stopped or job.tail()}")
    for what in left_out.values():
        print(f"left out: {what}")
    return int(any(job.code != 0 for job in jobs))


if __name__ == "__main__":
    sys.exit(main())
