"""examples/keras_weights.py on a file that Keras 3.15.1 wrote, and on the numbers that it gave."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import gpucnn
from examples import keras_weights
from gpucnn import layers as L

from .networks import numpy_backend as numpy_backend
from .tolerance import assert_close

FILE = Path(__file__).parent / "files" / "keras-3.15.1.weights.h5"

# What Keras's own model gave for pixels() on its JAX backend, in float32.
OUTPUTS = [
    [-2.3539979457855225, -4.420921802520752, 4.100908279418945, -2.1073145866394043,
     -1.2158572673797607],
    [-4.3413848876953125, -4.252321243286133, 3.22186017036438, -1.878538727760315,
     -0.6515571475028992],
]  # fmt: skip


def pixels() -> np.ndarray:
    return (np.arange(144).reshape(2, 9, 8, 1) % 7 - 3).astype("float32") / 2


def network(**options) -> gpucnn.Sequential:
    """The layers of the Keras model, under the same names of classes and arguments."""
    return gpucnn.Sequential(
        [
            L.Conv2D(4, 3, activation="relu", padding="same", strides=2),
            L.BatchNormalization(),
            L.DepthwiseConv2D(2, depth_multiplier=2),
            L.SeparableConv2D(3, 2, depth_multiplier=2, name="mine"),
            L.Conv2DTranspose(4, 3, strides=2, use_bias=False),
            L.Conv2D(6, 3, padding="same"),
            L.GroupNormalization(3),
            L.LayerNormalization(),
            L.MaxPooling2D(2),
            L.Flatten(),
            L.Dropout(0.3),
            L.Dense(5, **options),
        ],
        input_shape=(9, 8, 1),
    )


@pytest.mark.parametrize("archive", [False, True])
def test_the_outputs_are_those_of_keras(archive, tmp_path):
    path = FILE
    if archive:
        path = tmp_path / "trained.keras"
        with zipfile.ZipFile(path, "w") as made:
            made.write(FILE, "model.weights.h5")
    model = network()
    keras_weights.load(model, path)
    expected = np.array(OUTPUTS)
    assert_close(
        model.predict(pixels()), expected, dtype="float32", reduction=2000,
        magnitude=np.abs(expected).max(),
    )  # fmt: skip


def test_what_does_not_fit_changes_nothing():
    model = network(use_bias=False)
    before = model.state_dict()
    with pytest.raises(ValueError, match=r"no place for: \['dense/1'\]"):
        keras_weights.load(model, FILE)
    other = gpucnn.Sequential([L.PReLU(input_shape=(36,))])
    with pytest.raises(ValueError, match=r"layers are Conv1D, .*Received: PReLU 'p_re_lu'"):
        keras_weights.load(other, FILE)
    longer = gpucnn.Sequential([L.Dense(36, input_shape=(36,)), L.Dense(5)])
    with pytest.raises(ValueError, match=r"holds no dense_1/0 for Dense 'dense_1': kernel"):
        keras_weights.load(longer, FILE)
    for path, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[path])


def test_the_program_lists_the_arrays():
    root = Path(keras_weights.__file__).parents[1]
    command = [sys.executable, keras_weights.__file__, str(FILE)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert "conv2d_1/0                               float32 (3, 3, 4, 6)\n" in done.stdout
    assert len(done.stdout.splitlines()) == 20
