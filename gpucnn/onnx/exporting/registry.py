"""Which function exports which class of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...layers.base import Layer

# (builder, layer, input) -> output; values, or lists of them for layers of many.
Exporter = Callable[[Any, Layer, Any], Any]

EXPORTERS: dict[type[Layer], Exporter] = {}
REFUSALS: dict[Exporter, Callable[[Layer], str | None]] = {}


def exports(
    kind: type[Layer], unless: Callable[[Layer], str | None] | None = None
) -> Callable[[Exporter], Exporter]:
    """Make a function the exporter of a class and of those that inherit its ``_forward``.

    ``unless`` says what ONNX cannot express of such a layer, or None.
    """

    def register(exporter: Exporter) -> Exporter:
        EXPORTERS[kind] = exporter
        if unless is not None:
            REFUSALS[exporter] = unless
        return exporter

    return register


def refusal_of(layer: Layer) -> str | None:
    """Return why a layer that has an exporter cannot be exported, or None."""
    unless = REFUSALS.get(exporter_of(layer))
    return None if unless is None else unless(layer)


def exporter_of(layer: Layer) -> Exporter | None:
    """Return the function that exports a layer, or None for one that nobody has written.

    A subclass that computes something of its own is not its parent.
    """
    for kind in type(layer).__mro__:
        if kind in EXPORTERS:
            return EXPORTERS[kind] if type(layer)._forward is kind._forward else None
    return None
