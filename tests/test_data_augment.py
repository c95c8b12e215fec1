"""Every augmentation against a plain loop that draws the same random numbers."""

import json

import numpy as np
import pytest

from gpucnn.data import (
    AlternatingFlip,
    Augmentation,
    Compose,
    Crop,
    Cutout,
    Flip,
    Loader,
    Normalize,
    Shift,
    Split,
)

STEPS = [
    Shift(2),
    Shift(3, fill=7),
    Shift(0),
    Crop(2),
    Crop(3, mode="zero"),
    Flip(),
    Flip(1.0),
    Cutout(1),
    Cutout(3, fill=9),
    Cutout(4),
    Cutout(50),
]


def batch(count=9, dtype=np.uint8):
    values = np.random.default_rng(4).integers(1, 256, (count, 7, 5, 2))
    return values.astype(dtype)


def moved(image, dy, dx, outside):
    """The image whose pixel (y, x) is the pixel (y + dy, x + dx) of `image`."""
    height, width, _ = image.shape
    out = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            out[y, x] = outside(image, y + dy, x + dx)
    return out


def filled(value):
    def outside(image, y, x):
        inside = 0 <= y < image.shape[0] and 0 <= x < image.shape[1]
        return image[y, x] if inside else value

    return outside


def mirrored(image, y, x):
    def fold(i, length):
        i = abs(i)
        return i if i < length else 2 * (length - 1) - i

    return image[fold(y, image.shape[0]), fold(x, image.shape[1])]


def plain(step, images, rng):
    """The loop version of `step`, an image at a time; it draws as the step does."""
    count, height, width, _ = images.shape
    out = images.copy()
    if isinstance(step, (Shift, Crop)):
        m = step.max_pixels if isinstance(step, Shift) else step.padding
        rows, columns = rng.integers(0, 2 * m + 1, (2, count)) - m
        outside = filled(step.fill if isinstance(step, Shift) else 0)
        if isinstance(step, Crop) and step.mode == "reflect":
            outside = mirrored
        for i in range(count):
            out[i] = moved(images[i], rows[i], columns[i], outside)
    elif isinstance(step, Flip):
        for i, draw in enumerate(rng.random(count)):
            if draw < step.p:
                for x in range(width):
                    out[i, :, x] = images[i, :, width - 1 - x]
    else:
        centres = zip(rng.integers(0, height, count), rng.integers(0, width, count), strict=True)
        for i, (cy, cx) in enumerate(centres):
            for y in range(cy - step.size // 2, cy - step.size // 2 + step.size):
                for x in range(cx - step.size // 2, cx - step.size // 2 + step.size):
                    if 0 <= y < height and 0 <= x < width:
                        out[i, y, x] = step.fill
    return out


@pytest.mark.parametrize("step", STEPS, ids=repr)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float16])
def test_a_step_does_what_the_plain_loop_does(step, dtype):
    images = batch(dtype=dtype)
    kept = images.copy()
    result = step(images, np.random.default_rng(11))
    expected = plain(step, images, np.random.default_rng(11))
    assert result.dtype == dtype and result.shape == images.shape
    assert np.array_equal(result, expected)
    assert np.array_equal(images, kept) and not np.shares_memory(result, images)


def test_every_shift_comes_and_none_beyond():
    image = np.zeros((1, 9, 9, 1), np.uint8)
    image[0, 4, 4] = 1
    shifted = Shift(2)(np.repeat(image, 2000, axis=0), np.random.default_rng(0))
    _, rows, columns, _ = np.nonzero(shifted)
    counts = np.bincount((rows - 2) * 5 + columns - 2, minlength=25)
    # 25 equal chances in 2000 draws: 80 each, with a deviation of 8.8
    assert len(rows) == 2000 and counts.size == 25 and np.all(np.abs(counts - 80) < 40)


def test_flip_has_its_probability():
    images = np.zeros((4000, 1, 2, 1), np.uint8)
    images[:, 0, 0] = 1
    flipped = Flip(0.3)(images, np.random.default_rng(1))[:, 0, 1, 0].mean()
    assert abs(flipped - 0.3) < 0.03  # four deviations of sqrt(0.21 / 4000)
    assert np.array_equal(Flip(0.0)(images, np.random.default_rng(1)), images)


def test_alternating_flips_take_turns_whatever_the_order_and_the_batches():
    images = np.zeros((400, 1, 2, 1), np.uint8)
    images[:, 0, 0] = np.arange(400)[:, None] % 250 + 1  # the label says which image it is
    split = Split(images, np.arange(400))

    def flipped(epoch, batch_size, seed=0):
        augment = Compose([Shift(0), AlternatingFlip()])
        found = np.zeros(400, bool)
        for x, labels in Loader(split, batch_size, seed=seed, augment=augment).epoch(epoch):
            found[labels] = x[:, 0, 1, 0] > 0
        return found

    first = flipped(0, 64)
    assert 150 < first.sum() < 250  # five deviations of sqrt(400 / 4)
    np.testing.assert_array_equal(flipped(1, 64), ~first)
    np.testing.assert_array_equal(flipped(2, 64), first)
    np.testing.assert_array_equal(flipped(2, 37), first)
    other = flipped(0, 64, seed=1)
    assert 150 < (other == first).sum() < 250


