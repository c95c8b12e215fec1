"""``gpucnn plan``: which layers run as one, what they keep, and the memory of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import options
from .console import console, describe, details, on_backend, shape_text, table

if TYPE_CHECKING:
    from ..network import Network


def plan(
    model: options.Model = None,
    data: options.Data = None,
    input_shape: options.Input = None,
    classes: options.Classes = 10,
    batch_size: options.BatchSize = None,
    dtype: options.Dtype = None,
    backend: options.Backend = None,
) -> None:
    """Show how a training step is planned: the layers that run as one operation, and memory.

    Of each: what is kept from the way forward for the way back, and how.
    Below, the bytes of a step's arrays, which share one arena.
    """
    from ..sizes import size_text
    from ..step.report import step_memory
    from . import networks

    with on_backend(backend) as chosen:
        network, batch = networks.with_batch(model, data, input_shape, classes, batch_size, dtype)
        network.to(chosen)
        x = np.zeros((batch, *network.input_shape), network.dtype)
        outputs = network.output_shape(network.input_shape)[-1]
        memory = step_memory(network, x, np.arange(batch) % outputs)
        machine = describe(chosen)
    rows = table("runs as one", "kept for the way back", "KiB", numbers=1)
    for row in memory.kept:
        shared = f" ({row.shared} shared)" if row.shared else ""
        kept = ", ".join(text.replace(" ", "\N{NO-BREAK SPACE}") for text in row.arrays)
        rows.add_row(row.name, kept + shared, f"{row.bytes / 1024:,.0f}")
    console.print(rows)
    arena = memory.arena
    console.print(
        details(
            {
                "network": f"{network.name}, input {shape_text(x.shape)} {network.dtype.name}",
                "backend": machine,
                "kept": f"{size_text(memory.kept_bytes)} from the way forward for the way back",
                "arena": f"{size_text(arena.size)} for {len(arena.lifetimes)} arrays of"
                f" {size_text(arena.naive)} in all; {size_text(arena.least)} are in use at once",
                "weights": f"{size_text(_weights(network))}, gradients and slots apart",
            }
        )
    )


def _weights(network: Network) -> int:
    return sum(array.nbytes for _, layer in network.walk() for array in layer.params.values())
