"""Optimizer steps over all tensors at once (kernels/{optimizer,muon,gradient_scale}.cu)."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..base import Array, Masters, Number, accumulator
from .kernel import DTYPE, Kernel, KernelFamily
from .launch import BLOCK_THREADS, KernelCaller, address_of, ceil_div

SGD = KernelFamily("optimizer.cu", "sgd_update", DTYPE)
ADAM = KernelFamily("optimizer.cu", "adam_update", DTYPE)
LOOKAHEAD = KernelFamily("optimizer.cu", "lookahead_update", DTYPE)
MUON_MOMENTUM = KernelFamily("muon.cu", "muon_momentum", DTYPE)
MUON_DIRECTION = KernelFamily("muon.cu", "muon_direction", DTYPE)
NEWTON_SCHULZ = KernelFamily("muon.cu", "newton_schulz", DTYPE)
MUON = KernelFamily("muon.cu", "muon_update", DTYPE)
SQUARES = KernelFamily("global_norm.cu", "global_norm_squares", DTYPE)
GRADIENT_SCALE = KernelFamily("gradient_scale.cu", "gradient_scale", {"float64": DTYPE["float64"]})

CHUNK = 4096  # as in kernels/multi_tensor.cuh
# Gradients that return to the memory pool come back at a few addresses, so few tables recur.
_TABLES_KEPT = 16

Column = Sequence[Array | None]


class Optimizers(KernelCaller):
    """``gradient_scale``, and the updates of the optimizers."""

    def gradient_scale(
        self, grads: Sequence[Array], *, clip_norm: float | None = None,
        loss_scale: Array | None = None, growth_interval: int | None = None,
        skipped: Array | None = None, step: Number = 1, betas: Sequence[float] = (),
    ) -> tuple[Array, ...]:  # fmt: skip
        tables = []
        for dtype, (group,) in _by_dtype(grads):
            tables.append((dtype, group, self._table((group, group), [0.0] * len(group))))
        partial = self.xp.empty(sum(len(chunks) for _, _, (_, chunks) in tables), np.float64)
        begin = 0
        for dtype, group, (table, chunks) in tables:
            end = begin + len(chunks)
            self.launch(
                SQUARES(dtype), len(chunks), BLOCK_THREADS, table, chunks, partial[begin:end],
                pointees=group,
            )  # fmt: skip
            begin = end
        decision = self.xp.empty(4, np.float64)
        beta_1, beta_2 = (*betas, 0.0, 0.0)[:2]
        self.launch(
            GRADIENT_SCALE("float64"), 1, BLOCK_THREADS, partial, np.int64(partial.size),
            np.float64(clip_norm or 0), loss_scale, np.float64(growth_interval or 0), skipped,
            *self._varying(step), np.float64(beta_1), np.float64(beta_2), decision,
        )  # fmt: skip
        # (4,) -> () each
        return tuple(decision[i : i + 1].reshape(()) for i in range(2 + len(betas)))

    def sgd_update(
        self, params: Sequence[Array], grads: Sequence[Array], velocities: Sequence[Array],
        weight_decays: Sequence[float], *, learning_rate: Number, momentum: float, nesterov: bool,
        grad_scale: Array | None, masters: Masters = None,
    ) -> None:  # fmt: skip
        columns = params, grads, velocities, masters or [None] * len(params), weight_decays
        for dtype, (*tensors, masters, decays) in _by_dtype(*columns):
            self._launch_table(
                SGD(dtype), tensors, masters, decays, grad_scale, *self._varying(learning_rate),
                accumulator(dtype).type(momentum), nesterov,
            )  # fmt: skip

    def adam_update(
        self, params: Sequence[Array], grads: Sequence[Array], m: Sequence[Array],
        v: Sequence[Array], weight_decays: Sequence[float], *, learning_rate: Number, beta_1: float,
        beta_2: float, epsilon: float, correction_1: Number, correction_2: Number, decoupled: bool,
        grad_scale: Array | None, masters: Masters = None,
    ) -> None:  # fmt: skip
        columns = params, grads, m, v, masters or [None] * len(params), weight_decays
        settings = beta_1, 1 - beta_1, beta_2, 1 - beta_2, epsilon
        for dtype, (*tensors, masters, decays) in _by_dtype(*columns):
            self._launch_table(
                ADAM(dtype), tensors, masters, decays, grad_scale, *self._varying(learning_rate),
                *map(accumulator(dtype).type, settings), *self._varying(correction_1),
                *self._varying(correction_2), decoupled,
            )  # fmt: skip

    def lookahead_update(
        self, params: Sequence[Array], slow: Sequence[Array], *, share: Number,
        grad_scale: Array | None, masters: Masters = None,
    ) -> None:  # fmt: skip
        for dtype, (values, means, kept) in _by_dtype(
            params, slow, masters or [None] * len(params)
        ):
            self._launch_table(
                LOOKAHEAD(dtype), (values, values, means), kept, [0.0] * len(values), grad_scale,
                *self._varying(share),
            )  # fmt: skip

    def muon_direction(
        self, grads: Sequence[Array], velocities: Sequence[Array], *, momentum: float,
        nesterov: bool, grad_scale: Array | None,
    ) -> list[Array]:  # fmt: skip
        directions = [self.xp.empty_like(grad) for grad in grads]
        for dtype, tensors in _by_dtype(directions, grads, velocities):
            decays = [0.0] * len(tensors[0])
            partial = self.xp.empty(sum(ceil_div(a.size, CHUNK) for a in tensors[0]), np.float64)
            for family in (MUON_MOMENTUM, MUON_DIRECTION):
                self._launch_table(
                    family(dtype), tensors, [], decays, grad_scale,
                    accumulator(dtype).type(momentum), nesterov, partial,
                )  # fmt: skip
        return directions

    def newton_schulz(self, a: Array, b: Array, coefficients: Sequence[float]) -> Array:
        out = self.xp.empty_like(a)
        self.launch_elements(
            NEWTON_SCHULZ(a.dtype), a.size, a, b, *map(accumulator(a.dtype).type, coefficients),
            out, len(a), np.int64(a.size),
        )  # fmt: skip
        return out

    def muon_update(
        self, params: Sequence[Array], steps: Sequence[Array], weight_decays: Sequence[float], *,
        learning_rate: Number, grad_scale: Array | None, masters: Masters = None,
    ) -> None:  # fmt: skip
        columns = params, steps, masters or [None] * len(params), weight_decays
        for dtype, (values, group, kept, decays) in _by_dtype(*columns):
            self._launch_table(
                MUON(dtype), (values, group), kept, decays, grad_scale,
                *self._varying(learning_rate),
            )  # fmt: skip

    def _varying(self, number: Number) -> tuple[np.float64, Array | None]:
        """Return a kernel's two parameters, a number and an address that prevails unless null."""
        placed = isinstance(number, self.xp.ndarray)
        return (np.float64(0), number) if placed else (np.float64(number), None)

    def _launch_table(
        self, kernel: Kernel, tensors: Sequence[Column], masters: Column, decays: Sequence[float],
        *arguments: Any,
    ) -> None:  # fmt: skip
        table, chunks = self._table(tensors, decays, masters)
        pointees = [a for column in (*tensors, masters) for a in column if a is not None]
        self.launch(
            kernel, len(chunks), BLOCK_THREADS, table, chunks, *arguments, pointees=pointees
        )

    @cached_property
    def _tables(self) -> OrderedDict[tuple, tuple[Array, Array]]:
        return OrderedDict()

    def _table(
        self, tensors: Sequence[Column], decays: Sequence[float], masters: Column = ()
    ) -> tuple[Array, Array]:
        """Return the device's TensorEntry and Chunk tables; ``tensors`` are two to four columns.

        Raises:
            ValueError: an array is not contiguous or unlike its parameter; kernels see addresses.
        """
        dtype = tensors[0][0].dtype
        sums = accumulator(dtype)
        sizes = tuple(array.size for array in tensors[0])
        none = (None,) * len(sizes)
        columns = [*tensors, *[none] * (4 - len(tensors)), masters or none]
        for column, kind in zip(columns, (dtype, dtype, sums, sums, sums), strict=True):
            for array, size in zip(column, sizes, strict=True):
                if array is not None and (
                    array.size != size or array.dtype != kind or not array.flags.c_contiguous
                ):
                    raise ValueError(
                        "optimizer: gradients and slots must be C-contiguous and as large as their"
                        f" parameter, here {size} numbers of {kind.name}. Received:"
                        f" {array.dtype.name} of shape {array.shape}, strides {array.strides}"
                    )
        addresses = [tuple(map(_address, column)) for column in columns]
        tables, key = self._tables, (dtype, *addresses, sizes, tuple(decays))
        if key in tables:
            tables.move_to_end(key)
            if self.held is not None:
                self.held.append(tables[key])
            return tables[key]
        entries = np.zeros((len(sizes), 7), np.int64)
        entries[:, :5] = np.array(addresses, np.uint64).T.view(np.int64)
        entries[:, 5] = sizes
        entries[:, 6] = np.array(decays, np.float64).view(np.int64)
        tables[key] = self.lasting(entries), self.lasting(_chunks(sizes))
        if len(tables) > _TABLES_KEPT:
            tables.popitem(last=False)
        return tables[key]


def _address(array: Array | None) -> int:
    return 0 if array is None else address_of(array)


def _by_dtype(*columns: Sequence) -> Iterator[tuple[np.dtype, list[list]]]:
    """Split parallel lists by the dtype of the first, for a launch handles one; drop the empty."""
    rows = defaultdict(list)
    for row in zip(*columns, strict=True):
        if row[0].size:
            rows[row[0].dtype].append(row)
    for dtype, group in rows.items():
        yield dtype, [list(column) for column in zip(*group, strict=True)]


def _chunks(sizes: Sequence[int]) -> np.ndarray:
    """Return (tensor, first element) for each chunk of tensors of these sizes.

    >>> _chunks((2, 5000)).tolist()
    [[0, 0], [1, 0], [1, 4096]]
    """
    begins = [np.arange(0, size, CHUNK, np.int64) for size in sizes]
    tensors = np.repeat(np.arange(len(sizes)), [len(begin) for begin in begins])
    return np.column_stack((tensors, np.concatenate(begins)))
