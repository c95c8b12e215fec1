"""What a layer's forward and backward must do at least, read off the arrays of a call.

Forward reads the inputs and the parameters, and writes the output and what it keeps for the way
back (the index of a max-pool). Backward reads dy, what was kept and the parameters, and writes dx
and the gradients. No array counts twice, and one that is a view of an input not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..backends.base import Array
from ..functional import Unapplied
from ..layers.base import Layer
from ..layers.conv import Conv
from ..layers.conv_transpose import ConvTranspose
from ..layers.separable import SeparableConv
from ..network.stages import ConvPool, Stage
from .floors import Work, elements_read


def parts_of(subject: Layer | Stage) -> list[Layer]:
    """Return the layers that run as one."""
    return subject.layers if isinstance(subject, Stage) else [subject]


class Extent(NamedTuple):
    """What of a layer's work the arrays of its calls do not show.

    Attributes:
        multiply_adds: of the forward pass, for the batch.
        unread: bytes of a convolution's input that no window meets.
    """

    multiply_adds: int
    unread: int

    @classmethod
    def of(cls, subject: Layer | Stage, x: Any) -> Extent:
        x = x.x if isinstance(x, Unapplied) else x
        lead = parts_of(subject)[0]
        if isinstance(x, (list, tuple)):
            shapes = tuple(tuple(item.shape[1:]) for item in x)
            return cls(x[0].shape[0] * lead.multiply_adds(shapes), 0)
        multiply_adds, unread = x.shape[0] * lead.multiply_adds(tuple(x.shape[1:])), 0
        if isinstance(lead, Conv) and not isinstance(lead, (ConvTranspose, SeparableConv)):
            read = elements_read(lead._geometry(tuple(x.shape)))
            unread = x.nbytes - read * x.dtype.itemsize
        return cls(multiply_adds, unread)


def forward_work(
    subject: Layer | Stage, extent: Extent, function: Callable[..., Any], arguments: tuple,
    result: Any,
) -> Work:  # fmt: skip
    """Return the work of a forward call that has just been made."""
    layers = parts_of(subject)
    # the residual of a sum is bound to the function: functools.partial
    inputs = _by_address(arguments, getattr(function, "keywords", {}))
    outputs = _by_address(result)
    if outputs.keys() <= inputs.keys():
        return Work()
    held = [(layer.params, layer.state) for layer in layers]
    moved = inputs | outputs | _by_address(held, layers[0]._saved)
    return Work(
        _of_a_multiply_add(result) * extent.multiply_adds,
        sum(array.nbytes for array in moved.values()) - extent.unread,
    )


def backward_work(subject: Layer | Stage, extent: Extent, given: list[Array], result: Any) -> Work:
    """Return the work of a backward call that has just been made.

    A bias need not be read, nor the weights without dx, which a network's first layer is not asked
    for.
    """
    lead, *others = parts_of(subject)
    inputs = _by_address(given)
    outputs = _by_address(result, lead.grads, [layer.grads for layer in others])
    if outputs.keys() <= inputs.keys():
        return Work()
    params = [array for name, array in lead.params.items() if name != "bias"]
    params += [layer.params for layer in others]
    held = [] if result is None else params
    moved = inputs | outputs | _by_address(held)
    dy = next(arrays_of(given))
    multiply_adds = extent.multiply_adds
    if isinstance(subject, ConvPool):  # each dy meets one window
        multiply_adds = dy.size * prod(lead.params["kernel"].shape[1:])
    directions = (result is not None) + bool(lead.params)
    return Work(
        _of_a_multiply_add(dy) * directions * multiply_adds,
        sum(array.nbytes for array in moved.values()) - extent.unread,
    )


def _of_a_multiply_add(array: Any) -> int:
    """Return the operations of a multiply-add of such numbers: complex ones take four real ones."""
    return 8 if next(arrays_of(array)).dtype.kind == "c" else 2


def arrays_of(value: Any) -> Iterator[Array]:
    """Yield the arrays in a value, a list, a tuple or a dict, of any depth."""
    if isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from arrays_of(item)
    elif hasattr(value, "nbytes") and not isinstance(value, np.generic):
        yield value


def _by_address(*values: Any) -> dict[int, Array]:
    return {_address(array): array for array in arrays_of(values)}


def _address(array: Array) -> int:
    """Return where an array begins: the same for a view of the whole, as Flatten gives."""
    if isinstance(array, np.ndarray):
        return array.__array_interface__["data"][0]
    return array.data.ptr
