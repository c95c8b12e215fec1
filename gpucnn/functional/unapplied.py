"""A batch norm's output that is not written: the convolution behind it makes it as it loads."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arguments import as_choice
from ..backends.base import NORM_FUSED, Array, NormOnLoad
from ..shapes import ConvShape
from .checks import expect_shape, prepare, prepare_statistics


class Unapplied(NamedTuple):
    """What ``batch_norm_train`` and ``conv_norm_train`` return for y where not ``applies``.

    It stands for y in ``conv_forward``, ``conv_norm_train`` and ``conv_backward``, and in those of
    ``dense``, whose channels must be the norm's. The numbers are the same, and the memory is that
    of the norm's input, which its way back needs anyway.

    Attributes:
        x: the norm's input.
        norm: what becomes of it.

    Example:
        >>> from gpucnn import functional as F
        >>> x, w, one = np.array([[[1.0], [3.0]]]), np.full((1, 1, 1), 2.0), np.ones(1)
        >>> y, _, _ = F.batch_norm_train(x, one, one, epsilon=0, activation="relu", applies=False)
        >>> y.x is x, F.conv_forward(y, w).ravel()  # 2 * max(+-1 + 1, 0)
        (True, array([0., 4.]))
    """

    x: Array
    norm: NormOnLoad

    @property
    def shape(self) -> tuple[int, ...]:
        return self.x.shape

    @property
    def ndim(self) -> int:
        return self.x.ndim

    @property
    def dtype(self) -> np.dtype:
        return self.x.dtype

    def reshape(self, *shape: Any) -> Unapplied:
        """Return it in another shape, with the channels where they are."""
        return self._replace(x=self.x.reshape(*shape))


def taken_apart(x: Array | Unapplied) -> tuple[Array, NormOnLoad | None]:
    """Return an array, and the norm that a convolution is to apply to it, if there is one."""
    return x if isinstance(x, Unapplied) else (x, None)


def check_applies(owner: str, applies: bool, residual: Array | None) -> None:
    """Raise a ValueError where a norm that is not applied has a residual to add."""
    if not applies and residual is not None:
        raise ValueError(
            f"{owner}: a residual is added where the norm is applied; leave one of them out."
            f" Received: applies=False and a residual of shape {residual.shape}"
        )


def prepare_on_load(
    owner: str, x: Array, on_load: NormOnLoad | None, shape: ConvShape
) -> NormOnLoad | None:
    """Return the norm of an input x with its arrays as the backend takes them.

    Raises:
        ValueError: one of them is not (C,), or the activation is none that a norm applies.
        TypeError: one has another dtype than the norm of x has, or lies on another device.
    """
    if on_load is None:
        return None
    as_choice(owner, "activation", on_load.activation, NORM_FUSED)
    gamma, beta, mean, var = on_load[:4]
    _, _, gamma, beta = prepare(owner, x=x, gamma=gamma, beta=beta)
    mean, var = prepare_statistics(owner, x, mean=mean, var=var)
    expect_shape(owner, (shape.channels,), gamma=gamma, beta=beta, mean=mean, var=var)
    return on_load._replace(gamma=gamma, beta=beta, mean=mean, var=var)
