"""Measure whole steps, the most telling first, until the time is up.

    python -m profiling.gpu.steps --file RESULTS.json --seconds 300 [--jax]

A comparison's rows are written when it begins and completed when it ends; one that is there is not
repeated, so the same command goes on with a file. ``--jax`` measures the rows against JAX alone,
in a process that holds no PyTorch; the others are left to a process without it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpucnn.backends import get_backend
from gpucnn.backends.cuda import plans
from profiling.results import Results, Row

from ..cases import key
from ..jobs import DEVICE_LOST, LOST, Deadline
from . import cases
from .cases import COMPILED, COMPILED_GRAPH, DEPENDENT, EAGER, JAX, Comparison
from .cold import ColdStart
from .compare import at_most, brief, compare, forget
from .ours import has_dependent_launches
from .page import KINDS, title
from .sides import Machine, host_clock
from .training import TimeToAccuracy

SETUP_SECONDS = 240.0  # that a peer may take to be ready, compiling included
# That a comparison takes where none of its kind has been measured yet, of a small network and of
# ResNet-50.
EXPECTED = {EAGER: (6, 25), COMPILED: (30, 100), COMPILED_GRAPH: (30, 100), JAX: (20, 60)}
STARTS = {ColdStart("torch"): 50, ColdStart("torch.compile", warm_starts=1): 120}


@dataclass(frozen=True)
class Task:
    """What is measured as one.

    Attributes:
        kind: tasks of a kind take about as long as each other.
        expected: seconds, where none of its kind has been measured yet.
        rows: as they begin.
        measure: given the seconds that a part of it may take, returns what completes them.
    """

    kind: str
    expected: float
    rows: list[Row]
    measure: Callable[[float], list[Row]]


def tasks(machine: Machine, options: argparse.Namespace) -> list[Task]:
    """Return what the options ask for, in order."""
    return [task for task in everything(machine, options.data) if wanted(task.rows[0], options)]


def everything(machine: Machine, data: str) -> list[Task]:
    """Return all tasks; starts and trainings behind the first comparisons."""
    found = [_comparison(machine, comparison) for comparison in cases.comparisons()]
    eager, compiled = (
        sum(c.peers == peers and c.case in cases.FIRST for c in cases.comparisons())
        for peers in (EAGER, COMPILED)
    )
    starts = [_start(machine, start) for start in STARTS]
    training = TimeToAccuracy(data)
    trained = Task("training", 40, training.rows(), lambda _: training.measure(machine))
    compiled += eager
    return [
        *found[:eager], starts[0], trained, *found[eager:compiled], starts[1], *found[compiled:],
    ]  # fmt: skip


def wanted(row: Row, options: argparse.Namespace) -> bool:
    return (
        (row["against"] == "jax") == options.jax
        and (not options.network or not {row["set"], row["layer"]}.isdisjoint(options.network))
        and (not options.dtype or row["dtype"] in options.dtype)
        and (not options.kind or row["op"] in options.kind)
    )


def _comparison(machine: Machine, comparison: Comparison) -> Task:
    expected = EXPECTED[comparison.peers]
    if not has_dependent_launches(machine.backend):
        comparison = comparison.without(DEPENDENT)
    large = comparison.case.network == "resnet50"
    kind = f"{comparison.peers[0]} {comparison.case.network} {comparison.case.kind}"
    return Task(
        kind, expected[large], comparison.rows(),
        lambda limit: compare(comparison, machine, limit),
    )  # fmt: skip


def _start(machine: Machine, start: ColdStart) -> Task:
    def measure(limit: float) -> list[Row]:
        with at_most(limit):
            return start.measure(machine.device)

    return Task(f"cold {start.against}", STARTS[start], start.rows(), measure)


def run(
    todo: Sequence[Task], results: Results, deadline: Deadline, healthy: Callable[[], bool],
    release: Callable[[], None] = lambda: None, left: str = "left_out_steps",
) -> list[str]:  # fmt: skip
    """Measure the tasks that the results do not have yet; return the names of what was left out.

    Raises:
        SystemExit: with ``DEVICE_LOST``, when the GPU no longer answers this process.
    """
    done = {key(row) for row in results.rows}
    waiting = [task for task in todo if key(task.rows[0]) not in done]
    took: dict[str, float] = {}
    left_out: list[str] = []
    for place, task in enumerate(waiting):
        results.meta[left] = left_out + [name(other) for other in waiting[place:]]
        before = deadline.left()
        if before < 1.2 * took.get(task.kind, task.expected):
            left_out.append(name(task))
            continue  # others take less
        results.begin(task.rows[0])
        limit = min(SETUP_SECONDS, before - 5)
        measured = _measured(task, limit)
        if limit < SETUP_SECONDS and any(_ran_out(row) for row in measured):
            results.rows.pop()  # to be measured when there is more time
            left_out.append(name(task))
        else:
            keep(results, task, measured)
        release()
        took[task.kind] = max(took.get(task.kind, 0.0), before - deadline.left())
        if not healthy():
            if results.rows:
                results.rows[-1]["error"] = f"{results.rows[-1].get('error', 'measured')}; {LOST}"
            results.save()
            raise SystemExit(DEVICE_LOST)
    results.meta[left] = left_out
    results.save()
    return left_out


def _measured(task: Task, limit: float) -> list[Row]:
    try:
        return task.measure(limit)
    except Exception as error:
        return [{"error": brief(error)} for _ in task.rows]


def _ran_out(row: Row) -> bool:
    return row.get("error", "").startswith("TimeoutError")


def keep(results: Results, task: Task, measured: Sequence[Row]) -> None:
    """Complete the row that was begun, and write the task's others."""
    for place, (row, columns) in enumerate(zip(task.rows, measured, strict=True)):
        if place:
            results.begin(row)
        results.end(**columns)
        print(line(results.rows[-1]), flush=True)


