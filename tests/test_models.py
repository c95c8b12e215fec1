"""The networks with names: their sizes by the papers, and one step of each."""

import numpy as np
import pytest

import gpucnn
from gpucnn import models


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # conv1 3x3x1x32 + norm 64, conv2 3x3x32x64 + norm 128, dense 4x4x64x10 + 10
        ("digits_cnn", 288 + 64 + 18_432 + 128 + 10_250),
        # LeCun et al. 1998, but C3 joined to every map of S2: 2,416 in place of 1,516; trainable
        # sums of S2 and S4 are max pools, and the output is a dense layer
        ("lenet5", 156 + 2_416 + 48_120 + 10_164 + 850),
        # He et al. 2016, table 6, say 0.27 M
        ("resnet20", 272_474),
    ],
)
def test_parameter_counts(name, parameters):
    assert models.make(name, 10, models.USUAL[name]).parameter_count() == parameters


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_lowers_the_loss(name, dtype):
    gpucnn.set_seed(0)
    rng = np.random.default_rng(1)
    model = models.make(name, 3, models.USUAL[name], dtype)
    x = rng.standard_normal((12, *models.USUAL[name]))
    labels = np.arange(12) % 3
    trainer = gpucnn.Trainer(model, optimizer="adam", backend="numpy", progress=False)
    history = trainer.fit(x, labels, epochs=8, batch_size=12, validation_split=0.0)
    assert model.forward(x).shape == (12, 3)
    assert model.forward(x).dtype == dtype
    assert history["loss"][-1] < 0.8 * history["loss"][0]


def test_names_are_given_by_the_size_of_the_images():
    assert models.fitting((8, 8, 1)) == "digits_cnn"
    assert models.fitting((28, 28, 1)) == "lenet5"
    assert models.fitting((28, 64, 1)) == "lenet5"
    assert models.fitting((224, 224, 3)) == "vgg_small"
    assert models.make("auto", 4, (32, 48, 3)).name == "vgg_small"


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="make: name must be one of 'auto', 'digits_cnn'"):
        models.make("alexnet", 10, (32, 32, 3))
    with pytest.raises(ValueError, match=r"lenet5.*conv2d_1 fails"):
        models.make("lenet5", 10, (6, 6, 1))


def test_probabilities():
    logits = np.array([[1000.0, 1000.0, -1000.0], [0.0, np.log(2.0), 0.0]])
    expected = np.array([[0.5, 0.5, 0.0], [0.25, 0.5, 0.25]], np.float32)
    np.testing.assert_allclose(models.probabilities(logits), expected, rtol=1e-6)
    np.testing.assert_array_equal(models.probabilities(expected), expected)
