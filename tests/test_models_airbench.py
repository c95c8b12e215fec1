"""airbench94: whitening, its initial filters, and the same steps as the peer in PyTorch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import gpucnn
from gpucnn import models
from gpucnn.backends import use_backend
from gpucnn.data import Normalize, Split
from gpucnn.initializers import initialize
from gpucnn.losses import CrossEntropy
from gpucnn.models.airbench import airbench94
from gpucnn.recipes import recipe_for
from profiling.gpu.airbench_torch import Network, Settings, Training

from .emulated_graphs import Device
from .test_step import same
from .tolerance import assert_close

WIDTHS = (8, 16, 12)


@pytest.fixture(scope="module")
def images():
    """Correlated pictures (N, 32, 32, 3): sums of smooth waves."""
    rng = np.random.default_rng(1)
    waves = rng.standard_normal((40, 32, 32, 3))
    waves = waves + np.roll(waves, 1, axis=1) + np.roll(waves, 1, axis=2)
    return waves + waves.mean(axis=-1, keepdims=True)


def made(images, dtype="float64"):
    gpucnn.set_seed(0)
    model = airbench94(10, (32, 32, 3), dtype, WIDTHS)
    models.whiten(model, images)
    return model


def test_whitened_patches_are_uncorrelated_and_of_variance_1(images):
    filters = models.whitening_filters(images, epsilon=0.0)
    assert filters.shape == (24, 2, 2, 3)
    np.testing.assert_array_equal(filters[12:], -filters[:12])
    y = gpucnn.functional.conv_forward(images, filters[:12])  # (N, 31, 31, 12)
    rows = y.reshape(-1, 12)
    patches = np.linalg.norm(filters.reshape(24, -1), axis=1)
    assert np.all(np.diff(patches[:12]) > 0)  # the strongest direction first
    # 12 numbers in each sum of a patch, and the eigenvectors' own rounding
    np.testing.assert_allclose(rows.T @ rows / len(rows), np.eye(12), atol=1e-10)


def test_whitening_filters_are_the_peers_but_for_their_signs(images):
    ours = models.whitening_filters(images)[:12].transpose(0, 3, 1, 2)  # KRSC -> KCRS
    peer = Network(Settings(dtype=torch.double)).double()
    peer.whiten(torch.from_numpy(images).permute(0, 3, 1, 2))
    theirs = peer.whitening.weight.detach().numpy()[:12]
    # the peer's covariance is a float32 one, and so are small eigenvalues' errors
    np.testing.assert_allclose(abs(ours), abs(theirs), rtol=1e-3, atol=1e-3)


def test_what_cannot_be_whitened_is_named(images):
    with pytest.raises(ValueError, match=r"whiten: .* built Conv2D called 'whitening'. Received"):
        models.whiten(models.make("lenet5", 10, (28, 28, 1)), images)
    with pytest.raises(ValueError, match=r"whitening_filters: images must be .*\(40, 1, 32, 3\)"):
        models.whitening_filters(images[:, :1])


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("filters", [4, 6, 12])
def test_dirac_filters_copy_their_channels(filters, groups):
    gpucnn.set_seed(3)
    layer = gpucnn.Conv2D(
        filters, 3, padding=1, groups=groups, use_bias=False, kernel_initializer="dirac"
    )
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 6))
    y = layer.forward(x)
    expected = torch.empty(filters, 6 // groups, 3, 3)
    torch.nn.init.dirac_(expected, groups)
    kernel = layer.params["kernel"].transpose(0, 3, 1, 2)  # KRSC -> KCRS
    copied = expected.flatten(1).sum(1).numpy() > 0
    assert copied.sum() == groups * min(filters // groups, 6 // groups)
    np.testing.assert_array_equal(kernel[copied], expected.numpy()[copied])
    for k in range(min(filters, 6) if groups == 1 else 0):
        np.testing.assert_array_equal(y[..., k], x[..., k])
    rest = kernel[~copied]
    bound = 1 / np.sqrt(9 * 6 // groups)
    assert rest.size == 0 or (abs(rest).max() <= bound and rest.std() > 0.4 * bound)


def test_dirac_is_for_kernels_of_any_dtype():
    layer = gpucnn.Conv1D(2, 3, padding=1, use_bias=False, kernel_initializer="dirac")
    x = np.random.default_rng(0).standard_normal((2, 5, 2)) + 1j
    np.testing.assert_array_equal(layer.forward(x), x)
    with pytest.raises(ValueError, match=r"dirac: is for kernels, .* Received: shape \(3,\)"):
        gpucnn.BatchNorm(gamma_initializer="dirac").build((3,))


def test_a_number_is_an_initializer_that_json_keeps():
    values = initialize("test", 0.25, (2, 3), (1, 1), np.dtype(np.float32))
    np.testing.assert_array_equal(values, np.full((2, 3), 0.25, np.float32))
    layer = gpucnn.layers.from_config(
        gpucnn.layers.to_config(gpucnn.Dense(3, kernel_initializer=2, name="d"))
    )
    assert layer.kernel_initializer == 2.0
    with pytest.raises(ValueError, match="kernel_initializer must be one of"):
        gpucnn.Dense(3, kernel_initializer=True)


def test_filters_and_scales_that_are_not_trained(images):
    model = made(images)
    paths = {parameter.path for parameter in model.parameters()}
    assert "whitening/bias" in paths and "block1/norm1/beta" in paths
    assert not any("gamma" in path or path == "whitening/kernel" for path in paths)
    twin = gpucnn.layers.from_config(gpucnn.layers.to_config(model))
    assert {parameter.path for parameter in twin.parameters()} == paths


def test_steps_of_the_recipe_are_those_of_the_peer(images):
    """Decay, momentum, faster biases, Lookahead and smoothed labels, at one rate, in float64."""
    model, labels = made(images), np.random.default_rng(2).integers(0, 10, len(images))
    count = len(images)
    settings = Settings(batch_size=count, widths=WIDTHS, device="cpu", dtype=torch.double)
    peer = Training(settings, steps=10, steps_per_epoch=10, state=model.state_dict())
    recipe = recipe_for("airbench94", "cifar10")
    optimizer, loss = recipe.make_optimizer(images=1000), recipe.make_loss()  # of ten steps
    assert isinstance(loss, CrossEntropy)
    # The peer's loss is a sum, so that its steps grow with the batch.
    optimizer.learning_rate = recipe.peak * count / recipe.batch_size
    theirs = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)
    values = []
    for _ in range(8):  # the slow weights follow after the fifth
        value, gradient = loss(model.forward(images, training=True), labels)
        model.backward(gradient)
        optimizer.step(model.parameters())
        expected = float(peer.step(*theirs, share=1.0))
        # a chain of sums over up to 9 * 16 numbers and 40 images of 31 x 31 pixels, and its steps
        assert_close(np.float64(value), np.float64(expected), reduction=40 * 31 * 31, magnitude=3.0)
        values.append(float(value))
    assert values[-1] < values[0] - 0.05


def test_the_whitening_bias_is_trained_for_some_epochs(images):
    labels = np.arange(len(images)) % 10
    model = made(images, "float32")
    recipe = recipe_for("airbench94", "cifar10")
    trainer = gpucnn.Trainer(
        model, recipe.make_loss(), recipe.make_optimizer(len(images)), backend="numpy",
        callbacks=recipe.make_callbacks(), progress=False,
    )  # fmt: skip
    fit = {"batch_size": 20, "validation_split": 0.0}
    trainer.fit(images.astype(np.float32), labels, epochs=3, **fit)
    before = model.state_dict()
    trainer.fit(images.astype(np.float32), labels, epochs=1, **fit)
    after = model.state_dict()
    assert before["whitening/bias"].any()
    np.testing.assert_array_equal(after["whitening/bias"], before["whitening/bias"])
    assert not np.array_equal(after["classifier/kernel"], before["classifier/kernel"])


def test_the_recipe_is_recorded_on_the_device_before_and_after_the_bias_is_frozen():
    """Data, flips, crops, rates and whatever else there is: replays are what plain steps are."""
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), np.arange(4))
    normalize, trainers = Normalize.of(split.images), []
    recipe = replace(recipe_for("airbench94", "cifar10"), epochs=5, batch_size=2)
    device = Device()
    with use_backend(device.backend):
        for record in (True, False):
            gpucnn.set_seed(0)
            model = airbench94(10, (32, 32, 3), "float32", (2, 4, 3))
            models.whiten(model, normalize(split.images))
            trainer = gpucnn.Trainer(
                model, recipe.make_loss(), recipe.make_optimizer(images=4), record=record,
                callbacks=recipe.make_callbacks(), backend=device.backend, progress=False,
            )  # fmt: skip
            trainer.fit(
                split, epochs=5, batch_size=2, validation_split=0.0, augment=recipe.augment,
                normalize=normalize,
            )  # fmt: skip
            trainers.append(trainer)
    recorded = trainers[0].training_step.steps.recordings.values()
    assert [step.recorded for step in recorded] == [True] and not trainers[0].recording_failure
    assert models.whitening_layer(trainers[0].model).frozen == ("kernel", "bias")
    assert same(*trainers)
