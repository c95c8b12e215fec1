"""Optimizer steps over all tensors at once (kernels/{optimizer,global_norm}.cu)."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from ..base import Array, accumulator
from .kernel import DTYPE, KernelFamily
from .launch import KernelCaller

SGD = KernelFamily("optimizer.cu", "sgd_update", DTYPE)
ADAM = KernelFamily("optimizer.cu", "adam_update", DTYPE)
SQUARES = KernelFamily("global_norm.cu", "global_norm_squares", DTYPE)
FINISH = KernelFamily("global_norm.cu", "global_norm_finish", DTYPE)

# as in kernels/multi_tensor.cuh
THREADS = 256
CHUNK = 4096
# Gradients that return to the memory pool come back at a few addresses, so few tables recur.
_TABLES_KEPT = 16


class OptimizerOps(KernelCaller):
    """The optimizer steps of ``Backend``."""

    def global_norm(self, arrays: Sequence[Array]) -> Array:
        dtypes = {array.dtype for array in arrays}
        widest = "float64" if np.dtype(np.float64) in dtypes else "float32"
        partials = []
        for dtype, (grads,) in self._by_dtype(arrays):
            table, chunks = self._table(dtype, (grads, grads), [0.0] * len(grads))
            partial = self.xp.empty(len(chunks), np.float64)
            self.launch(
                SQUARES(dtype), len(chunks), THREADS, table, chunks, partial, pointees=grads
            )
            partials.append(partial)
        norm = self.xp.zeros((), widest)
        squares = self.xp.concatenate(partials) if partials else self.xp.zeros(0, np.float64)
        self.launch(FINISH(widest), 1, THREADS, squares, np.int64(squares.size), norm)
        return norm

    def sgd_update(
        self, params: Sequence[Array], grads: Sequence[Array], velocities: Sequence[Array],
        weight_decays: Sequence[float], *, learning_rate: float, momentum: float, nesterov: bool,
        grad_scale: Array | None,
    ) -> None:  # fmt: skip
        for dtype, (*tensors, decays) in self._by_dtype(params, grads, velocities, weight_decays):
            number = accumulator(tensors[0][0].dtype)
            self._launch_table(
                SGD(dtype), dtype, tensors, decays, self._scale(grad_scale, number),
                number.type(learning_rate), number.type(momentum), nesterov,
            )  # fmt: skip

    def adam_update(
        self, params: Sequence[Array], grads: Sequence[Array], m: Sequence[Array],
        v: Sequence[Array], weight_decays: Sequence[float], *, learning_rate: float, beta_1: float,
        beta_2: float, epsilon: float, step: int, decoupled: bool, grad_scale: Array | None,
    ) -> None:  # fmt: skip
        for dtype, (*tensors, decays) in self._by_dtype(params, grads, m, v, weight_decays):
            number = accumulator(tensors[0][0].dtype)
            settings = (
                learning_rate, beta_1, 1 - beta_1, beta_2, 1 - beta_2, epsilon,
                1 - beta_1**step, 1 - beta_2**step,
            )  # fmt: skip
            self._launch_table(
                ADAM(dtype), dtype, tensors, decays, self._scale(grad_scale, number),
                *map(number.type, settings), decoupled,
            )  # fmt: skip

    # ---- tables ------------------------------------------------------------------------------

    @staticmethod
    def _by_dtype(*columns: Sequence) -> Iterator[tuple[str, list[list]]]:
        """Split parallel lists by the dtype of the first: a launch handles one."""
        rows = defaultdict(list)
        for row in zip(*columns, strict=True):
            if row[0].size:
                rows[row[0].dtype.name].append(row)
        for dtype, group in rows.items():
            yield dtype, [list(column) for column in zip(*group, strict=True)]

    def _scale(self, grad_scale: Array | None, number: np.dtype) -> Array | None:
        return None if grad_scale is None else grad_scale.astype(number, copy=False)

    def _launch_table(self, kernel, dtype, tensors, decays, *arguments) -> None:
        table, chunks = self._table(dtype, tensors, decays)
        pointees = [array for column in tensors for array in column]
        self.launch(kernel, len(chunks), THREADS, table, chunks, *arguments, pointees=pointees)

    def _table(
        self, dtype: str, tensors: Sequence[Sequence[Array]], decays: Sequence[float]
    ) -> tuple[Array, Array]:
        """Return the device's TensorEntry and Chunk tables; ``tensors`` are up to four columns."""
        for column in tensors:
            for array in column:
                if not array.flags.c_contiguous:
                    raise ValueError(
                        "optimizer: parameters, gradients and slots must be C-contiguous."
                        f" Received: shape {array.shape}, strides {array.strides}"
                    )
        addresses = [tuple(map(self._address, column)) for column in tensors]
        addresses += [(0,) * len(decays)] * (4 - len(addresses))
        sizes = tuple(array.size for array in tensors[0])
        key = (dtype, tuple(addresses), sizes, tuple(decays))
        cache = self.__dict__.setdefault("_tables", OrderedDict())
        if key in cache:
            cache.move_to_end(key)
            return cache[key]
        entries = np.zeros((len(sizes), 6), np.int64)
        entries[:, :4] = np.array(addresses, np.uint64).T.view(np.int64)
        entries[:, 4] = sizes
        entries[:, 5] = np.array(decays, np.float64).view(np.int64)
        chunks = [(t, begin) for t, size in enumerate(sizes) for begin in range(0, size, CHUNK)]
        cache[key] = self.xp.asarray(entries), self.xp.asarray(np.array(chunks, np.int64))
        if len(cache) > _TABLES_KEPT:
            cache.popitem(last=False)
        return cache[key]

    def _address(self, array: Array) -> int:
        return array.ctypes.data if self.xp is np else array.data.ptr
