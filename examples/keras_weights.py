"""A network that Keras trained, in gpucnn: its weights are read with h5py, without Keras.

    pip install gpucnn h5py
    python examples/keras_weights.py trained.keras

Keras 3 writes ``model.save("trained.keras")``, a zip archive, or its weights alone,
``model.save_weights("trained.weights.h5")``. In both, each layer has a group that is called by its
class and counted, whatever the layer's own name: layers/conv2d, layers/conv2d_1, layers/dense.
The program lists what a file holds. ``load`` fills a network of the same layers in the same order:

    model = gpucnn.Sequential([
        gpucnn.Conv2D(8, 3, activation="relu", input_shape=(28, 28, 1)),
        gpucnn.Flatten(),
        gpucnn.Dense(10),
    ])
    load(model, "trained.keras")

Both have channels last, so that pixels and columns lie alike; only the axes of kernels differ.
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

import gpucnn
from gpucnn.layers.base import Layer

Change = Callable[[np.ndarray], np.ndarray]


def as_it_is(array: np.ndarray) -> np.ndarray:
    return array


def filters_first(kernel: np.ndarray) -> np.ndarray:
    """(R, S, C, K) -> (K, R, S, C); a dense layer's (C, units) -> (units, C)"""
    return np.moveaxis(kernel, -1, 0)


def by_channel(kernel: np.ndarray) -> np.ndarray:
    """A depthwise kernel, (R, S, C, M) -> (C * M, R, S, 1)"""
    *window, channels, multiplier = kernel.shape
    return filters_first(kernel.reshape(*window, channels * multiplier))[..., None]


KERNEL = [("kernel", filters_first), ("bias", as_it_is)]
SCALE = [("gamma", as_it_is), ("beta", as_it_is)]

# Keras's name of the class, and our names of the arrays in its order
ARRAYS: dict[str, tuple[str, list[tuple[str, Change]]]] = {
    "Conv1D": ("conv1d", KERNEL),
    "Conv2D": ("conv2d", KERNEL),
    "Conv3D": ("conv3d", KERNEL),
    "Conv1DTranspose": ("conv1d_transpose", KERNEL),
    "Conv2DTranspose": ("conv2d_transpose", KERNEL),
    "Conv3DTranspose": ("conv3d_transpose", KERNEL),
    "DepthwiseConv1D": ("depthwise_conv1d", [("kernel", by_channel), ("bias", as_it_is)]),
    "DepthwiseConv2D": ("depthwise_conv2d", [("kernel", by_channel), ("bias", as_it_is)]),
    "SeparableConv1D": (
        "separable_conv1d", [("depthwise_kernel", by_channel), ("pointwise_kernel", filters_first),
                             ("bias", as_it_is)],
    ),
    "SeparableConv2D": (
        "separable_conv2d", [("depthwise_kernel", by_channel), ("pointwise_kernel", filters_first),
                             ("bias", as_it_is)],
    ),
    "Dense": ("dense", KERNEL),
    "BatchNorm": (
        "batch_normalization", [*SCALE, ("moving_mean", as_it_is), ("moving_variance", as_it_is)],
    ),
    "GroupNorm": ("group_normalization", SCALE),
    "LayerNorm": ("layer_normalization", SCALE),
}  # fmt: skip


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of a .keras or .weights.h5 file: "conv2d_1/0", "conv2d_1/1", ..."""
    data = Path(path).read_bytes()
    if zipfile.is_zipfile(io.BytesIO(data)):
        data = zipfile.ZipFile(io.BytesIO(data)).read("model.weights.h5")
    arrays: dict[str, np.ndarray] = {}

    def note(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name.removeprefix("layers/").replace("/vars/", "/")] = item[()]

    with h5py.File(io.BytesIO(data)) as file:
        file.visititems(note)
    others = "optimizer", "seed_generator"  # a whole model's file may hold these, too
    return {
        name: array for name, array in arrays.items() if not any(part in name for part in others)
    }


def load(model: gpucnn.Sequential, path: str | Path) -> None:
    """Fill a network whose layers are those of the Keras model, in its order.

    Raises:
        ValueError: an array is missing, unused or of another shape; nothing has been changed.
    """
    theirs, ours = read(path), {}
    count: Counter[str] = Counter()
    for layer in model.layers:
        if not layer.params:
            continue
        if type(layer).__name__ not in ARRAYS:
            raise ValueError(f"{path}: layers are {', '.join(ARRAYS)}. Received: {layer.label}")
        kind, arrays = ARRAYS[type(layer).__name__]
        group = f"{kind}_{count[kind]}" if count[kind] else kind
        count[kind] += 1
        for place, (key, change) in enumerate(kept(layer, arrays)):
            if f"{group}/{place}" not in theirs:
                raise ValueError(f"{path}: holds no {group}/{place} for {layer.label}: {key}")
            ours[f"{layer.name}/{key}"] = change(theirs.pop(f"{group}/{place}"))
    if theirs:
        raise ValueError(f"{path}: holds arrays that {model.label} has no place for: {[*theirs]}")
    model.load_state_dict(model.state_dict() | ours)


def kept(layer: Layer, arrays: list[tuple[str, Change]]) -> list[tuple[str, Change]]:
    """Leave out the bias of a layer without one."""
    return [item for item in arrays if item[0] in layer.params or item[0] in layer.state]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/keras_weights.py FILE")
    for name, array in read(sys.argv[1]).items():
        print(f"{name:40} {array.dtype} {array.shape}")
