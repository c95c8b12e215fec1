"""The table of ``Network.summary``: what each layer makes, holds and costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..layers.base import Layer, Shape
from ..sizes import size_text
from .base import Network

HEAD = ("Layer (class)", "Output shape", "Parameters", "Multiply-adds")


def network_table(network: Network, input_shape: Shape) -> str:
    """Return a text table of a built network, for one sample of ``input_shape``.

    A layer's parameters include its running statistics. Nested networks are indented; the inputs
    of a layer in a graph are shown after its name where they are not simply the row above.
    """
    rows = [HEAD, *_rows(network, input_shape, "")]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    pattern = "  ".join(f"{{:{side}{width}}}" for side, width in zip("<<>>", widths, strict=True))
    lines = [pattern.format(*row).rstrip() for row in rows]
    rule = "-" * len(lines[0])
    arrays = [array for _, layer in network.walk() for array in _arrays(layer)]
    total = sum(array.size for array in arrays)
    learned = sum(parameter.value.size for parameter in network.parameters())
    shares = f"{learned:,} trainable, {total - learned:,} non-trainable"
    size = size_text(sum(array.nbytes for array in arrays))
    title = f"{network.label}, {network.dtype.name}, input {_with_batch(input_shape, network)}"
    foot = (
        f"Parameters: {total:,} ({size}): {shares}\n"
        f"Multiply-adds for one sample: {network.multiply_adds(input_shape):,}"
    )
    return "\n".join([title, rule, lines[0], rule, *lines[1:], rule, foot])


def _rows(network: Network, input_shape: Shape, indent: str) -> Iterator[tuple[str, str, str, str]]:
    above = "input"
    for layer, given, output, sources in network._flow(input_shape)[0]:
        origin = f" <- {', '.join(sources)}" if sources and sources != (above,) else ""
        above = layer.name
        name = f"{indent}{layer.name} ({type(layer).__name__}){origin}"
        if isinstance(layer, Network):
            yield name, str((None, *output)), "", ""
            yield from _rows(layer, given, indent + "  ")
        else:
            held = sum(array.size for _, part in layer.walk() for array in _arrays(part))
            yield name, str((None, *output)), f"{held:,}", f"{layer.multiply_adds(given):,}"


def _arrays(layer: Layer) -> Iterable:
    return (*layer.params.values(), *layer.state.values())


def _with_batch(shape: Shape, network: Network) -> str:
    shapes = shape if network.takes_many else (shape,)
    return ", ".join(str((None, *one)) for one in shapes)