def name(task: Task) -> str:
    others = "".join(f", {row['against']}" for row in task.rows[1:])
    return title(task.rows[0]) + others


def line(row: Row) -> str:
    """Return a row as one line: times, their ratio, what it is."""
    if row.get("ours_us") is None:
        return f"{title(row)}: {row['error']}"
    found = (
        f"{title(row)}: {row['ours_us']:.1f} us, {row['speedup']:.2f}x of {row['peer_us']:.1f} us"
    )
    return f"{found}; {row['error']}" if row.get("error") else found


def gpu(jax: bool) -> Machine:
    """Return this machine's GPU; convolutions by the estimates, whatever was tuned on it."""
    backend = get_backend("cuda")
    backend.plans = plans
    if jax:
        return Machine(backend, "cuda", host_clock)
    from .sides import EventClock

    clock = EventClock()
    return Machine(backend, "cuda", clock, clock.current)


def answers(machine: Machine) -> bool:
    """Return whether the GPU still answers this process."""
    try:
        return float(machine.backend.xp.ones(1).sum()) == 1.0
    except Exception:
        return False


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m profiling.gpu.steps", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--jax", action="store_true", help="against JAX alone")
    parser.add_argument("--data", default="digits", help="what LeNet-5 is trained on: name or path")
    parser.add_argument("--network", nargs="+", metavar="NAME", help=", ".join(cases.NETWORKS))
    parser.add_argument("--dtype", nargs="+", metavar="NAME", help="float32, bfloat16")
    parser.add_argument("--kind", nargs="+", metavar="NAME", help=", ".join(KINDS))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    deadline, results, machine = Deadline(options.seconds), Results(options.file), gpu(options.jax)
    run(
        tasks(machine, options), results, deadline, lambda: answers(machine),
        lambda: forget(machine), "left_out_jax" if options.jax else "left_out_steps",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
