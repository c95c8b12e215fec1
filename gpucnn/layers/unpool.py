"""The way back from a max-pool as a layer."""

from __future__ import annotations

from collections.abc import Sequence

from .. import functional as F
from ..backends.base import Array
from ..functional.checks import expect_shape
from .base import Shape
from .merge import Merge
from .pool import Pool


class MaxUnpool(Merge, Pool):
    """Put each number where a max-pool found its maximum, among zeros (Zeiler & Fergus 2014).

    It is called on two values: the numbers, of the shape of the pool's output, and the map that the
    pool reads, ``MaxUnpool2D(2)([y, x])``. The arguments are the pool's.

    Example:
        >>> x = np.array([[[1.0], [3.0], [2.0], [0.0]]])
        >>> MaxUnpool1D(2).forward([np.array([[[5.0], [7.0]]]), x]).ravel()
        array([0., 5., 7., 0.])
    """

    mode = "max"
    keeps_input = False
    arguments = tuple(name for name in Pool.arguments if name != "count_padding")

    def output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        if len(input_shape) != 2:
            raise self._misfit("two inputs, the numbers and the map of the pool", input_shape)
        y, x = input_shape
        if self._geometry((1, *x)).y_shape[1:] != tuple(y):
            raise self._misfit("the first input must be of the pool's output shape", input_shape)
        return tuple(x)

    def _forward(self, x: list[Array], training: bool) -> Array:
        y, source = x
        shape, last = self._geometry(source.shape), self.data_format == "channels_last"
        _, index = F.pool_forward(source, shape=shape, owner=self.label)
        places = F.pool_places(index, shape, owner=self.label)
        self._save(places, source.shape)
        options = {"channels_last": last, "owner": self.label}
        return F.max_unpool_forward(y, places, source.shape, **options)

    def _backward(self, dy: Array, places: Array, shape: Shape) -> list[Array]:
        """The places are a step function of the map: its gradient is 0."""
        expect_shape(self.label, shape, dy=dy)
        last = self.data_format == "channels_last"
        dx = F.max_unpool_backward(dy, places, channels_last=last, owner=self.label)
        return [dx, self.backend.xp.zeros(shape, dy.dtype)]


class MaxUnpool1D(MaxUnpool):
    rank = 1
    __doc__ = MaxUnpool.__doc__


class MaxUnpool2D(MaxUnpool):
    rank = 2
    __doc__ = MaxUnpool.__doc__


class MaxUnpool3D(MaxUnpool):
    rank = 3
    __doc__ = MaxUnpool.__doc__
