"""Classical picture filters: what a 3x3 or 5x5 kernel sees, before any kernel is learned.

A filter is slid over the picture, and each output pixel is the sum of the pixels under it times
its numbers. Sums of 1 keep the brightness (blur, sharpen, emboss); sums of 0 answer nothing where
the picture is even (edges).

    >>> from gpucnn.filters import apply_filter
    >>> sharp = apply_filter(picture, "sharpen")                                 # doctest: +SKIP
"""

from __future__ import annotations

import numpy as np

from . import functional as F
from .arguments import as_choice
from .backends import chosen_backend, get_backend

# One row or column of Pascal's triangle: its outer square is close to a Gaussian of variance 1.
_BINOMIAL = np.array([1, 4, 6, 4, 1]) / 16

FILTERS: dict[str, np.ndarray] = {
    name: np.asarray(rows, np.float64)
    for name, rows in {
        # Derivatives: dark to bright from left to right, from top to bottom (Sobel & Feldman 1968).
        "sobel_x": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
        "sobel_y": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
        # Second derivatives: a pixel against its 4 or its 8 neighbours.
        "laplacian": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
        "edge": [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]],
        # Means over a neighbourhood: even, and falling off with the distance.
        "box_blur": np.full((3, 3), 1 / 9),
        "blur": np.outer(_BINOMIAL, _BINOMIAL),
        # The picture minus its Laplacian.
        "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
        # A relief: slopes that brighten to the lower right are lit, the others lie in shade.
        "emboss": [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]],
    }.items()
}


def apply_filter(image: np.ndarray, name: str) -> np.ndarray:
    """Return the picture under the filter called ``name``, one of ``FILTERS``.

    It runs on the backend that ``use_backend`` chose, else on NumPy's.

    Args:
        image: (H, W), or (H, W, C) whose channels are filtered one by one.

    Returns:
        The answers in the shape of the picture, whose border pixels are repeated outwards, so that
        a frame is no edge. A floating picture gives the plain sums in its dtype, negative ones
        too; an integer picture gives its own dtype again, rounded and cut off at its limits.

    Raises:
        ValueError: there is no such filter, or the picture has not 2 or 3 axes, or is empty.

    Example:
        >>> apply_filter(np.eye(3), "laplacian")
        array([[-2.,  2.,  0.],
               [ 2., -4.,  2.],
               [ 0.,  2., -2.]])
    """
    image = np.asarray(image)
    kernel = FILTERS[as_choice("apply_filter", "name", name, tuple(FILTERS))]
    if image.ndim not in (2, 3) or not image.size:
        raise ValueError(
            "apply_filter: the picture must have 2 axes, (height, width), or 3, (height, width,"
            f" channels), none empty. Received: image of shape {image.shape}"
        )
    whole = image.dtype.kind in "iu"
    x = image[..., None] if image.ndim == 2 else image  # (H, W, C)
    x = x.astype(np.float64 if whole else image.dtype)
    reach = kernel.shape[0] // 2
    x = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    channels = x.shape[-1]
    # The same kernel for each channel: (R, S) -> (C, R, S, 1), one group a channel.
    w = np.repeat(kernel[None, :, :, None], channels, axis=0).astype(x.dtype)
    backend = chosen_backend() or get_backend("numpy")
    x, w = backend.asarray(x[None]), backend.asarray(w)
    y = backend.to_numpy(F.conv_forward(x, w, groups=channels, owner="apply_filter"))[0]
    if whole:
        limits = np.iinfo(image.dtype)
        y = np.clip(np.rint(y), limits.min, limits.max)
    return y.reshape(image.shape).astype(image.dtype, copy=False)
