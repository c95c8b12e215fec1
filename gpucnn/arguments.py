"""One place where a layer's arguments are brought to their normal form.

Each helper knows the name of the argument and of its owner, so that every error reads
``Conv2D 'stem': strides must be positive. Received: strides=(0, 1)``.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

Padding = str | int | Sequence[int] | Sequence[Sequence[int]]
Pairs = tuple[tuple[int, int], ...]


def _integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def as_int(owner: str, name: str, value: Any, *, minimum: int = 1) -> int:
    """Return ``value`` as an int of at least ``minimum``."""
    number = _integer(value)
    if number is None or number < minimum:
        raise ValueError(
            f"{owner}: {name} must be an integer of at least {minimum}. Received: {name}={value!r}"
        )
    return number


def as_tuple(owner: str, name: str, value: Any, rank: int, *, minimum: int = 1) -> tuple[int, ...]:
    """Return ``value``, an int or a sequence of ``rank`` ints, as a tuple of ``rank`` ints."""
    single = _integer(value)
    if single is not None:
        numbers: list[int | None] = [single] * rank
    elif isinstance(value, Sequence) and not isinstance(value, str):
        numbers = [_integer(item) for item in value]
    else:
        numbers = []
    if len(numbers) != rank or any(number is None or number < minimum for number in numbers):
        sizes = "an integer" if rank == 1 else f"an integer or {rank} integers"
        raise ValueError(
            f"{owner}: {name} must be {sizes} of at least {minimum}. Received: {name}={value!r}"
        )
    return tuple(numbers)  # type: ignore[arg-type]


def as_fraction(owner: str, name: str, value: Any) -> float:
    """Return ``value`` as a float in [0, 1)."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0.0 <= number < 1.0:
        raise ValueError(f"{owner}: {name} must lie in [0, 1). Received: {name}={value!r}")
    return number


def as_choice(owner: str, name: str, value: Any, choices: Sequence[Any]) -> Any:
    """Return ``value`` if it is one of ``choices``."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{owner}: {name} must be one of {listed}. Received: {name}={value!r}")
    return value


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
