"""Predictions over a Dask array, block by block, on threads or on the workers of a cluster."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..arguments import as_int
from ..backends import name_of
from ..backends.base import Array
from ..layers.base import Shape
from ..network import Network
from .arrays import library

if TYPE_CHECKING:
    from dask.array import Array as DaskArray


def predict(model: Network, array: DaskArray, *, batch_size: int = 256) -> DaskArray:
    """Return the model's outputs for a Dask array of samples, as a Dask array: nothing runs yet.

    Each block is given to ``model.predict``, with the same result, and its answer lies where the
    block does, NumPy's or CuPy's. The model is sent to each worker once, as it is when ``compute``
    is called. What a worker did not finish because it died, Dask gives to another one.

    Args:
        model: a built network of one input and one output.
        array: (N, ...), in blocks along the first axis alone, of any sizes, even unknown ones.
        batch_size: how many samples of a block run at once.

    Returns:
        (N, ...) of the model's dtype, in blocks of as many samples.

    Raises:
        ValueError: the model is not built, or the samples do not fit it or lie in several blocks.
        TypeError: it is no such network, or the array is not Dask's.
        ModuleNotFoundError: Dask is not installed.

    Example:
        >>> import dask.array, gpucnn
        >>> model = gpucnn.Sequential([Dense(3, input_shape=(4,))])
        >>> y = predict(model, dask.array.ones((100, 4), chunks=(30, 4)))
        >>> y.chunks, y.dtype.name
        (((30, 30, 30, 10), (3,)), 'float32')
    """
    library("dask")
    from dask import array as da
    from dask import delayed

    owner = "dask.predict"
    if not isinstance(model, Network) or model.takes_many or model.gives_many:
        raise TypeError(
            f"{owner}: model must be a network of one input and one output. Received: {model!r}"
        )
    if not model.built:
        raise ValueError(
            f"{owner}: the model is not built; give its first layer an input_shape, or call"
            f" model.build(input_shape). Received: {model!r}"
        )
    if not isinstance(array, da.Array):
        raise TypeError(
            f"{owner}: array must be a Dask array; model.predict takes NumPy's and CuPy's."
            f" Received: {name_of(array)}"
        )
    shape = model.output_shape(_sample_shape(owner, array))
    return array.map_blocks(
        _predicted,
        model=delayed(model, traverse=False),  # a task of its own, which a worker does once
        batch_size=as_int(owner, "batch_size", batch_size),
        drop_axis=list(range(1, array.ndim)),
        new_axis=list(range(1, 1 + len(shape))),
        chunks=(array.chunks[0], *((size,) for size in shape)),
        dtype=model.dtype,
        meta=np.empty_like(array._meta, model.dtype, shape=(0,) * (1 + len(shape))),
    )


def _sample_shape(owner: str, array: DaskArray) -> Shape:
    """Return the shape of a sample, which must lie in one block."""
    if any(math.isnan(size) for size in array.shape[1:]):
        raise ValueError(
            f"{owner}: the sizes of a sample must be known; array.compute_chunk_sizes() finds them."
            f" Received: array of shape {array.shape}"
        )
    divided = {axis: -1 for axis, sizes in enumerate(array.chunks) if axis and len(sizes) > 1}
    if divided:
        raise ValueError(
            f"{owner}: each sample must lie in one block; use array.rechunk({divided})."
            f" Received: chunks={array.chunks}"
        )
    return array.shape[1:]


def _predicted(block: Array, model: Network, batch_size: int) -> Array:
    if len(block):
        return model.predict(block, batch_size)
    return np.empty_like(block, model.dtype, shape=(0, *model.output_shape(block.shape[1:])))
