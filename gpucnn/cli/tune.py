"""``gpucnn tune``: measure how each convolution of a network runs best on this GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .console import console, details, on_backend, shape_text, table

if TYPE_CHECKING:
    from ..backends.cuda.algorithms import Plan, Problem
    from ..backends.cuda.tuning import Entry, Tuner


def tune(
    model: options.Model = None,
    data: options.Data = None,
    input_shape: options.Input = None,
    classes: options.Classes = 10,
    batch_size: options.BatchSize = None,
    dtype: options.Dtype = None,
    inference: Annotated[
        bool, typer.Option("--inference", help="Tune the forward pass alone.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Measure, too, what was tuned before.")
    ] = False,
) -> None:
    """Measure how each convolution of a network runs best on this GPU, and keep it for later.

    From then on every program on this machine that runs the same convolution,
    in a batch of the same size, uses what was found. It may change the last
    bits of a result, once.
    """
    import numpy as np

    from ..backends.cuda.tuning import GraphTimer, Tuner
    from ..tuning import problems
    from . import networks

    with on_backend("cuda") as backend:
        network, batch = networks.with_batch(model, data, input_shape, classes, batch_size, dtype)
        network.needs_input_gradient = False  # as in a training
        x = np.zeros((batch, *network.input_shape), network.dtype)
        wanted = problems(backend, network, x, training=not inference)
        entries = _measure(Tuner(backend, GraphTimer()), wanted, again)
        rows = {
            "network": f"{network.name}, input {shape_text(x.shape)} {x.dtype.name}",
            "gpu": backend.launcher.environment()["gpu"],
            "result": _result(entries),
            "kept in": str(backend.plans.store.folder),
        }
    failures = [text for entry in entries.values() for text in entry.failures.values()]
    if failures:
        rows["did not run"] = f"{len(failures)} plans, the first: {failures[0]}"
    console.print(details(rows))


def _measure(tuner: Tuner, wanted: list[Problem], again: bool) -> dict[Problem, Entry]:
    """Tune one after the other and show what came out, while it goes on, too."""
    from rich.console import Group
    from rich.live import Live

    from ..backends.cuda.plans import choose

    columns = ("estimated best", "measured best", "estimate's us", "best us", "faster")
    made = table("convolution", *columns, numbers=3)
    entries = {}
    with Live(made, console=console, transient=True) as live:
        for number, problem in enumerate(wanted, 1):
            live.update(Group(made, f"{number} of {len(wanted)}: {_problem(problem)}"))
            entry = entries[problem] = tuner.tune(problem, again)
            estimated = choose(problem)
            before, after = entry.times.get(estimated), entry.times[entry.plan]
            made.add_row(
                _problem(problem),
                _plan(estimated),
                "the same" if entry.plan == estimated else _plan(entry.plan),
                "" if before is None else f"{before:.1f}",
                f"{after:.1f}",
                "" if before is None else f"{before / after:.2f}x",
            )
    console.print(made)
    return entries


def _result(entries: dict[Problem, Entry]) -> str:
    from ..backends.cuda.plans import choose

    other = sum(entry.plan != choose(problem) for problem, entry in entries.items())
    return f"{len(entries)} convolutions, {other} with another plan than the estimate's"


def _problem(problem: Problem) -> str:
    s = problem.shape
    said = [problem.direction, shape_text(s.x_shape), "by", shape_text(s.w_shape)]
    for name in ("strides", "dilation"):
        if set(getattr(s, name)) != {1}:
            said += [name, shape_text(getattr(s, name))]
    said += [f"groups {s.groups}"] if s.groups > 1 else []
    said += [] if s.channels_last else ["NCHW"]
    said += [problem.activation] if problem.activation != "linear" else []
    return " ".join(said)


def _plan(plan: Plan) -> str:
    """Return the algorithm and its settings, those that are 0 or off left out."""
    return " ".join([plan.algorithm, *_settings(asdict(plan)["settings"])])


def _settings(settings: Any) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _settings(value)
        elif value:
            yield name if value is True else f"{name}={value}"
