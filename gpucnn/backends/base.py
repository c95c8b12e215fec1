"""The operations of a backend: names, shapes and meaning. NumPy and CUDA implement this page.

An ``Array`` is the backend's own kind (``numpy.ndarray`` or ``cupy.ndarray``). Inputs have been
checked by ``gpucnn.functional``: one floating dtype, shapes that fit the record, and ``arranged``:
C-contiguous, or as the backend itself lays activations out. An array that comes out lies in one of
these ways too; whatever its strides, its shape and values are those that the text says.
Every operation returns new arrays unless its text says "in place", and is deterministic: the same
inputs give the same bits. Sums are accumulated in float32 for float16, bfloat16 and float32 and in
float64 for float64; ``Accum`` below is that dtype.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from ..changes import Changes
from ..extras import package
from ..shapes import ConvShape, NormShape, PoolShape
from .transfers import Transfers

if TYPE_CHECKING:
    from ..network.program import Program
    from ..step.memory import Piece

T = TypeVar("T")

Array = Any
# Differs from step to step: by value, or a 0-d float64 array on the device (see gpucnn.varying).
Number = Any
Masters = Sequence[Array | None] | None
Factors = Sequence[float] | None

FLOATS = ("float16", "bfloat16", "float32", "float64")

# Activations whose derivative is a function of their output, so that the input need not be kept.
FROM_OUTPUT = frozenset(
    {"relu", "relu6", "clipped_relu", "leaky_relu", "elu", "selu", "sigmoid", "tanh"}
)
FROM_INPUT = frozenset(
    {"softplus", "softsign", "gelu", "gelu_tanh", "silu", "mish", "hard_sigmoid", "hard_silu"}
)
ACTIVATIONS = FROM_OUTPUT | FROM_INPUT
# Those of two slopes, which one bit of the output tells apart: see ``bend``.
MASKABLE = frozenset({"relu", "relu6", "clipped_relu", "leaky_relu"})
# Of "selu", for its fixed point of mean 0 and variance 1: Klambauer et al. 2017, equation 14.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946
# What a sum or a max-pool can do to its output on the way to memory, and every algorithm for a
# convolution.
FUSED = ("linear", "relu")
NORM_FUSED = (*FUSED, "relu6")  # a batch norm

# How exactly a convolution is computed. "strict": every product and sum in Accum, in any algorithm
# whose error has a bound of its own, Winograd's too. "exact": by those alone that are no less exact
# than a matrix product over the windows' columns. The others permit for float32 what "strict" does,
# and more: "tf32", products of numbers rounded to TF32, which has 10 bits behind the point, to
# nearest with ties away from zero; "fp32x3", three such products of the numbers' large and small
# parts, whose error is that of float32. A backend without them, and any other dtype, is "strict".
MATH = ("strict", "exact", "tf32", "fp32x3")

POINTWISE_LOSSES = frozenset({"mse", "mae", "huber", "bce_logits"})


def accumulator(dtype: Any) -> np.dtype:
    """The dtype that carries sums: float32, but of float64 and of complex numbers their own."""
    dtype = np.dtype(dtype)
    return dtype if dtype.kind == "c" or dtype == np.float64 else np.dtype(np.float32)


def bend(kind: str, alpha: float) -> tuple[float, float | None]:
    """Return (slope, ceiling) of a kind of ``MASKABLE``: below 0 f(x) is slope * x.

    Above it is x, up to the ceiling, where there is one. The bit is set where 0 < y < ceiling.

    >>> bend("relu6", 0.0), bend("leaky_relu", 0.25)
    ((0.0, 6.0), (0.25, None))
    """
    ceiling = {"relu6": 6.0, "clipped_relu": alpha}.get(kind)
    return (alpha if kind == "leaky_relu" else 0.0), ceiling


def bfloat16() -> np.dtype:
    """Return NumPy's bfloat16, which the package ml_dtypes brings."""
    return np.dtype(package("ml_dtypes", "bfloat16", "bfloat16 needs").bfloat16)