def test_alternating_flips_need_the_places():
    with pytest.raises(ValueError, match=r"AlternatingFlip: which images .* in_epoch"):
        AlternatingFlip()(batch(), np.random.default_rng(0))


def test_normalize_by_hand():
    images = np.array([10, 20, 30, 40], np.uint8).reshape(1, 1, 2, 2)
    result = Normalize((10, 20), (5, 10))(images)
    assert result.dtype == np.float32 and result.ravel().tolist() == [0, 0, 4, 2]
    assert Normalize(10, 5)(images).ravel().tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_normalize_of_gives_mean_0_and_deviation_1(dtype):
    rng = np.random.default_rng(6)
    images = rng.normal([30, 200], [5, 11], (3000, 3, 4, 2)).astype(dtype)  # more than one part
    step = Normalize.of(images)
    assert np.allclose(step.mean, images.mean(axis=(0, 1, 2), dtype=np.float64), rtol=1e-12)
    assert np.allclose(step.std, images.std(axis=(0, 1, 2), dtype=np.float64), rtol=1e-12)
    result = step(images).astype(np.float64)
    assert np.allclose(result.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    assert np.allclose(result.std(axis=(0, 1, 2)), 1, atol=1e-5)


def test_normalize_of_a_constant_channel_divides_by_one():
    images = np.full((5, 2, 2, 1), 7, np.uint8)
    assert Normalize.of(images) == Normalize(7, 1)


def test_compose_passes_one_generator_on():
    images = batch()
    steps = [Shift(2), Flip(), Cutout(3)]
    rng = np.random.default_rng(3)
    expected = images
    for step in steps:
        expected = plain(step, expected, rng)
    assert np.array_equal(Compose(steps)(images, np.random.default_rng(3)), expected)
    assert np.array_equal(Compose([])(images, rng), images)


@pytest.mark.parametrize(
    "step",
    [
        *STEPS,
        AlternatingFlip(),
        Normalize((1, 2), (3, 4)),
        Compose([Shift(1), Compose([Flip()]), Normalize(1, 2)]),
    ],
    ids=repr,
)
def test_config_survives_json(step):
    twin = Augmentation.from_config(json.loads(json.dumps(step.config())))
    assert twin == step and type(twin) is type(step)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shift(-1), "Shift: max_pixels .* Received: max_pixels=-1"),
        (lambda: Shift(1.5), "Shift: max_pixels .* Received: max_pixels=1.5"),
        (lambda: Crop(-2), "Crop: padding .* Received: padding=-2"),
        (lambda: Crop(2, mode="edge"), "Crop: mode .* Received: mode='edge'"),
        (lambda: Flip(1.2), "Flip: p .* Received: p=1.2"),
        (lambda: Flip("often"), "Flip: p .* Received: p='often'"),
        (lambda: Cutout(0), "Cutout: size .* Received: size=0"),
        (lambda: Normalize(0, 0), r"Normalize: std .* Received: std=\(0.0,\)"),
        (lambda: Normalize("dark", 1), "Normalize: mean must be a number .*mean='dark'"),
        (lambda: Normalize(0, float("nan")), "Normalize: std .* Received:"),
        (lambda: Normalize((1, 2, 3), 1)(batch()), "each of the 2 channels. Received:"),
        (
            lambda: Shift(1, fill=256)(batch(), np.random.default_rng()),
            "Shift: fill .* Received: fill=256",
        ),
        (lambda: Cutout(1, fill=0.5)(batch(), np.random.default_rng()), "Cutout: fill .* fill=0.5"),
        (lambda: Shift(1, fill="black"), "Shift: fill must be a number .*fill='black'"),
        (lambda: Augmentation.from_config({"type": "melt"}), "Received: 'melt'"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_compose_refuses_what_is_no_step():
    with pytest.raises(TypeError, match=r"Compose: steps must be a list of augmentations. .* 3\]"):
        Compose([Shift(1), 3])


@pytest.mark.parametrize("step", [Shift(1), Crop(1), Flip(), Cutout(1)])
def test_steps_take_batches_of_images_alone(step):
    with pytest.raises(ValueError, match=r"images must be \(N, H, W, C\).*shape \(4, 5\)"):
        step(np.ones((4, 5)), np.random.default_rng())


def test_a_normalisation_of_no_images():
    with pytest.raises(ValueError, match=r"Normalize.of: images must be .*shape \(0, 3, 3, 1\)"):
        Normalize.of(np.ones((0, 3, 3, 1)))
