"""Programs for backends whose convolutions end in a sum and an activation of any kind.

A program as it is recorded joins what every backend runs as one. What is joined here is one kernel
on a GPU, and on NumPy no less work than its parts:

    convolution, sum, activation     of two of one shape: the second source is the sum's other one
    convolution, activation
    dense layer, ...                 the same
    convolution, max-pool            perhaps with a ReLU
"""

from __future__ import annotations

from dataclasses import replace

from ..backends.base import ACTIVATIONS, FUSED
from ..layers.activation import Pointwise
from .plan import fits, is_as_written, is_max_pool
from .program import Operation, Program


def joined(program: Program) -> Program:
    """Return a program whose convolutions and dense layers take along what alone reads them.

    >>> from gpucnn import Conv2D, Residual
    >>> from gpucnn.network.program import record
    >>> block = Residual([Conv2D(4, 1)], activation="hard_silu", input_shape=(8, 8, 4))
    >>> print(joined(record(block)))
    v3 = conv hard_silu(v0, v0)  # conv2d+residual+activation
    """
    readers, operations = program.readers(), []
    makers: dict[int, Operation] = {}  # by the value: convolutions that may take more along
    for operation in program.operations:
        operation = _taken_along(operation, makers, readers, operations)
        operations.append(operation)
        weighted = operation.kind in ("conv", "dense") and operation.pool is None
        if weighted and operation.activation == "linear":
            makers[operation.result] = operation
    return replace(program, operations=operations)


def _taken_along(
    operation: Operation, makers: dict[int, Operation], readers: dict[int, int],
    operations: list[Operation],
) -> Operation:  # fmt: skip
    """Return an operation, with the convolution before it taken out of ``operations`` if it can."""
    for source in operation.sources:
        maker = makers.get(source)
        if maker is None or readers[source] > 1:
            continue
        name = f"{maker.name}+{operation.name}"
        ending = {"name": name, "result": operation.result}
        if operation.kind == "sum" and operation.alike and len(maker.sources) == 1:
            residual = [other for other in operation.sources if other != source]
            if len(residual) == 1:
                operations.remove(maker)
                ending |= {"activation": operation.activation, "sources": maker.sources + residual}
                return replace(maker, **ending)
        elif _pools(operation, maker):
            operations.remove(maker)
            ending |= {"activation": operation.activation, "pool": operation.geometry}
            return replace(maker, **ending)
        elif _is_activation(operation):
            operations.remove(maker)
            ending |= {"activation": operation.layer.kind, "alpha": operation.layer.alpha}
            return replace(maker, **ending)
    return operation


def _pools(operation: Operation, maker: Operation) -> bool:
    """Return whether an operation is the max-pool of a convolution without a sum."""
    return (
        maker.kind == "conv"
        and len(maker.sources) == 1
        and is_max_pool(operation.layer)
        and fits(operation.layer, maker.layer)
        and operation.activation in FUSED
    )


def _is_activation(operation: Operation) -> bool:
    alone = operation.kind in ("activation", "layer") and operation.activation == "linear"
    return (
        alone and is_as_written(operation.layer, Pointwise) and operation.layer.kind in ACTIVATIONS
    )
