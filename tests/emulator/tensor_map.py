"""The CPU stand-in for a tensor map (CUtensorMap), the descriptor of a TMA copy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Read back by runtime/: struct TensorMapFields.
_FIELDS = np.dtype(
    {
        "names": [
            *["magic", "itemsize", "rank", "swizzle", "im2col", "base", "dims", "strides", "box"],
            *["lower", "upper", "channels", "pixels"],
        ],
        "formats": [
            *["u4", "u1", "u1", "u1", "u1", "u8", ("u4", 5), ("u8", 5), ("u2", 5)],
            *[("i1", 3), ("i1", 3), "u2", "u2"],
        ],
        "offsets": [0, 4, 5, 6, 7, 8, 16, 40, 80, 90, 93, 96, 98],
        "itemsize": 128,
    }
)
_MAGIC = 0x544D4150
_SWIZZLE = {0: 0, 32: 1, 64: 2, 128: 3}


def tensor_map(
    array: np.ndarray,
    dims: Sequence[int],
    strides: Sequence[int],
    box: Sequence[int] | None = None,
    *,
    swizzle: int = 0,
    lower: Sequence[int] = (0, 0),
    upper: Sequence[int] = (0, 0),
    channels: int = 0,
    pixels: int = 0,
) -> np.void:
    """What cuTensorMapEncodeTiled (with `box`) or cuTensorMapEncodeIm2col (without) makes.

    `dims` counts elements, innermost first; `strides` are the bytes between neighbours of
    dims[1:]. `swizzle` is the pattern's width: 0, 32, 64 or 128 bytes. In im2col mode, `lower`
    and `upper` are the corners (w, h) of the pixel box, `channels` and `pixels` the size of one
    copy. Pass the result by value and the array through `extra=` of the launch.
    """
    if array.ctypes.data % 16 or any(stride % 16 for stride in strides):
        raise ValueError(f"a tensor map needs 16-byte aligned strides. Received: {strides}")
    fields = np.zeros((), _FIELDS)
    fields["magic"], fields["base"] = _MAGIC, array.ctypes.data
    fields["itemsize"], fields["rank"] = array.itemsize, len(dims)
    fields["swizzle"], fields["im2col"] = _SWIZZLE[swizzle], box is None
    fields["dims"][: len(dims)] = dims
    fields["strides"][: len(dims)] = [array.itemsize, *strides]
    if box is not None:
        fields["box"][: len(box)] = box
    else:
        fields["lower"][:2], fields["upper"][:2] = lower, upper
        fields["channels"], fields["pixels"] = channels, pixels
    return fields[()]
