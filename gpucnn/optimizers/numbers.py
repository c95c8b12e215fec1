"""Numbers that a step changes on the device."""

from __future__ import annotations

import numpy as np

from ..backends import get_backend
from ..backends.base import Array, Backend


class DeviceNumbers:
    """A few float64 numbers; they lie on the host until a step asks for them on its backend.

    From then on they are changed in place: a recorded step knows their address.

    >>> numbers = DeviceNumbers(1, 0)
    >>> numbers.on(get_backend("numpy"))[0] *= 0.5
    >>> numbers.read()
    [0.5, 0.0]
    """

    def __init__(self, *values: float) -> None:
        self._array: Array = np.array(values, np.float64)

    def on(self, backend: Backend) -> Array:
        """Return them as an array of this backend."""
        if not backend.owns(self._array):
            self._array = backend.asarray(self._array)
        return self._array

    def read(self) -> list[float]:
        """Copy them to the host; waits for the device."""
        return get_backend("numpy").asarray(self._array).tolist()

    def write(self, *values: float) -> None:
        for place, value in enumerate(values):
            self._array[place] = value
