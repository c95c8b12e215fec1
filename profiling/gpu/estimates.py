"""Hold the estimates that choose plans against the GPU: ``python -m profiling.gpu.estimates``.

Every candidate of the benchmark's convolutions is timed, as the tuner times it. A line says what
the choice by estimates costs against the fastest candidate; the file has the estimate and the time
of each, to fit the algorithms' constants to.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpucnn.backends import get_backend
from gpucnn.backends.base import MATH
from gpucnn.backends.cuda import CudaBackend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Plan, Problem
from gpucnn.backends.cuda.tuning import GraphTimer, Store, TunedPlans, Tuner
from gpucnn.shapes import ConvShape
from profiling.results import dumps

from . import machine
from .cases import DIRECTIONS, Case, benchmark_set
from .jobs import Deadline


def problems(cases: Sequence[Case], architecture: int) -> Iterator[tuple[Case, Problem]]:
    """Yield the plain convolutions among the cases, each once."""
    seen = set()
    for case in cases:
        if case.op not in DIRECTIONS or not isinstance(case.shape, ConvShape):
            continue
        direction = case.op.removeprefix("conv_")
        math_mode = case.math if case.math in MATH else "strict"
        problem = Problem(
            direction, case.shape, case.dtype, architecture=architecture, math=math_mode
        )
        if problem not in seen:
            seen.add(problem)
            yield case, problem


def measure(tuner: Tuner, case: Case, problem: Problem) -> dict[str, Any]:
    """Return a row: every candidate's estimate and time, and the choice's loss."""
    entry = tuner.tune(problem, again=True)
    estimates = {plan: ALGORITHMS[plan.algorithm].cost(problem, plan) for plan in entry.times}
    chosen = min(estimates, key=estimates.__getitem__)
    fastest = entry.plan
    return {
        "op": case.op, "set": case.set, "layer": case.layer, "shape": asdict(case.shape),
        "dtype": case.dtype, "math": case.math, "layout": case.layout,
        "chosen": named(chosen), "fastest": named(fastest),
        "loss": entry.times[chosen] / entry.times[fastest],
        "candidates": [
            {"plan": named(plan), "estimate_us": estimates[plan], "us": us}
            for plan, us in entry.times.items()
        ],
        "failures": {named(plan): why for plan, why in entry.failures.items()},
    }  # fmt: skip


def named(plan: Plan) -> str:
    """Return an algorithm, its settings and its grid in a line."""
    settings = json.dumps(asdict(plan.settings), separators=(",", ":")).replace('"', "")
    return f"{plan.algorithm} {settings} {'x'.join(map(str, plan.grid))}"


def line(row: dict[str, Any]) -> str:
    what = f"{row['op']} {row['set']} {row['layer']} {row['dtype']} {row['layout']}"
    if row["loss"] == 1:
        return f"{what}: 1.00 {row['fastest']}"
    return f"{what}: {row['loss']:.2f} {row['chosen']}, not {row['fastest']}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m profiling.gpu.estimates", description=__doc__)
    parser.add_argument("--dtype", nargs="+", default=["float32"], metavar="NAME")
    parser.add_argument("--set", nargs="+", metavar="NAME", help="resnet50, vgg16, ...")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--commit", help="what to call the sources where there is no git")
    parser.add_argument("--out", type=Path, default=Path("estimates.json"))
    options = parser.parse_args(arguments)
    deadline, rows = Deadline(options.seconds), []
    meta = (machine.gpu()[0] or {}) | machine.describe(options.commit)
    base = get_backend("cuda")
    with tempfile.TemporaryDirectory() as folder:
        plans = TunedPlans(base.launcher, Store(Path(folder)))
        tuner = Tuner(CudaBackend(base.xp, base.launcher, plans), GraphTimer())
        wanted = [
            case
            for case in benchmark_set()
            if case.dtype in options.dtype and (not options.set or case.set in options.set)
        ]
        for case, problem in problems(wanted, base.launcher.architecture):
            if deadline.left() <= 0:
                break
            try:
                rows.append(measure(tuner, case, problem))
            except RuntimeError as error:
                print(f"{case.op} {case.set} {case.layer}: {error}", flush=True)
                continue
            print(line(rows[-1]), flush=True)
            options.out.write_text(dumps(meta, rows), "utf-8")
    if rows:
        mean = math.exp(statistics.fmean(math.log(row["loss"]) for row in rows))
        print(f"{len(rows)} convolutions; the choice by estimates takes {mean:.3f} times the best")


if __name__ == "__main__":
    main()
