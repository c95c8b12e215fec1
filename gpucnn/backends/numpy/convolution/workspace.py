"""The scratch memory of the algorithms: each thread's own, kept from call to call.

To touch fresh memory costs as much as to fill it, so buffers are kept, one under each name.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np


class _Workspace(threading.local):
    def __init__(self) -> None:
        self.memory: dict[str, np.ndarray] = {}

    def take(self, name: str, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """Return an uninitialised array; it is the caller's until the name is taken again."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = self.memory.get(name)
        if memory is None or memory.size < size:
            memory = self.memory[name] = np.empty(size, np.uint8)
        return memory[:size].view(dtype).reshape(shape)


workspace = _Workspace()
