"""A first convolution that whitens patches: its filters are computed from images, not trained.

The patches that a window sees are strongly correlated. Filters along the eigenvectors of their
covariance, each divided by the root of its eigenvalue, give outputs that are not, and of variance
1 (Page, "How to train your ResNet 8", 2019; Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single
GPU", 2024, section 3.2).
"""

from __future__ import annotations

import numpy as np

from ..arguments import as_int, as_number
from ..layers.conv import Conv2D
from ..network import Network

LAYER = "whitening"  # the name of the layer that ``whiten`` fills


def whitening_filters(images: np.ndarray, window: int = 2, epsilon: float = 5e-4) -> np.ndarray:
    """Return filters (2 * R * S * C, R, S, C) that whiten the patches of images, and their
    negatives.

    Args:
        images: (N, H, W, C), normalised: patches are taken to have mean 0.
        window: R and S.
        epsilon: added to the eigenvalues, so that faint directions are not blown up.

    Raises:
        ValueError: the images are of another shape, or smaller than the window.

    Example:
        >>> images = np.random.default_rng(0).standard_normal((8, 6, 6, 3))
        >>> whitening_filters(images).shape
        (24, 2, 2, 3)
    """
    owner = "whitening_filters"
    window = as_int(owner, "window", window)
    epsilon = as_number(owner, "epsilon", epsilon, least=0)
    images = np.asarray(images)
    if images.ndim != 4 or min(images.shape[1:3]) < window or not images.size:
        raise ValueError(
            f"{owner}: images must be (N, H, W, C) of at least {window} pixels a side."
            f" Received: shape {images.shape}"
        )
    channels = images.shape[-1]
    length, covariance, count = window * window * channels, 0.0, 0
    for start in range(0, len(images), 1024):  # float64 patches of all images would be large
        part = images[start : start + 1024].astype(np.float64)
        patches = np.lib.stride_tricks.sliding_window_view(part, (window, window), axis=(1, 2))
        # (n, P, Q, C, R, S) -> (n, P, Q, R, S, C) -> (n * P * Q, R * S * C)
        rows = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, length)
        covariance, count = covariance + rows.T @ rows, count + len(rows)
    values, vectors = np.linalg.eigh(covariance / count)  # ascending; vectors in columns
    scaled = (vectors / np.sqrt(np.maximum(values, 0) + epsilon)).T[::-1]
    return np.concatenate([scaled, -scaled]).reshape(-1, window, window, channels)


def whitening_layer(model: Network) -> Conv2D | None:
    """Return the layer of a network that ``whiten`` fills, or None where it has none."""
    found = (layer for name, layer in model.walk() if name == LAYER)
    return next((layer for layer in found if isinstance(layer, Conv2D)), None)


def whiten(model: Network, images: np.ndarray) -> None:
    """Give the layer "whitening" of a network the filters of ``images``, in place.

    Args:
        images: some thousands of training images, normalised as for the network.

    Raises:
        ValueError: the network has no such layer, or the filters do not fit it.
    """
    layer = whitening_layer(model)
    if layer is None or not layer.built:
        raise ValueError(
            f"whiten: the network must have a built Conv2D called {LAYER!r}. Received: {model!r}"
        )
    filters = whitening_filters(images, layer.kernel_size[0])
    model.load_state_dict({f"{LAYER}/kernel": filters}, strict=False)
