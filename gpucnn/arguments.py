"""One place where a layer's arguments are brought to their normal form.

Each helper knows the name of the argument and of its owner, so that every error reads
``Conv2D 'stem': strides must be positive. Received: strides=(0, 1)``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

Padding = str | int | Sequence[int] | Sequence[Sequence[int]]
Pairs = tuple[tuple[int, int], ...]


def _integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def integers(value: Any) -> tuple[int, ...] | None:
    """Return a sequence of integers as a tuple of ints; None for anything else."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Sequence):
        return None
    numbers = tuple(map(_integer, value))
    return None if None in numbers else numbers


def as_int(owner: str, name: str, value: Any, *, minimum: int = 1) -> int:
    """Return ``value`` as an int of at least ``minimum``."""
    number = _integer(value)
    if number is None or number < minimum:
        raise ValueError(
            f"{owner}: {name} must be an integer of at least {minimum}. Received: {name}={value!r}"
        )
    return number


def as_axis(owner: str, axis: Any) -> int:
    """Return an axis as an int; it counts the batch axis, 0, which it may not be."""
    number = _integer(axis)
    if number in (None, 0):
        raise ValueError(
            f"{owner}: axis must be an integer other than 0, the batch. Received: axis={axis!r}"
        )
    return number


def as_tuple(owner: str, name: str, value: Any, rank: int, *, minimum: int = 1) -> tuple[int, ...]:
    """Return ``value``, an int or a sequence of ``rank`` ints, as a tuple of ``rank`` ints."""
    single = _integer(value)
    numbers = integers(value) if single is None else (single,) * rank
    if numbers is None or len(numbers) != rank or min(numbers) < minimum:
        sizes = "an integer" if rank == 1 else f"an integer or {rank} integers"
        raise ValueError(
            f"{owner}: {name} must be {sizes} of at least {minimum}. Received: {name}={value!r}"
        )
    return numbers


def as_shape(owner: str, name: str, value: Any, *, minimum: int = 0) -> tuple[int, ...]:
    """Return ``value``, the sizes of one sample, as a tuple of ints of at least ``minimum``."""
    sizes = integers(value)
    if sizes is None or min(sizes, default=minimum) < minimum:
        raise ValueError(
            f"{owner}: {name} must be the sizes of one sample without the batch axis, such as"
            f" (28, 28, 1). Received: {name}={value!r}"
        )
    return sizes


def as_number(
    owner: str, name: str, value: Any, *, above: float | None = None, least: float | None = None,
    below: float = math.inf, most: float | None = None,
) -> float:  # fmt: skip
    """Return ``value`` as a float > above or >= least, and < below or <= most."""
    if (
        not isinstance(value, Real)
        or isinstance(value, bool)
        or not value < below
        or (above is not None and not value > above)
        or (least is not None and not value >= least)
        or (most is not None and not value <= most)
    ):
        low = f"[{least:g}" if above is None else f"({above:g}"
        high = f"{below:g})" if most is None else f"{most:g}]"
        raise ValueError(
            f"{owner}: {name} must be a number in {low}, {high}. Received: {name}={value!r}"
        )
    return float(value)


def as_choice(owner: str, name: str, value: Any, choices: Sequence[Any]) -> Any:
    """Return ``value`` if it is one of ``choices``."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{owner}: {name} must be one of {listed}. Received: {name}={value!r}")
    return value


def check_data_format(owner: str, data_format: Any) -> str:
    """Return ``data_format`` if it is "channels_last" or "channels_first"."""
    return as_choice(owner, "data_format", data_format, ("channels_last", "channels_first"))


def check_padding(owner: str, padding: Any, rank: int) -> str | Pairs:
    """Return ``padding`` as "valid", "same", "causal" or ``rank`` (before, after) pairs.

    An int pads both ends of every axis, a sequence of ``rank`` ints both ends of one axis each,
    a sequence of ``rank`` pairs says the two ends of each axis.
    """
    if isinstance(padding, str):
        name = padding.lower()
        if name in ("valid", "same") or (name == "causal" and rank == 1):
            return name
    elif _integer(padding) is not None:
        if _integer(padding) >= 0:
            return ((_integer(padding), _integer(padding)),) * rank
    elif isinstance(padding, Sequence) and len(padding) == rank:
        ends = [(item, item) if _integer(item) is not None else item for item in padding]
        if all(
            isinstance(pair, Sequence)
            and len(pair) == 2
            and all(_integer(end) is not None and _integer(end) >= 0 for end in pair)
            for pair in ends
        ):
            return tuple((_integer(before), _integer(after)) for before, after in ends)
    causal = ', "causal"' if rank == 1 else ""
    raise ValueError(
        f'{owner}: padding must be "valid", "same"{causal}, an integer, {rank} integers or '
        f"{rank} (before, after) pairs, none negative. Received: padding={padding!r}"
    )


def pad_pairs(
    padding: str | Pairs,
    size: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
) -> Pairs:
    """Turn a checked padding into (before, after) pairs for an input of ``size``.

    "same" gives ceil(size / stride) outputs at any stride, the odd element behind (the rule of
    Keras and TensorFlow); "causal" puts all of it in front, so that output t sees no input
    beyond t.
    """
    if not isinstance(padding, str):
        return padding
    pairs = []
    for extent, taps, stride, step in zip(size, window, strides, dilation, strict=True):
        reach = step * (taps - 1) + 1
        if padding == "valid":
            pairs.append((0, 0))
        elif padding == "causal":
            pairs.append((reach - 1, 0))
        else:
            total = max((-(-extent // stride) - 1) * stride + reach - extent, 0)
            pairs.append((total // 2, total - total // 2))
    return tuple(pairs)