def pool_activates(pool: PoolShape) -> bool:
    """Return whether an activation of ``FUSED`` may as well come behind a pooling as before it.

    Both are monotonic. But of a window without any input, as a dilated one may be, the extreme is
    an infinity.
    """
    return pool.mode in ("max", "min") and set(pool.dilation) == {1}


class NormOnLoad(NamedTuple):
    """A convolution's input x is to be read as f(batch norm of x), rounded as memory would hold it.

    That is what ``Backend.batch_norm_infer`` makes of x: the bits are the same.

    Attributes:
        gamma, beta: (C,), as x.
        mean, var: (C,), in Accum.
        epsilon: added to var.
        activation: f, of ``NORM_FUSED``.
    """

    gamma: Array
    beta: Array
    mean: Array
    var: Array
    epsilon: float
    activation: str


class Backend(ABC):
    """One way to run every operation. ``xp`` is the array module whose arrays it takes."""

    name: str
    xp: ModuleType
    # Where no other kernel writes a mask of one bit a number, it takes a pass of its own over the
    # map (see gpucnn/network/masks.py). From how many bytes on that is worth it; and whether it is
    # behind the sum of a batch norm and a residual, which takes a pass on the way back, too.
    least_masked: int
    masks_norms: bool

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by name: what unpickles it, a Dask worker say, has a backend of its own."""
        from . import get_backend

        return get_backend, (self.name,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Backend:
        return self

    # ---- arrays ------------------------------------------------------------------------------

    @abstractmethod
    def owns(self, array: Any) -> bool:
        """Return whether ``array`` is of this backend's kind."""

    @abstractmethod
    def asarray(self, array: Any, dtype: Any = None) -> Array:
        """Bring an array of any backend (or anything array-like) to this one, C-contiguous."""

    def arranged(self, array: Array) -> Array:
        """Return the array, or a copy, as the operations take it: here C-contiguous."""
        contiguous = array.flags.c_contiguous  # 0-d arrays, too, which must stay so
        return array if contiguous else self.xp.ascontiguousarray(array)

    @abstractmethod
    def to_numpy(self, array: Array) -> np.ndarray:
        """Copy to the host, C-contiguous; with ``synchronize`` all that waits for the device."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all work that was started is done."""

    def free_memory(self) -> int:
        """Return about how many bytes new arrays may take; here of the host's memory."""
        try:
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):  # Windows and macOS do not say
            return 2**33

    def transfers(self) -> Transfers:
        """Return a new stream of copies between the host and the current device."""
        return Transfers()

    def running(self) -> AbstractContextManager[None]:
        """Return a context for a run of many calls, as a training is one."""
        return nullcontext()

    # ---- memory and recording: what gpucnn.step builds on ------------------------------------

    @property
    def captures(self) -> bool:
        """Whether ``capture`` records what is launched, to launch it again as one."""
        return False

    @abstractmethod
    def memory(self, size: int) -> tuple[int, Any]:
        """Return the address of so many fresh bytes, and the object that owns them."""

    def allocating(self, allocate: Callable[[int], Piece]) -> AbstractContextManager[None]:
        """Return a context in which new arrays, large ones at least, lie in ``allocate``'s pieces.

        An array refers to its piece for as long as it, or a view of it, is in use.
        """
        return nullcontext()

    def capture(self, function: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """Call a function, but write down what it launches in place of running that.

        -> what the function returned, whose arrays have no contents yet, and a function that runs
        all of it. Whatever cannot be written down, waiting for the device say, raises.
        """
        raise NotImplementedError(f"{self.name}: nothing to capture, calls have done their work")

    def write(self, values: np.ndarray, target: Array) -> None:
        """Copy a few numbers of the host to an array, in turn with the work, without waiting."""
        target[...] = values

    def bind(
        self, program: Program, shapes: tuple[tuple[int, ...], ...], dtype: np.dtype,
        blas_threads: int = 1,
    ) -> Callable[[Sequence[Array]], list[Array]]:  # fmt: skip
        """Return a function that runs a frozen network on inputs of these shapes and this dtype.

        It need not be fit for two threads at a time. By default it runs one operation after the
        other. ``blas_threads`` is for a backend that has a BLAS.
        """
        return program

    # ---- convolution (a dense layer is a 1x1 convolution of a 1-pixel map) -------------------

    @abstractmethod
    def conv_fprop(
        self, x: Array, w: Array, b: Array | None, shape: ConvShape,
        activation: str = "linear", math: str = "strict", alpha: float = 0.0,
        residual: Array | None = None, out_dtype: str | None = None,
        on_load: NormOnLoad | None = None,
    ) -> Array:  # fmt: skip
        """y[n,p,q,k] = b[k] + sum_rsc x[n, p*stride - pad + r*dil, ..., c] w[k,r,s,c]: y_shape.

        ``residual`` (y_shape), if there is one, is added to that, and ``activation``, "linear" or a
        kind of ``ACTIVATIONS``, with its ``alpha``, is applied: on the way to memory, where a
        backend has a kernel. ``math`` is one of ``MATH``, here and in the other directions.
        With an ``out_dtype``, "float32" where x has 16 bits, y is of it: the sums are not rounded.
        With ``on_load``, x is read through a batch norm, as in ``conv_wgrad``.
        """

    def conv_fprop_masked(
        self, x: Array, w: Array, b: Array | None, shape: ConvShape, activation: str = "relu",
        math: str = "strict", alpha: float = 0.0, residual: Array | None = None,
        on_load: NormOnLoad | None = None,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        """``conv_fprop`` with an activation of ``MASKABLE`` -> y and its ``activation_mask``.

        None in place of the mask where it would cost more time than it saves.
        """
        y = self.conv_fprop(x, w, b, shape, activation, math, alpha, residual, on_load=on_load)
        pays = y.nbytes >= self.least_masked
        return y, self.activation_mask(y, activation, alpha) if pays else None

    @abstractmethod
    def conv_dgrad(
        self, dy: Array, w: Array, b: Array | None, shape: ConvShape, math: str = "strict",
        residual: Array | None = None,
    ) -> Array:  # fmt: skip
        """The transpose of fprop in x: dy (y_shape) -> dx (x_shape).

        With ``b`` (C,), a bias for each channel of dx is added: a transposed convolution's output.
        ``residual`` (x_shape), if there is one, is added as well: what others that read x have
        given for its gradient. On the way to memory, where a backend has a kernel.
        """

    def conv_dgrad_through(
        self, dy: Array, w: Array, shape: ConvShape, x: Array, kind: str, alpha: float,
        math: str = "strict",
    ) -> Array:  # fmt: skip
        """``conv_dgrad`` times the derivative of the activation that gave the input, x.

        The gradient of that one's own input, then: in one pass, where a backend has a kernel for a
        kind of ``MASKABLE``. ``kind`` is of ``FROM_OUTPUT``.
        """
        return self.activation_backward(self.conv_dgrad(dy, w, None, shape, math), x, kind, alpha)

    @abstractmethod
    def conv_wgrad(
        self, x: Array, dy: Array, shape: ConvShape, math: str = "strict",
        on_load: NormOnLoad | None = None,
    ) -> Array:  # fmt: skip
        """The transpose of fprop in w: x (x_shape), dy (y_shape) -> dw (w_shape)."""

    def norms_on_load(self, shape: ConvShape, dtype: Any, math: str) -> bool:
        """Return whether a norm in front of this convolution takes less time with ``on_load``.

        In training: forward and for the filters' gradient together, beside the norm's own pass, of
        which the output is kept. Here never.
        """
        return False

    def _read(self, x: Array, on_load: NormOnLoad | None, conv: ConvShape) -> Array:
        """Return what a convolution takes for x."""
        if on_load is None:
            return x
        *norm, activation = on_load
        shape = NormShape.of(conv.x_shape, channels_last=conv.channels_last)
        return self.batch_norm_infer(x, *norm, shape, activation)

    @abstractmethod
    def bias_grad(self, dy: Array, shape: NormShape) -> Array:
        """Sum of dy over all but the channels: -> db (C,)."""

    @abstractmethod
    def rounded(self, x: Array, dtype: np.dtype) -> Array:
        """x, of float32, in a dtype of 16 bits: to nearest, ties to even."""

    # ---- pooling -----------------------------------------------------------------------------

    @abstractmethod
    def pool_forward(
        self, x: Array, shape: PoolShape, with_index: bool = True, activation: str = "linear"
    ) -> tuple[Array, Array | None]:
        """Pool x (x_shape) -> y (y_shape), index (y_shape, ``shape.index_dtype``).

        ``index`` is the flat place in the window, ((t*R)+r)*S+s, of a maximum or minimum: of
        several equal ones the first; a NaN wins. ``shape.taps`` marks a window without any input,
        whose maximum is -inf (minimum +inf) and whose average and sum are 0. None for averages and
        sums, and where ``with_index`` is False. An average that counts padding divides by the taps
        that fall on the input or its padding (not beyond, where ceil mode lets a window stick out).
        ``activation``, one of ``FUSED``, is applied to a maximum or minimum; behind "relu" the
        index of a y that is not above 0 is ``shape.taps``, so that ``pool_backward`` leaves it out.
        """

    @abstractmethod
    def pool_backward(self, dy: Array, index: Array | None, shape: PoolShape) -> Array:
        """dy (y_shape) -> dx (x_shape), gathered from the windows over it in a fixed order."""

    # ---- convolution and the pooling behind it: in one pass, where a backend has a kernel ------

    def conv_pool_forward(
        self, x: Array, w: Array, b: Array | None, conv: ConvShape, pool: PoolShape,
        activation: str = "linear", with_index: bool = True, math: str = "strict",
    ) -> tuple[Array, Array | None]:  # fmt: skip
        """``conv_fprop``, then ``pool_forward`` of its output -> y, index (pool.y_shape).

        Where ``pool_activates``, ``index`` is that of ``pool_forward`` with the activation, and
        ``pool_backward`` the gradient of both.
        """
        before, behind = activation, "linear"
        if pool_activates(pool):
            before, behind = behind, before
        y = self.conv_fprop(x, w, b, conv, before, math)
        return self.pool_forward(y, pool, with_index, behind)

    def conv_pool_backward(
        self, dy: Array, y: Array, index: Array | None, x: Array, conv: ConvShape,
        pool: PoolShape, activation: str = "linear", math: str = "strict",
    ) -> tuple[Array, Array]:  # fmt: skip
        """The gradients of the parameters: dy, y, index (pool.y_shape), x -> dw, db (K,).

        x's, which the first layer of a network does without, is ``conv_dgrad`` of
        ``pool_backward``, of ``activation_backward`` unless ``pool_activates``.
        """
        if activation != "linear" and not pool_activates(pool):
            dy = self.activation_backward(dy, y, activation, 0.0)
        dz = self.pool_backward(dy, index, pool)
        return self.conv_wgrad(x, dz, conv, math), self.bias_grad(dz, conv.norm_shape)

    # ---- layout ------------------------------------------------------------------------------

    @abstractmethod
    def change_layout(self, x: Array) -> Array:
        """x (N, A, B) -> (N, B, A): channels last to first and back; any dtype of 1 to 16 bytes."""

    # ---- activations and softmax -------------------------------------------------------------

    @abstractmethod
    def activation_forward(self, x: Array, kind: str, alpha: float) -> Array:
        """y = f(x) for a kind of ``ACTIVATIONS``.

        ``alpha`` >= 0 is leaky_relu's slope, elu's scale, or clipped_relu's ceiling, a number of
        x's dtype.
        """

    @abstractmethod
    def activation_backward(self, dy: Array, saved: Array, kind: str, alpha: float) -> Array:
        """dx = dy * f'; ``saved`` is y for a kind of ``FROM_OUTPUT``, else x."""

    @abstractmethod
    def activation_masked(
        self, x: Array, kind: str, alpha: float, residual: Array | None = None
    ) -> tuple[Array, Array]:
        """y = f(x + residual) for a kind of ``MASKABLE``, and its mask, one bit a number.

        The mask is uint8 (ceil(size / 8),). Bit i of byte j is that of element 8j + i, in the order
        in which y lies in memory, and 0 beyond the last.
        """

    @abstractmethod
    def activation_mask(self, y: Array, kind: str, alpha: float) -> Array:
        """-> the mask of ``activation_masked`` for its output."""

    @abstractmethod
    def mask_backward(
        self, dy: Array, mask: Array, axes: tuple[int, ...], slope: float, scale: float
    ) -> Array:
        """dx = scale * dy where the bit is set, else slope * dy, and 0 for a slope of 0.

        ``axes`` is how the axes of the array that the mask is of lie in memory, the outermost
        first; dx lies so, too.
        """

    @abstractmethod
    def add(self, a: Array, b: Array, activation: str = "linear") -> Array:
        """y = f(a + b) for arrays of one shape, with an ``activation`` of ``FUSED``."""

    @abstractmethod
    def prelu_forward(self, x: Array, slope: Array, shape: NormShape) -> Array:
        """y = x where x > 0, else slope[c] * x; slope is (C,)."""

    @abstractmethod
    def prelu_backward(
        self, dy: Array, x: Array, slope: Array, shape: NormShape
    ) -> tuple[Array, Array]:
        """-> dx (as x), dslope (C,)."""

    @abstractmethod
    def softmax_forward(self, x: Array, log: bool = False) -> Array:
        """Softmax (or its logarithm) of each row of x (rows, classes)."""

    @abstractmethod
    def softmax_backward(self, dy: Array, y: Array, log: bool = False) -> Array:
        """dx = y * (dy - sum(dy * y)) for each row; for the logarithm dy - exp(y) * sum(dy)."""

    # ---- losses ------------------------------------------------------------------------------

    @abstractmethod
    def softmax_cross_entropy(
        self, logits: Array, targets: Array, label_smoothing: float, scale: float,
        loss_scale: Array | None = None,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """Cross-entropy of softmax(logits), forward and backward in one pass.

        logits (rows, classes); targets int32 or int64 (rows,) of classes, or floating (rows,
        classes) of probabilities; with smoothing e they become (1 - e) * target + e / classes.
        -> losses (rows,) in Accum, dlogits = scale * (softmax - target) as logits, and hits (rows,)
        bool: whether the largest logit, of equal ones the first, is of the target's class. A label
        outside [0, classes) gives a NaN loss and NaN gradient for its row: a device cannot raise.
        Of ``loss_scale``, float64, the first number multiplies dlogits too (``gradient_scale``).
        """

    @abstractmethod
    def pointwise_loss(
        self, prediction: Array, target: Array, kind: str, scale: float,
        loss_scale: Array | None = None,
    ) -> tuple[Array, Array]:  # fmt: skip
        """One of ``POINTWISE_LOSSES``, elementwise: -> losses in Accum, scale * dloss/dprediction.

        With d = prediction - target: mse d^2; mae |d|; huber d^2/2 for |d| <= 1, else |d| - 1/2;
        bce_logits max(z,0) - z*t + log(1 + exp(-|z|)), the cross-entropy of sigmoid(z).
        ``loss_scale`` as in ``softmax_cross_entropy``.
        """

    @abstractmethod
    def loss_means(self, losses: Array, hits: Array | None = None) -> tuple[Array, Array | None]:
        """The means of a loss's ``losses``, in their dtype, and of its bool ``hits``, in float64.

        Each is a 0-d array; there is one number of each at least.
        """

    # ---- normalisation -----------------------------------------------------------------------

    @abstractmethod
    def batch_norm_train(
        self, x: Array, gamma: Array, beta: Array, epsilon: float, shape: NormShape,
        activation: str = "linear", residual: Array | None = None,
        moving: tuple[Array, Array] | None = None, momentum: float = 0.0, applies: bool = True,
    ) -> tuple[Array | None, Array, Array]:  # fmt: skip
        """Normalise by the batch's own statistics: -> y, mean (C,), var (C,), both in Accum.

        ``var`` is the biased variance, the mean of (x - mean)^2, right also where |mean| is large
        beside its root: by a second pass over x, or by one that shows that none is needed.
        ``moving``, a mean and a variance in Accum, follow those of a batch that is not empty, in
        place: moving += (1 - momentum) * (batch - moving). y is None unless the norm ``applies``
        its statistics, which otherwise a convolution does on load.
        """

    @abstractmethod
    def batch_norm_infer(
        self, x: Array, gamma: Array, beta: Array, mean: Array, var: Array, epsilon: float,
        shape: NormShape, activation: str = "linear", residual: Array | None = None,
    ) -> Array:  # fmt: skip
        """y = f(gamma * (x - mean) / sqrt(var + epsilon) + beta + residual), mean, var in Accum.

        f is ``activation``, of ``NORM_FUSED``; ``residual``, of x's shape, is left out where None.
        """

    @abstractmethod
    def batch_norm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, epsilon: float,
        training: bool, shape: NormShape, activation: str = "linear", beta: Array | None = None,
        y: Array | None = None,
    ) -> tuple[Array, Array, Array, Array | None]:  # fmt: skip
        """-> dx, dgamma (C,), dbeta (C,), the last two in gamma's dtype, and dresidual.

        In training mean and var are functions of x; otherwise they are constants. Where "relu" or
        "relu6" was applied, one of two is given: ``beta``, from which and x it is worked out once
        more, bit for bit, what passed; or, where there was a residual, ``y``, and then dresidual is
        dy where y > 0 (and y < 6), else 0. Without ``y`` dresidual is None: behind "linear" it is
        dy itself.
        """

    def batch_norm_pool_train(
        self, x: Array, gamma: Array, beta: Array, epsilon: float, shape: NormShape,
        pool: PoolShape, activation: str = "linear", with_index: bool = True,
        moving: tuple[Array, Array] | None = None, momentum: float = 0.0,
    ) -> tuple[Array, Array | None, Array, Array]:  # fmt: skip
        """``batch_norm_train``, then ``pool_forward`` of its output: -> y, index, mean, var.

        ``activation`` is the pooling's. One pass over x less where there is a kernel for both.
        """
        options = {"moving": moving, "momentum": momentum}
        y, mean, var = self.batch_norm_train(x, gamma, beta, epsilon, shape, **options)
        return *self.pool_forward(y, pool, with_index, activation), mean, var

    @abstractmethod
    def group_norm_forward(
        self, x: Array, gamma: Array, beta: Array, epsilon: float, shape: NormShape
    ) -> tuple[Array, Array, Array]:
        """Normalise each sample's group: -> y, mean (N, G), var (N, G), both in Accum."""

    @abstractmethod
    def group_norm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, epsilon: float,
        shape: NormShape,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """-> dx, dgamma (C,), dbeta (C,), the last two in gamma's dtype."""

    def conv_norm_infer(
        self, x: Array, w: Array, b: Array | None, conv: ConvShape, gamma: Array, beta: Array,
        mean: Array, var: Array, epsilon: float, activation: str = "linear", math: str = "strict",
        pool: PoolShape | None = None,
    ) -> Array:  # fmt: skip
        """``conv_fprop``, then ``batch_norm_infer`` of its output: one pass where there is one.

        ``activation`` is one of ``NORM_FUSED``. With ``pool``, then ``pool_forward``.
        """
        y = self.conv_fprop(x, w, b, conv, "linear", math)
        y = self.batch_norm_infer(y, gamma, beta, mean, var, epsilon, conv.norm_shape, activation)
        return y if pool is None else self.pool_forward(y, pool, with_index=False)[0]

    def conv_norm_train(
        self, x: Array, w: Array, b: Array | None, conv: ConvShape, gamma: Array, beta: Array,
        epsilon: float, activation: str = "linear", residual: Array | None = None,
        moving: tuple[Array, Array] | None = None, momentum: float = 0.0, math: str = "strict",
        on_load: NormOnLoad | None = None, applies: bool = True,
    ) -> tuple[Array, Array | None, Array, Array]:  # fmt: skip
        """``conv_fprop`` -> y, then ``batch_norm_train`` of it -> z, mean, var: y, z, mean, var.

        A convolution may leave what the mean and the variance are made of, in place of a pass over
        y: they are y's as memory holds it, to the same digits.
        """
        y = self.conv_fprop(x, w, b, conv, "linear", math, on_load=on_load)
        return y, *self.batch_norm_train(
            y, gamma, beta, epsilon, conv.norm_shape, activation, residual, moving, momentum,
            applies,
        )  # fmt: skip

    # ---- random numbers ----------------------------------------------------------------------

    @abstractmethod
    def dropout(self, x: Array, rate: float, seed: int, offset: int | Array) -> Array:
        """Zero each element with probability ``rate``, scale the others by 1 / (1 - rate).

        Element i, in C order, is kept iff word i % 4 of Philox4x32-10 (Salmon et al., SC'11) with
        key (seed low, seed high) and counter (i // 4 low, i // 4 high, offset low, offset high) is
        at least floor(rate * 2^32); seed and offset count modulo 2^64; an offset can
        be a 0-d int64 array on the device. Applied to dy with the same seed and offset it is its
        own backward pass, and every backend draws the same numbers.
        """

    @abstractmethod
    def dropout_masked(
        self, x: Array, kind: str, alpha: float, rate: float, seed: int, offset: int | Array
    ) -> tuple[Array, Array]:
        """-> ``dropout`` of an activation's output x, and one mask for both.

        As that of ``activation_masked``, but clear where the element fell, too.
        """

    # ---- data that lies on the device --------------------------------------------------------

    @abstractmethod
    def gather_batch(
        self, images: Array, labels: Array, order: Array, place: Any, count: int, table: Array,
        changes: Changes, seed: int,
    ) -> tuple[Array, Array]:  # fmt: skip
        """Take a batch out of a set of pictures, each changed at random -> x, y.

        images (M, H, W, C) uint8, labels (M,) int64, order (N,) int32: the pictures in the order in
        which an epoch takes them. table (256, C): what each pixel value of each channel becomes,
        in the dtype of x. place: epoch * 2^32 + the place in the order of the batch's first
        picture; a number, or a 0-d int64 array that holds it. The batch ends within the order.

        x (count, H, W, C): the picture at place p of the epoch, shifted, flipped and covered as
        ``changes`` says, by words of Philox4x32-10 (see ``dropout``) with the key ``seed`` and the
        counters 2p and 2p + 1 under the offset 2^32 + epoch. Of 2p, word 0 gives the shift of the
        rows, 1 of the columns, and 2 flips if it is below ``changes.flip_threshold``; of 2p + 1,
        word 0 gives the row, 1 the column of the cutout's centre. Where ``changes.alternating``,
        word 2 of the picture's number under the offset 2^33 says instead whether it is mirrored in
        even epochs, if it is below 2^31, or in odd ones. One of k numbers is drawn as
        floor(word * k / 2^32) (Lemire 2019). Row h then shows row h + draw(2 * shift + 1) - shift,
        a column likewise once mirrored or not; the square begins size // 2 before its centre.

        y (count,): their labels.
        """

    @abstractmethod
    def collect(self, values: Sequence[Array], ring: Array, row: Any) -> None:
        """Write values, 0-d float32 or float64, into ring[row] (rows, columns) float64, in place.

        There is a value for each column. row, in [0, rows): a number, or a 0-d int64 array that
        holds it.
        """

    # ---- optimizers: one launch for all tensors, in place ------------------------------------

    @abstractmethod
    def gradient_scale(
        self, grads: Sequence[Array], *, clip_norm: float | None = None,
        loss_scale: Array | None = None, growth_interval: int | None = None,
        skipped: Array | None = None, step: Number = 1, betas: Sequence[float] = (),
    ) -> tuple[Array, ...]:  # fmt: skip
        """What the gradients of a step, all together, say about it; decided where they lie.

        -> 0-d float64 arrays: norm, factor, and 1 - beta^(step - skipped) for each of two ``betas``
        at most. norm is sqrt of the sum of all squares, summed in float64, over the loss scale;
        factor = min(1, clip_norm / norm) / loss scale is the ``grad_scale`` of the updates, or NaN
        where the norm is not finite.

        ``loss_scale`` is float64 [scale, streak], the streak counts good steps in a row or, below
        0, skipped ones. Where the norm is not finite factor is then 0, ``skipped`` (float64, one
        number) is counted up, and the scale is halved; after 64 in a row factor is NaN all the
        same. At a streak of ``growth_interval`` the scale is doubled and the streak begins anew;
        None is a scale that stays. All in place.
        """

    @abstractmethod
    def sgd_update(
        self, params: Sequence[Array], grads: Sequence[Array], velocities: Sequence[Array],
        weight_decays: Sequence[float], *, learning_rate: Number, momentum: float, nesterov: bool,
        grad_scale: Array | None, masters: Masters = None, rate_factors: Factors = None,
    ) -> None:  # fmt: skip
        """Sutskever's momentum, in place on params, velocities and masters (both Accum).

        g = grad_scale * grad + weight_decay * p; v = momentum * v - learning_rate * g;
        p += v, or with Nesterov p += momentum * v - learning_rate * g.
        p is the master, where there is one, and the parameter becomes its rounding; an element of a
        master whose rounding is not the parameter is out of date: p is the parameter there.
        ``grad_scale`` is a 0-d float64 array on the device or None for 1; where it is 0, nothing is
        changed. A tensor's learning rate is ``learning_rate`` times its factor.
        """

    @abstractmethod
    def adam_update(
        self, params: Sequence[Array], grads: Sequence[Array], m: Sequence[Array],
        v: Sequence[Array], weight_decays: Sequence[float], *, learning_rate: Number, beta_1: float,
        beta_2: float, epsilon: float, correction_1: Number, correction_2: Number, decoupled: bool,
        grad_scale: Array | None, masters: Masters = None, rate_factors: Factors = None,
    ) -> None:  # fmt: skip
        """Adam (Kingma & Ba 2015), in place on params, m, v and masters (Accum).

        g = grad_scale * grad; not decoupled: g += weight_decay * p (L2); decoupled, AdamW
        (Loshchilov & Hutter 2019): p -= learning_rate * weight_decay * p first. Then
        m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
        p -= learning_rate * (m / correction_1) / (sqrt(v / correction_2) + epsilon), where
        correction_i is 1 - beta_i^step. The rest as in ``sgd_update``.
        """

    @abstractmethod
    def lookahead_update(
        self, params: Sequence[Array], slow: Sequence[Array], *, share: Number,
        grad_scale: Array | None, masters: Masters = None,
    ) -> None:  # fmt: skip
        """Lookahead (Zhang et al. 2019), in place on params, slow (Accum) and masters.

        slow += share * (p - slow); p = slow; where share is 0 nothing is changed. Masters and
        ``grad_scale``, which scales nothing here, as in ``sgd_update``.
        """

    @abstractmethod
    def muon_direction(
        self, grads: Sequence[Array], velocities: Sequence[Array], *, momentum: float,
        nesterov: bool, grad_scale: Array | None,
    ) -> list[Array]:  # fmt: skip
        """Momentum, in place on the velocities (Accum): v = momentum * v + grad_scale * grad.

        -> for each u = v, or with Nesterov grad_scale * grad + momentum * v, over its own norm, as
        the gradient; 0 where the norm is. Where ``grad_scale`` is 0, nothing is changed, and what
        comes is not to be used.
        """

    @abstractmethod
    def newton_schulz(self, a: Array, b: Array, coefficients: Sequence[float]) -> Array:
        """c0 I + c1 a + c2 b for square matrices (n, n) and three coefficients."""

    @abstractmethod
    def muon_update(
        self, params: Sequence[Array], steps: Sequence[Array], weight_decays: Sequence[float], *,
        learning_rate: Number, grad_scale: Array | None, masters: Masters = None,
        rate_factors: Factors = None,
    ) -> None:  # fmt: skip
        """p -= learning_rate * (step + weight_decay * p), in place on params and masters (Accum).

        steps are as params; ``grad_scale`` scales nothing here. The rest as in ``sgd_update``.
        """
