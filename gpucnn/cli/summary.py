"""``gpucnn summary``: the layers of a network."""

from __future__ import annotations

from . import options
from .console import console


def summary(
    model: options.Model = None,
    input_shape: options.Input = None,
    classes: options.Classes = 10,
) -> None:
    """Show the layers of a network: output shapes, parameters and multiply-adds."""
    from ..backends import use_backend
    from . import networks

    with use_backend("numpy"):  # nothing is computed
        shape = networks.as_shape(input_shape)
        network = networks.named(model, shape, classes) or networks.trained(model).model
        console.print(network.summary_text(shape), soft_wrap=True)
