"""The networks with names: their sizes by the papers, and one step of each."""

from itertools import pairwise

import numpy as np
import pytest

import gpucnn
from gpucnn import models

MOBILE_WIDTHS = (16, 24, 24, 32, 32, 64, 64, 96)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # conv 3x3x1x16, norm, conv 3x3x16x32, norm, dense 4x4x32 -> 10
        ("digits_cnn", 144 + 32 + 4_608 + 64 + 5_130),
        # C1 5x5x1x6, C3 5x5x6x16, C5 400 -> 120, F6 120 -> 84, each with a norm, output 84 -> 10
        ("lenet5", 150 + 12 + 2_400 + 32 + 48_000 + 240 + 10_080 + 168 + 850),
        # He et al. 2016, table 6, say 0.27 M
        ("resnet20", 272_474),
        # Jordan 2024, section 3.1, says 1.97 M; PyTorch counts the norms' frozen scales, too
        ("airbench94", 1_972_792),
        # as https://github.com/kuangliu/pytorch-cifar's
        ("resnet18_cifar", 11_173_962),
        ("resnet50_cifar", 23_520_842),
        ("vgg11_cifar", 9_231_114),
        ("vgg13_cifar", 9_416_010),
        ("vgg16_cifar", 14_728_266),
        # torchvision's of ten classes: strides change no weight
        ("mobilenet_v2_cifar", 2_236_682),
        # stem and first block: conv 3x3x3x16, norm, depthwise 3x3 on 16, norm, conv 16 -> 16, norm;
        # blocks of a, 6a -> b: 6a(a + 2 + 9 + 2 + b) + 2b; conv 96 -> 384, norm, dense 384 -> 10
        (
            "mobilenet_v2_small",
            (432 + 32 + 144 + 32 + 256 + 32)
            + sum(6 * a * (a + 13 + b) + 2 * b for a, b in pairwise(MOBILE_WIDTHS))
            + (36_864 + 768 + 3_850),
        ),
    ],
)
def test_parameter_counts(name, parameters):
    assert models.make(name, 10, models.USUAL[name]).parameter_count() == parameters


# Those for ImageNet are held against torchvision's in test_interop_weights; those for CIFAR are
# made by the same functions.
SMALL = ("digits_cnn", "lenet5", "vgg_small", "resnet20", "mobilenet_v2_small", "airbench94")
CIFAR = [name for name in models.MODELS if name.endswith("_cifar")]


@pytest.mark.parametrize("name", SMALL)
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


@pytest.mark.parametrize("name", CIFAR)
def test_the_last_maps_of_a_cifar_network_are_as_large_as_its_paper_has_them(name):
    model = models.make(name, 10, (32, 32, 3))
    steps, shape = model._flow((32, 32, 3))
    last = [step.output_shape for step in steps if len(step.output_shape) == 3][-1]
    assert shape == (10,)
    assert last[:2] == ((1, 1) if name.startswith("vgg") else (4, 4))


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
