"""Optimizer steps over all tensors at once (kernels/{optimizer,global_norm}.cu)."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..base import Array, accumulator
from .kernel import DTYPE, Kernel, KernelFamily
from .launch import BLOCK_THREADS, KernelCaller, address_of

SGD = KernelFamily("optimizer.cu", "sgd_update", DTYPE)
ADAM = KernelFamily("optimizer.cu", "adam_update", DTYPE)
SQUARES = KernelFamily("global_norm.cu", "global_norm_squares", DTYPE)
FINISH = KernelFamily("global_norm.cu", "global_norm_finish", DTYPE)

CHUNK = 4096  # as in kernels/multi_tensor.cuh
# Gradients that return to the memory pool come back at a few addresses, so few tables recur.
_TABLES_KEPT = 16

Columns = Sequence[Sequence[Array]]


class Optimizers(KernelCaller):
    """``global_norm``, ``sgd_update`` and ``adam_update``."""

    def global_norm(self, arrays: Sequence[Array]) -> Array:
        tables = []
        for dtype, (grads,) in _by_dtype(arrays):
            tables.append((dtype, grads, self._table((grads, grads), [0.0] * len(grads))))
        partial = self.xp.empty(sum(len(chunks) for _, _, (_, chunks) in tables), np.float64)
        begin = 0
        for dtype, grads, (table, chunks) in tables:
            end = begin + len(chunks)
            self.launch(
                SQUARES(dtype), len(chunks), BLOCK_THREADS, table, chunks, partial[begin:end],
                pointees=grads,
            )  # fmt: skip
            begin = end
        double = any(array.dtype == np.float64 for array in arrays)
        norm = self.xp.empty((), np.float64 if double else np.float32)
        self.launch(FINISH(norm.dtype), 1, BLOCK_THREADS, partial, np.int64(partial.size), norm)
        return norm

    def sgd_update(
        self, params: Sequence[Array], grads: Sequence[Array], velocities: Sequence[Array],
        weight_decays: Sequence[float], *, learning_rate: float, momentum: float, nesterov: bool,
        grad_scale: Array | None,
    ) -> None:  # fmt: skip
        for dtype, (*tensors, decays) in _by_dtype(params, grads, velocities, weight_decays):
            number = accumulator(dtype)
            self._launch_table(
                SGD(dtype), tensors, decays, _scale(grad_scale, number),
                number.type(learning_rate), number.type(momentum), nesterov,
            )  # fmt: skip

    def adam_update(
        self, params: Sequence[Array], grads: Sequence[Array], m: Sequence[Array],
        v: Sequence[Array], weight_decays: Sequence[float], *, learning_rate: float, beta_1: float,
        beta_2: float, epsilon: float, step: int, decoupled: bool, grad_scale: Array | None,
    ) -> None:  # fmt: skip
        for dtype, (*tensors, decays) in _by_dtype(params, grads, m, v, weight_decays):
            number = accumulator(dtype)
            settings = (
                learning_rate, beta_1, 1 - beta_1, beta_2, 1 - beta_2, epsilon,
                1 - beta_1**step, 1 - beta_2**step,
            )  # fmt: skip
            self._launch_table(
                ADAM(dtype), tensors, decays, _scale(grad_scale, number),
                *map(number.type, settings), decoupled,
            )  # fmt: skip

    def _launch_table(
        self, kernel: Kernel, tensors: Columns, decays: Sequence[float], *arguments: Any
    ) -> None:
        table, chunks = self._table(tensors, decays)
        pointees = [array for column in tensors for array in column]
        self.launch(
            kernel, len(chunks), BLOCK_THREADS, table, chunks, *arguments, pointees=pointees
        )

    @cached_property
    def _tables(self) -> OrderedDict[tuple, tuple[Array, Array]]:
        return OrderedDict()

    def _table(self, tensors: Columns, decays: Sequence[float]) -> tuple[Array, Array]:
        """Return the device's TensorEntry and Chunk tables; ``tensors`` are two to four columns.

        Raises:
            ValueError: an array is not contiguous or unlike its parameter; kernels see addresses.
        """
        dtype = tensors[0][0].dtype
        kinds = (dtype, dtype, accumulator(dtype), accumulator(dtype))
        sizes = tuple(array.size for array in tensors[0])
        for column, kind in zip(tensors, kinds, strict=False):
            for array, size in zip(column, sizes, strict=True):
                if array.size != size or array.dtype != kind or not array.flags.c_contiguous:
                    raise ValueError(
                        "optimizer: gradients and slots must be C-contiguous and as large as their"
                        f" parameter, here {size} numbers of {kind.name}. Received:"
                        f" {array.dtype.name} of shape {array.shape}, strides {array.strides}"
                    )
        addresses = [tuple(map(address_of, column)) for column in tensors]
        addresses += [(0,) * len(sizes)] * (4 - len(addresses))
        tables, key = self._tables, (dtype, *addresses, sizes, tuple(decays))
        if key in tables:
            tables.move_to_end(key)
            if self.held is not None:
                self.held.append(tables[key])
            return tables[key]
        entries = np.zeros((len(sizes), 6), np.int64)
        entries[:, :4] = np.array(addresses, np.uint64).T.view(np.int64)
        entries[:, 4] = sizes
        entries[:, 5] = np.array(decays, np.float64).view(np.int64)
        tables[key] = self.lasting(entries), self.lasting(_chunks(sizes))
        if len(tables) > _TABLES_KEPT:
            tables.popitem(last=False)
        return tables[key]


def _by_dtype(*columns: Sequence) -> Iterator[tuple[np.dtype, list[list]]]:
    """Split parallel lists by the dtype of the first, for a launch handles one; drop the empty."""
    rows = defaultdict(list)
    for row in zip(*columns, strict=True):
        if row[0].size:
            rows[row[0].dtype].append(row)
    for dtype, group in rows.items():
        yield dtype, [list(column) for column in zip(*group, strict=True)]


def _scale(grad_scale: Array | None, number: np.dtype) -> Array | None:
    return None if grad_scale is None else grad_scale.astype(number, copy=False)


def _chunks(sizes: Sequence[int]) -> np.ndarray:
    """Return (tensor, first element) for each chunk of tensors of these sizes.

    >>> _chunks((2, 5000)).tolist()
    [[0, 0], [1, 0], [1, 4096]]
    """
    begins = [np.arange(0, size, CHUNK, np.int64) for size in sizes]
    tensors = np.repeat(np.arange(len(sizes)), [len(begin) for begin in begins])
    return np.column_stack((tensors, np.concatenate(begins)))
