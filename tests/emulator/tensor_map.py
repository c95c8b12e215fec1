"""The CPU stand-in for a tensor map (CUtensorMap), the descriptor of a TMA copy."""

from __future__ import annotations

import numpy as np

from gpucnn.backends.cuda.tensor_map import Pixels, TensorMap

# Read back by runtime/: struct TensorMapFields.
_FIELDS = np.dtype(
    {
        "names": [
            *["magic", "itemsize", "rank", "swizzle", "im2col", "base", "dims", "strides", "box"],
            *["lower", "upper", "channels", "pixels", "steps"],
        ],
        "formats": [
            *["u4", "u1", "u1", "u1", "u1", "u8", ("u4", 5), ("u8", 5), ("u2", 5)],
            *[("i1", 3), ("i1", 3), "u2", "u2", ("u1", 3)],
        ],
        "offsets": [0, 4, 5, 6, 7, 8, 16, 40, 80, 90, 93, 96, 98, 100],
        "itemsize": 128,
    }
)
_MAGIC = 0x544D4150
_SWIZZLE = {0: 0, 32: 1, 64: 2, 128: 3}


def tensor_map(m: TensorMap) -> np.void:
    """Return what the driver's CUtensorMap is to the emulator's TMA.

    Pass it by value and the array through ``extra=`` of the launch.
    """
    array, copies = m.array, m.copies
    if array.ctypes.data % 16 or any(stride % 16 for stride in m.strides):
        raise ValueError(f"a tensor map needs 16-byte aligned strides. Received: {m.strides}")
    fields = np.zeros((), _FIELDS)
    fields["magic"], fields["base"] = _MAGIC, array.ctypes.data
    fields["itemsize"], fields["rank"] = array.itemsize, len(m.dims)
    fields["swizzle"], fields["im2col"] = _SWIZZLE[m.swizzle], isinstance(copies, Pixels)
    fields["dims"][: len(m.dims)] = m.dims
    fields["strides"][: len(m.dims)] = [array.itemsize, *m.strides]
    if isinstance(copies, Pixels):
        fields["lower"][:2], fields["upper"][:2] = copies.lower, copies.upper
        fields["channels"], fields["pixels"] = copies.channels, copies.count
        fields["steps"][:2] = copies.steps
    else:
        fields["box"][: len(m.dims)] = copies.box
    return fields[()]
