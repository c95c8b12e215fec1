"""Softmax and the losses on the GPU (kernels/{softmax*,pointwise_loss,loss_means}.cu)."""

from __future__ import annotations

import numpy as np

from ..base import POINTWISE_LOSSES, Array, accumulator
from .kernel import DTYPE, Axis, KernelFamily
from .launch import BLOCK_THREADS, KernelCaller, ceil_div

LONGEST_ROW_OF_A_WARP = 256  # classes; longer rows take a block each

_ROW_THREADS: Axis = {
    32: ("warp_rows", {"ROW_THREADS": 32}),
    BLOCK_THREADS: ("block_rows", {"ROW_THREADS": BLOCK_THREADS}),
}
_ROWS: Axis = {
    32: ("warp_rows", {"ROW_THREADS": 32, "HOLDS": 0}),
    "held": ("held_rows", {"ROW_THREADS": 32, "HOLDS": 1}),
    BLOCK_THREADS: ("block_rows", {"ROW_THREADS": BLOCK_THREADS, "HOLDS": 0}),
}
_TARGET: Axis = {
    "int32": ("i32", {"TARGET": "I32"}),
    "int64": ("i64", {"TARGET": "I64"}),
    "probabilities": ("probabilities", {"TARGET": "Element"}),
}
# bce_logits -> struct BceLogits of kernels/pointwise_loss.cu
_LOSS: Axis = {
    kind: (kind, {"LOSS": kind.title().replace("_", "")}) for kind in sorted(POINTWISE_LOSSES)
}
# by whether it is the logarithm
FORWARD = {
    False: KernelFamily("softmax.cu", "softmax_forward", _ROW_THREADS, DTYPE),
    True: KernelFamily("softmax.cu", "log_softmax_forward", _ROW_THREADS, DTYPE),
}
BACKWARD = {
    False: KernelFamily("softmax.cu", "softmax_backward", _ROW_THREADS, DTYPE),
    True: KernelFamily("softmax.cu", "log_softmax_backward", _ROW_THREADS, DTYPE),
}
CROSS_ENTROPY = KernelFamily(
    "softmax_cross_entropy.cu", "softmax_cross_entropy", _TARGET, _ROWS, DTYPE
)
POINTWISE = KernelFamily("pointwise_loss.cu", "pointwise_loss", _LOSS, DTYPE)
_SUMS: Axis = {name: DTYPE[name] for name in ("float32", "float64")}
LOSS_SUMS = KernelFamily("loss_means.cu", "loss_sums", _SUMS)
LOSS_MEANS = KernelFamily("loss_means.cu", "loss_means", _SUMS)
LOSSES_OF_A_BLOCK = 2**13  # more are shared by several


def _row_threads(classes: int) -> int:
    return 32 if classes <= LONGEST_ROW_OF_A_WARP else BLOCK_THREADS


def longest_held(itemsize: int) -> int:
    """Return the classes of the longest row whose logits a warp holds in registers."""
    return 32 * (16 if itemsize == 8 else 32)


class SoftmaxAndLosses(KernelCaller):
    """Softmax, its cross-entropy, the losses of ``POINTWISE_LOSSES``, and their means."""

    def softmax_forward(self, x: Array, log: bool = False) -> Array:
        y = self.xp.empty_like(x)
        self._launch_rows(FORWARD[log], (), x, x, y)
        return y

    def softmax_backward(self, dy: Array, y: Array, log: bool = False) -> Array:
        dx = self.xp.empty_like(dy)
        self._launch_rows(BACKWARD[log], (), dy, dy, y, dx)
        return dx

    def softmax_cross_entropy(
        self, logits: Array, targets: Array, label_smoothing: float, scale: float,
        loss_scale: Array | None = None,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        sums = accumulator(logits.dtype)
        losses = self.xp.empty(logits.shape[:1], sums)
        hits = self.xp.empty(losses.shape, bool)
        dlogits = self.xp.empty_like(logits)
        kind = "probabilities" if targets.ndim == 2 else targets.dtype
        held = LONGEST_ROW_OF_A_WARP < logits.shape[1] <= longest_held(logits.dtype.itemsize)
        self._launch_rows(
            CROSS_ENTROPY, (kind,), logits, logits, targets, sums.type(label_smoothing),
            sums.type(scale), loss_scale, losses, hits, dlogits, held=held,
        )  # fmt: skip
        return losses, dlogits, hits

    def pointwise_loss(
        self, prediction: Array, target: Array, kind: str, scale: float,
        loss_scale: Array | None = None,
    ) -> tuple[Array, Array]:  # fmt: skip
        sums = accumulator(prediction.dtype)
        losses = self.xp.empty(prediction.shape, sums)
        gradient = self.xp.empty_like(prediction)
        self.launch_packs(
            POINTWISE(kind, prediction.dtype), prediction, prediction, target,
            sums.type(scale), loss_scale, losses, gradient,
        )  # fmt: skip
        return losses, gradient

    def loss_means(self, losses: Array, hits: Array | None = None) -> tuple[Array, Array | None]:
        count, dtype = losses.size, losses.dtype
        mean, share = self.xp.empty((), dtype), None if hits is None else self.xp.empty((), float)
        blocks = min(ceil_div(count, LOSSES_OF_A_BLOCK), LOSSES_OF_A_BLOCK)
        per_block = ceil_div(count, blocks)
        blocks = ceil_div(count, per_block)
        partial = self.xp.empty((2, blocks), float) if blocks > 1 else None
        self.launch(
            LOSS_SUMS(dtype), blocks, BLOCK_THREADS, losses, hits, partial, mean, share,
            np.int64(count), per_block,
        )  # fmt: skip
        if blocks > 1:
            self.launch(
                LOSS_MEANS(dtype), 1, BLOCK_THREADS, partial, mean, share, np.int64(count), blocks
            )
        return mean, share

    def _launch_rows(
        self, family: KernelFamily, choice: tuple, matrix: Array, *arguments: object,
        held: bool = False,
    ) -> None:  # fmt: skip
        """Launch ``_row_threads`` threads for each row of ``matrix`` (rows, classes), or a warp."""
        rows, classes = matrix.shape
        threads = 32 if held else _row_threads(classes)
        kernel = family(*choice, "held" if held else threads, matrix.dtype)
        blocks = ceil_div(rows * threads, BLOCK_THREADS)
        self.launch(kernel, blocks, BLOCK_THREADS, *arguments, rows, classes)
