"""The geometry of each operation, computed once, frozen, and passed whole.

A shape holds no array and allocates nothing; the same record serves every backend, the planner,
``summary()`` and the error messages. Letters are cuDNN's: N batch, C channels, D H W input,
K filters, T R S window, O P Q output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from .arguments import Padding, Pairs, as_choice, as_int, as_tuple, check_padding, pad_pairs


def window_output(
    size: int,
    window: int,
    stride: int,
    pad: tuple[int, int],
    dilation: int,
    ceil_mode: bool = False,
) -> int:
    """Return how many windows fit along one axis: P in the notation of the design.

    P = (H + pad_before + pad_after - dilation * (R - 1) - 1) // stride + 1.

    With ``ceil_mode`` the division rounds up, except that a last window which would start beyond
    the input and its front padding is dropped (PyTorch's rule). The one window of an input smaller
    than it may stick out, too, by less than a stride.

    >>> window_output(5, 3, 1, (0, 0), 1), window_output(5, 3, 2, (1, 1), 1)
    (3, 3)
    >>> [window_output(2, 3, stride, (0, 0), 1, ceil_mode=True) for stride in (1, 2)]
    [0, 1]
    """
    span = size + pad[0] + pad[1] - dilation * (window - 1) - 1
    if not ceil_mode:
        return max(span // stride + 1, 0)
    count = max(-(-span // stride) + 1, 0)
    return count - 1 if (count - 1) * stride >= size + pad[0] else count


def _activation_shape(
    batch: int, channels: int, spatial: Sequence[int], channels_last: bool
) -> tuple[int, ...]:
    return (batch, *spatial, channels) if channels_last else (batch, channels, *spatial)


def check_rank(owner: str, x_shape: Sequence[int], rank: int, channels_last: bool) -> None:
    """Raise a ValueError unless ``x_shape`` has ``rank`` spatial axes, and none of them empty."""
    if len(x_shape) != rank + 2:
        spatial = {1: "steps", 2: "height, width", 3: "depth, height, width"}[rank]
        axes = f"{spatial}, channels" if channels_last else f"channels, {spatial}"
        raise ValueError(
            f"{owner}: expects an input of {rank + 2} axes (batch, {axes})."
            f" Received: input of shape {tuple(x_shape)}"
        )
    check_sample(owner, x_shape)


def check_sample(owner: str, x_shape: Sequence[int]) -> None:
    """Raise a ValueError where a sample would hold nothing; the batch may be empty."""
    if 0 in x_shape[1:]:
        raise ValueError(
            f"{owner}: no axis of the input but the batch may be empty."
            f" Received: input of shape {tuple(x_shape)}"
        )


def kernel_rank(owner: str, w_shape: Sequence[int]) -> int:
    """Return how many spatial axes a kernel has; raise a ValueError if it can be none."""
    rank = len(w_shape) - 2
    if rank not in (1, 2, 3):
        raise ValueError(
            f"{owner}: the kernel must have 3, 4 or 5 axes, (filters, *window, channels /"
            f" groups). Received: kernel of shape {tuple(w_shape)}"
        )
    if 0 in w_shape:
        raise ValueError(
            f"{owner}: the kernel must not be empty. Received: kernel of shape {tuple(w_shape)}"
        )
    return rank


def split_axes(shape: Sequence[int], channels_last: bool) -> tuple[int, int, tuple[int, ...]]:
    """Split an activation's shape into (batch, channels, spatial sizes)."""
    if channels_last:
        return shape[0], shape[-1], tuple(shape[1:-1])
    return shape[0], shape[1], tuple(shape[2:])


def _reach(window: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """Return how many inputs a window spans along each axis."""
    return tuple(step * (taps - 1) + 1 for taps, step in zip(window, dilation, strict=True))


def _misfit(
    owner: str,
    reach: Sequence[int],
    size: Sequence[int],
    pairs: Pairs,
    remedy: str,
    x_shape: Sequence[int],
) -> ValueError:
    return ValueError(
        f"{owner}: a window of {reach} does not fit into an input of {size} padded by {pairs};"
        f" {remedy}. Received: input of shape {tuple(x_shape)}"
    )


class _OverMap:
    """What windows over a map have in common: the map."""

    batch: int
    channels: int
    input: tuple[int, ...]
    channels_last: bool

    @cached_property
    def rank(self) -> int:
        return len(self.input)

    @cached_property
    def x_shape(self) -> tuple[int, ...]:
        return _activation_shape(self.batch, self.channels, self.input, self.channels_last)


@dataclass(frozen=True)
class ConvShape(_OverMap):
    """Geometry of a convolution in 1, 2 or 3 dimensions (cross-correlation: no flip).

    ``x`` is (N, *input, C) or (N, C, *input); ``w`` is always KRSC, (K, *kernel, C / groups);
    ``y`` is (N, *output, K) or (N, K, *output).
    """

    batch: int
    channels: int
    filters: int
    input: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    groups: int = 1
    channels_last: bool = True

    @classmethod
    def of(
        cls,
        x_shape: Sequence[int],
        w_shape: Sequence[int],
        *,
        strides: int | Sequence[int] = 1,
        padding: Padding = "valid",
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        channels_last: bool = True,
        owner: str = "convolution",
    ) -> ConvShape:
        """Check the arguments and build the record; ``owner`` opens every error message.

        Raises:
            ValueError: a rank, a channel count or a group count does not fit, or the window is
                larger than the padded input.
        """
        rank = kernel_rank(owner, w_shape)
        check_rank(owner, x_shape, rank, channels_last)
        groups = as_int(owner, "groups", groups)
        strides = as_tuple(owner, "strides", strides, rank)
        dilation = as_tuple(owner, "dilation_rate", dilation, rank)
        batch, channels, size = split_axes(x_shape, channels_last)
        filters, *kernel, depth = w_shape
        if channels != depth * groups:
            raise ValueError(
                f"{owner}: the input must have {depth * groups} channels, axis"
                f" {-1 if channels_last else 1}, for a kernel of shape {tuple(w_shape)}"
                f" and groups={groups}. Received: input of shape {tuple(x_shape)}"
            )
        if filters % groups:
            raise ValueError(
                f"{owner}: filters must be a multiple of groups."
                f" Received: filters={filters}, groups={groups}"
            )
        pairs = pad_pairs(check_padding(owner, padding, rank), size, kernel, strides, dilation)
        shape = cls(
            batch, channels, filters, size, tuple(kernel), strides, pairs, dilation, groups,
            channels_last,
        )  # fmt: skip
        if 0 in shape.output:
            remedy = "use a smaller kernel or dilation, more padding or a larger input"
            raise _misfit(owner, _reach(kernel, dilation), size, pairs, remedy, x_shape)
        return shape

    @cached_property
    def output(self) -> tuple[int, ...]:
        """Spatial size of the output, (P, Q) in two dimensions."""
        axes = zip(self.input, self.kernel, self.strides, self.padding, self.dilation, strict=True)
        return tuple(window_output(*axis) for axis in axes)

    @cached_property
    def w_shape(self) -> tuple[int, ...]:
        return (self.filters, *self.kernel, self.channels // self.groups)

    @cached_property
    def y_shape(self) -> tuple[int, ...]:
        return _activation_shape(self.batch, self.filters, self.output, self.channels_last)

    @cached_property
    def taps(self) -> int:
        """Number of positions in the window, R * S in two dimensions."""
        return math.prod(self.kernel)

    @cached_property
    def is_pointwise(self) -> bool:
        """Whether an output is a matrix product of the channels in its own place."""
        padded = any(map(any, self.padding))
        return self.taps == self.groups == 1 and set(self.strides) == {1} and not padded

    @cached_property
    def multiply_adds(self) -> int:
        """Multiply-adds of one forward pass over the batch, padding counted as work."""
        return math.prod(self.y_shape) * self.taps * (self.channels // self.groups)

    @cached_property
    def norm_shape(self) -> NormShape:
        """The shape of a batch norm of y, and of the sums of a bias's gradient."""
        length = math.prod(self.output)
        return NormShape(self.batch, self.filters, length, 1, self.channels_last)


@dataclass(frozen=True)
class PoolShape(_OverMap):
    """Geometry of a pooling in 1, 2 or 3 dimensions.

    ``mode`` is "max", "min", "average" or "sum". Padding never enters a maximum, a minimum or a
    sum; ``count_padding`` says whether an average divides by the full window (True) or only by
    the inputs under it (False, as in Keras).
    """

    batch: int
    channels: int
    input: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    mode: str
    ceil_mode: bool = False
    count_padding: bool = False
    channels_last: bool = True

    @classmethod
    def of(
        cls,
        x_shape: Sequence[int],
        pool_size: int | Sequence[int],
        *,
        mode: str,
        rank: int,
        strides: int | Sequence[int] | None = None,
        padding: Padding = "valid",
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
        count_padding: bool = False,
        channels_last: bool = True,
        owner: str = "pooling",
    ) -> PoolShape:
        """Check the arguments and build the record; strides default to the window.

        Raises:
            ValueError: the rank does not fit, the window is larger than the padded input, or the
                padding at one end is as large as the window (such windows would hold no input).
        """
        as_choice(owner, "mode", mode, ("max", "min", "average", "sum"))
        check_rank(owner, x_shape, rank, channels_last)
        window = as_tuple(owner, "pool_size", pool_size, rank)
        strides = window if strides is None else as_tuple(owner, "strides", strides, rank)
        dilation = as_tuple(owner, "dilation_rate", dilation, rank)
        batch, channels, size = split_axes(x_shape, channels_last)
        pairs = pad_pairs(check_padding(owner, padding, rank), size, window, strides, dilation)
        reach = _reach(window, dilation)
        if any(max(pair) >= r for pair, r in zip(pairs, reach, strict=True)):
            raise ValueError(
                f"{owner}: padding must be smaller than the window {reach}, or some windows would"
                f" hold no input. Received: padding={pairs}"
            )
        shape = cls(
            batch, channels, size, window, strides, pairs, dilation, mode, bool(ceil_mode),
            bool(count_padding), channels_last,
        )  # fmt: skip
        if 0 in shape.output:
            remedy = "use a smaller pool_size, padding or a larger input"
            raise _misfit(owner, reach, size, pairs, remedy, x_shape)
        return shape

    @cached_property
    def output(self) -> tuple[int, ...]:
        """Spatial size of the output, (P, Q) in two dimensions."""
        axes = zip(self.input, self.window, self.strides, self.padding, self.dilation, strict=True)
        return tuple(window_output(*axis, self.ceil_mode) for axis in axes)

    @cached_property
    def y_shape(self) -> tuple[int, ...]:
        return _activation_shape(self.batch, self.channels, self.output, self.channels_last)

    @cached_property
    def taps(self) -> int:
        """Number of positions in the window, R * S in two dimensions."""
        return math.prod(self.window)

    @cached_property
    def index_dtype(self) -> str:
        """The smallest unsigned integer that holds every window index and ``taps`` itself.

        ``taps`` marks a window without any input (a dilated one can fall between the inputs).
        """
        return "uint8" if self.taps < 2**8 else "uint16" if self.taps < 2**16 else "uint32"


@dataclass(frozen=True)
class NormShape:
    """How a normalisation sees its input: N samples, C channels, L positions, G groups.

    Element (n, l, c) lies at (n * L + l) * C + c with channels last and at (n * C + c) * L + l
    with channels first. Batch norm takes its statistics over (n, l) for each channel, group norm
    over (l, c in the group) for each sample and group. Layer norm is group norm with one group.
    """

    batch: int
    channels: int
    length: int
    groups: int = 1
    channels_last: bool = True

    @classmethod
    def of(
        cls,
        x_shape: Sequence[int],
        *,
        groups: int = 1,
        channels_last: bool = True,
        owner: str = "normalization",
    ) -> NormShape:
        """Read the record off an activation of shape (N, ..., C) or (N, C, ...)."""
        if len(x_shape) < 2:
            raise ValueError(
                f"{owner}: the input needs a batch axis and a channel axis."
                f" Received: input of shape {tuple(x_shape)}"
            )
        check_sample(owner, x_shape)
        batch, channels, spatial = split_axes(x_shape, channels_last)
        groups = as_int(owner, "groups", groups)
        if channels % groups:
            raise ValueError(
                f"{owner}: groups must divide the {channels} channels. Received: groups={groups}"
            )
        return cls(batch, channels, math.prod(spatial), groups, channels_last)

    @cached_property
    def axes(self) -> tuple[int, int, int]:
        """The input's shape as three axes: (N, L, C) or (N, C, L)."""
        if self.channels_last:
            return (self.batch, self.length, self.channels)
        return (self.batch, self.channels, self.length)
