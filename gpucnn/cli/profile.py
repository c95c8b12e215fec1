"""``gpucnn profile``: where the time of a step goes, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .console import console, describe, details, on_backend, shape_text, table

if TYPE_CHECKING:
    from ..profiler import Profile


def profile(
    model: options.Model = None,
    data: options.Data = None,
    input_shape: options.Input = None,
    classes: options.Classes = 10,
    batch_size: options.BatchSize = None,
    dtype: options.Dtype = None,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Steps to measure.")] = 20,
    inference: Annotated[
        bool, typer.Option("--inference", help="Measure the forward pass alone.")
    ] = False,
    backend: options.Backend = None,
    out: Annotated[
        Path | None,
        typer.Option(
            callback=options.folder_to_fill,
            metavar="FOLDER",
            help="Where the files are written.",
            show_default="profile/MODEL",
        ),
    ] = None,
) -> None:
    """Show where the time of a training step goes: each layer, forward and backward.

    And how far each is from its floor, the least that this machine allows.
    Left behind are a timeline, profile.png, and the numbers, profile.json.
    The images are random; --data says how large and of how many classes.
    """
    import numpy as np

    from ..profiler import profile as measure
    from . import networks

    with on_backend(backend) as chosen:
        network, batch = networks.with_batch(model, data, input_shape, classes, batch_size, dtype)
        x = np.random.default_rng(0).random((batch, *network.input_shape)).astype(network.dtype)
        network.to(chosen)
        found = measure(network, x, training=not inference, steps=steps)
        machine = describe(chosen)
    console.print(_table(found), soft_wrap=True)
    rows = {
        "network": f"{network.name}, input {shape_text(x.shape)} {found.dtype}",
        "backend": machine,
        "step": _spread(found),
        "floors": f"{found.peaks.gflops:,.0f} GFLOP/s of a matrix product,"
        f" {found.peaks.gbps:,.0f} GB/s of a copy, measured just now",
        "files": _save(found, out or Path("profile") / network.name),
    }
    console.print(details(rows))


def _table(found: Profile) -> Any:
    from ..profiler.result import HEAD, TEXTS

    made = table(*(head.replace(" ", "\n") for head in HEAD), numbers=len(HEAD) - TEXTS)
    made.columns[-1].justify = "left"
    cells = list(found.cells())
    for place, row in enumerate(cells):
        is_network = place < len(found.rows) and found.rows[place].is_network
        if place in (len(found.rows), len(cells) - 1):
            made.add_section()
        made.add_row(*row, style="dim" if is_network else None)
    # as wide as it is: a narrow terminal breaks the lines, and no number is cut
    made.width = console.measure(made, options=console.options.update(max_width=1000)).maximum
    return made


def _spread(found: Profile) -> str:
    """Say how the steps were that the medians are of."""
    from statistics import median

    least, middle, most = (f(found.steps_us) / 1e3 for f in (min, median, max))
    count = len(found.steps_us)
    return f"{count} measured, {least:.2f} to {most:.2f} ms, median {middle:.2f}"


def _save(found: Profile, folder: Path) -> str:
    """Write the files and return their names."""
    files = [found.save(folder / "profile.json").name]
    try:
        from .. import plots
    except ModuleNotFoundError as error:
        return f"{folder}: {files[0]}; {error}"
    plots.timeline(found).savefig(folder / "profile.png")
    return f"{folder}: {', '.join([*files, 'profile.png'])}"
