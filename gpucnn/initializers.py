"""Initial values of parameters, drawn on the host so that every backend starts from the same.

Numbers come from one generator that ``set_seed`` resets; it starts from seed 0, so that a program
run twice builds the same networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real

import numpy as np

from .arguments import as_choice, as_int

Initializer = str | float | Callable[[tuple[int, ...], np.random.Generator], np.ndarray]

_generator = np.random.default_rng(0)


def set_seed(seed: int) -> None:
    """Restart the generator that initial weights and layer seeds are drawn from."""
    global _generator
    _generator = np.random.default_rng(as_int("set_seed", "seed", seed, minimum=0))


def draw_seed() -> int:
    """Draw a 63-bit seed for a layer that makes its own random numbers (dropout)."""
    return int(_generator.integers(2**63))


def _scaled(scale: float, mode: str, normal: bool) -> Callable:
    """Variance scaling: Var(w) = scale / fan (He et al. 2015, Glorot & Bengio 2010)."""

    def draw(
        shape: tuple[int, ...], fans: tuple[int, int], generator: np.random.Generator
    ) -> np.ndarray:
        fan = {"in": fans[0], "out": fans[1], "average": sum(fans) / 2}[mode]
        deviation = math.sqrt(scale / max(fan, 1))
        if normal:
            return generator.standard_normal(shape) * deviation
        return generator.uniform(-1.0, 1.0, shape) * deviation * math.sqrt(3.0)

    return draw


def _dirac(
    shape: tuple[int, ...], fans: tuple[int, int], generator: np.random.Generator
) -> np.ndarray:
    """Filters (K, R, S, C/groups) that copy a channel each, as long as there are channels.

    Further filters of a group are those of "torch_uniform".
    (Zagoruyko & Komodakis, "DiracNets", 2017; partly so in Jordan, "94% on CIFAR-10 in 3.29
    Seconds on a Single GPU", 2024, section 3.3.)
    """
    if len(shape) < 2:
        raise ValueError(f"dirac: is for kernels, of two axes or more. Received: shape {shape}")
    values = _scaled(1 / 3, "in", False)(shape, fans, generator)
    count, *window, channels = shape
    in_group = fans[1] // math.prod(window) if window else count  # filters of a group
    places = np.arange(count) % max(in_group, 1)  # each filter's in its group
    copies = np.flatnonzero(places < channels)
    values[copies] = 0.0
    values[(copies, *(size // 2 for size in window), places[copies])] = 1.0
    return values


_SCALED = {
    "he_normal": _scaled(2.0, "in", True),
    "he_uniform": _scaled(2.0, "in", False),
    "glorot_normal": _scaled(1.0, "average", True),
    "glorot_uniform": _scaled(1.0, "average", False),
    "lecun_normal": _scaled(1.0, "in", True),
    "lecun_uniform": _scaled(1.0, "in", False),
    "torch_uniform": _scaled(1 / 3, "in", False),  # +-1/sqrt(fan in), PyTorch's default
    "dirac": _dirac,
}
_CONSTANT = {"zeros": 0.0, "ones": 1.0}
NAMES = (*_SCALED, *_CONSTANT)


def check_initializer(owner: str, name: str, value: Initializer) -> Initializer:
    """Return ``value`` if it is a name, a number, or a function (shape, generator) -> array."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    return value if callable(value) else as_choice(owner, name, value, NAMES)


def initialize(
    owner: str, initializer: Initializer, shape: Sequence[int], fans: tuple[int, int],
    dtype: np.dtype,
) -> np.ndarray:  # fmt: skip
    """Draw an array of ``shape``; ``fans`` are the inputs and outputs of one unit.

    For a KRSC filter they are R*S*C/groups and R*S*K/groups. ``owner`` opens the error message.
    """
    shape = tuple(shape)
    if callable(initializer):
        values = np.asarray(initializer(shape, _generator))
        if values.shape != shape:
            raise ValueError(
                f"{owner}: the initializer must return an array of shape {shape}."
                f" Received: shape {values.shape}"
            )
    elif isinstance(initializer, float) or initializer in _CONSTANT:
        values = np.full(shape, _CONSTANT.get(initializer, initializer))
    else:
        values = _SCALED[initializer](shape, fans, _generator)
        if (
            np.dtype(dtype).kind == "c" and initializer != "dirac"
        ):  # the variance in equal shares (Trabelsi et al. 2018)
            values = (values + 1j * _SCALED[initializer](shape, fans, _generator)) / math.sqrt(2)
    return values.astype(dtype)
