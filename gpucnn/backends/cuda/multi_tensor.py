"""One launch over many tensors: the host's side of kernels/multi_tensor.cuh."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..base import Array, Factors, Masters, accumulator
from .kernel import Kernel
from .launch import BLOCK_THREADS, KernelCaller, address_of, ceil_div

CHUNK = 4096  # as in kernels/multi_tensor.cuh
# Gradients that return to the memory pool come back at a few addresses, so few tables recur.
_TABLES_KEPT = 16


class Row(NamedTuple):
    """A tensor and what belongs to it: a TensorEntry of kernels/multi_tensor.cuh."""

    param: Array
    grad: Array
    first_slot: Array | None
    second_slot: Array | None
    master: Array | None
    weight_decay: float
    rate_factor: float

    @property
    def arrays(self) -> tuple[Array | None, ...]:
        return self[:5]


def groups(
    *columns: Sequence[Array], weight_decays: Sequence[float] | None = None,
    rate_factors: Factors = None, masters: Masters = None,
) -> Iterator[tuple[np.dtype, list[Row]]]:  # fmt: skip
    """Sort tensors by their dtype, for a launch handles one; drop the empty.

    ``columns``: parameters, gradients, and up to two slots.
    """
    found = defaultdict(list)
    none = [None] * len(columns[0])
    columns = (*columns, *[none] * (4 - len(columns)), masters or none)
    decays, factors = weight_decays or [0.0] * len(none), rate_factors or [1.0] * len(none)
    for row in map(Row, *columns, decays, factors):
        if row.param.size:
            found[row.param.dtype].append(row)
    yield from found.items()


class MultiTensor(KernelCaller):
    """Launches kernels that take a table of tensors."""

    def launch_rows(self, kernel: Kernel, rows: list[Row], *arguments: Any) -> None:
        """Launch a block for each chunk of these tensors, all of the kernel's dtype.

        Raises:
            ValueError: an array is not contiguous or unlike its parameter; kernels see addresses.
        """
        table, chunks = self._table(rows)
        pointees = [array for row in rows for array in row.arrays if array is not None]
        self.launch(
            kernel, len(chunks), BLOCK_THREADS, table, chunks, *arguments, pointees=pointees
        )

    @cached_property
    def _tables(self) -> OrderedDict[tuple, tuple[Array, Array]]:
        return OrderedDict()

    def _table(self, rows: list[Row]) -> tuple[Array, Array]:
        """Return the device's TensorEntry and Chunk tables."""
        addresses = [tuple(map(_address, row.arrays)) for row in rows]
        sizes = tuple(row.param.size for row in rows)
        numbers = [(row.weight_decay, row.rate_factor) for row in rows]
        _check(rows)
        tables, key = self._tables, (*addresses, sizes, *numbers)
        if key in tables:
            tables.move_to_end(key)
            if self.held is not None:
                self.held.append(tables[key])
            return tables[key]
        entries = np.zeros((len(rows), 8), np.int64)
        entries[:, :5] = np.array(addresses, np.uint64).view(np.int64)
        entries[:, 5] = sizes
        entries[:, 6:] = np.array(numbers, np.float64).view(np.int64)
        tables[key] = self.lasting(entries), self.lasting(_chunks(sizes))
        if len(tables) > _TABLES_KEPT:
            tables.popitem(last=False)
        return tables[key]


def chunk_count(rows: Sequence[Row]) -> int:
    """Return how many blocks ``launch_rows`` launches."""
    return sum(ceil_div(row.param.size, CHUNK) for row in rows)


def _address(array: Array | None) -> int:
    return 0 if array is None else address_of(array)


def _check(rows: list[Row]) -> None:
    dtype = rows[0].param.dtype
    sums = accumulator(dtype)
    for row in rows:
        for array, kind in zip(row.arrays, (dtype, dtype, sums, sums, sums), strict=True):
            if array is not None and (
                array.size != row.param.size or array.dtype != kind or not array.flags.c_contiguous
            ):
                raise ValueError(
                    "optimizer: gradients and slots must be C-contiguous and as large as their"
                    f" parameter, here {row.param.size} numbers of {kind.name}. Received:"
                    f" {array.dtype.name} of shape {array.shape}, strides {array.strides}"
                )


def _chunks(sizes: Sequence[int]) -> np.ndarray:
    """Return (tensor, first element) for each chunk of tensors of these sizes.

    >>> _chunks((2, 5000)).tolist()
    [[0, 0], [1, 0], [1, 4096]]
    """
    begins = [np.arange(0, size, CHUNK, np.int64) for size in sizes]
    tensors = np.repeat(np.arange(len(sizes)), [len(begin) for begin in begins])
    return np.column_stack((tensors, np.concatenate(begins)))
