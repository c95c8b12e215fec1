"""The scratch memory of the algorithms: each thread's own, kept from call to call.

To touch fresh memory costs as much as to fill it, so buffers are kept, one under each name, but no
more than ``KEPT_BYTES`` of them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np

KEPT_BYTES = 1 << 26  # by a thread


class _Workspace(threading.local):
    def __init__(self) -> None:
        self.memory: dict[str, np.ndarray] = {}

    def take(self, name: str, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """Return an uninitialised array; it is the caller's until the name is taken again."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = self.memory.get(name)
        if memory is None or memory.size < size:
            self.memory.pop(name, None)
            memory = np.empty(size, np.uint8)
            if size + sum(kept.size for kept in self.memory.values()) <= KEPT_BYTES:
                self.memory[name] = memory
        return memory[:size].view(dtype).reshape(shape)


workspace = _Workspace()
