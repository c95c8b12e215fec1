"""How exactly layers compute whose ``math`` is not given.

A layer asks once, when it is made, and keeps the answer: its configuration says what it computes
by, and a saved network computes so wherever it is loaded.
"""

from __future__ import annotations

from .arguments import as_choice
from .backends.base import MATH

_default = "strict"


def set_math(math: str) -> None:
    """Let layers that are made from here on compute by ``math`` where theirs is not given.

    It is "strict" at first. "tf32" is what ``torch.set_float32_matmul_precision("high")`` and
    ``torch.backends.cudnn.allow_tf32`` ask for; see ``functional.conv_forward`` for all of them.

    Raises:
        ValueError: there is no such mode.

    Example:
        >>> from gpucnn import Dense
        >>> set_math("tf32")
        >>> layer = Dense(10)
        >>> set_math("strict")
        >>> layer.math, Dense(10).math
        ('tf32', 'strict')
    """
    global _default
    _default = as_choice("set_math", "math", math, MATH)


def as_math(owner: str, math: str | None) -> str:
    """Return a layer's argument ``math``, checked, or what is set where it is None."""
    return _default if math is None else as_choice(owner, "math", math, MATH)
