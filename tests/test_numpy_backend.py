"""What is the NumPy backend's own: its special functions, its random numbers, its memory."""

from __future__ import annotations

import math
import threading
import tracemalloc

import numpy as np
import pytest

from gpucnn.backends import get_backend
from gpucnn.backends.numpy import buffers, pool, workers
from gpucnn.backends.numpy.blocks import choose, keep, pieces, window_slices
from gpucnn.backends.numpy.convolution import taps
from gpucnn.backends.numpy.convolution.workspace import workspace
from gpucnn.backends.numpy.dropout import philox
from gpucnn.backends.numpy.settings import settled
from gpucnn.backends.numpy.special import erfc
from gpucnn.shapes import ConvShape, NormShape, PoolShape
from tests import reference
from tests.cases import pixel_major

backend = get_backend("numpy")


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_erfc_is_exact_to_a_few_units_in_the_last_place(dtype):
    info = np.finfo(dtype)
    x = np.linspace(-7, 9 if dtype == np.float32 else 26, 5001).astype(dtype)
    exact = np.array([math.erfc(value) for value in x.tolist()])
    assert (exact > info.tiny).all()
    assert np.abs(erfc(x) / exact - 1).max() <= 8 * info.eps


def test_erfc_far_out():
    x = np.array([-np.inf, -1e30, -0.0, 0.0, 30.0, 1e30, np.inf, np.nan])
    np.testing.assert_array_equal(erfc(x), [2, 2, 1, 1, 0, 0, 0, np.nan])


# The known answers of Random123, kat_vectors: philox4x32, 10 rounds.
@pytest.mark.parametrize(
    ("counter", "offset", "seed", "words"),
    [
        (0, 0, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (
            0xFFFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF,
            [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        ),
        (
            0x85A308D3243F6A88, 0x0370734413198A2E, 0x299F31D0A4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)  # fmt: skip
def test_philox_known_answers(counter, offset, seed, words):
    assert philox(np.array([counter], np.uint64), offset, seed).tolist() == [words]


def test_dropout_is_one_sequence_over_its_blocks():
    """Element i's number depends on i alone, not on how many elements there are."""
    long = backend.dropout(np.ones(200_003, np.float32), 0.5, 3, 5)
    for size in (1, 65_537, 131_074):
        short = backend.dropout(np.ones(size, np.float32), 0.5, 3, 5)
        np.testing.assert_array_equal(short, long[:size])
    assert abs(np.count_nonzero(long) / long.size - 0.5) < 0.01


def test_selections_are_right_for_infinities_and_nans():
    values = np.array([np.inf, np.nan, -1.0, -np.inf], np.float32)
    mask = np.array([False, False, True, True])
    np.testing.assert_array_equal(keep(values, mask), [0, 0, -1, -np.inf])
    others = np.array([np.nan, 2.0, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(choose(mask, values, others), [np.nan, 2, -1, -np.inf])


@pytest.mark.parametrize(("length", "size"), [(0, 3), (1, 3), (7, 3), (9, 3), (5, 0)])
def test_pieces_cover_everything_once(length, size):
    parts = pieces(length, size)
    assert [i for part in parts for i in range(length)[part]] == list(range(length))
    assert all(part.stop - part.start <= max(1, size) for part in parts)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("offset", range(-7, 8))
def test_window_slices_find_the_outputs_that_read_an_input(stride, offset):
    size, start, stop = 6, 1, 5
    served, read = window_slices(size, stride, offset, start, stop)
    pairs = [
        (p, p * stride + offset) for p in range(start, stop) if 0 <= p * stride + offset < size
    ]
    outputs, inputs = range(start, stop)[served], range(size)[read]
    assert list(zip(outputs, inputs, strict=True)) == pairs


def conv_case(batch: int, size: int, channels: int, filters: int, kernel: int, **geometry):
    x = random(batch, size, size, channels)
    w = random(filters, kernel, kernel, channels // geometry.get("groups", 1), seed=1)
    shape = ConvShape.of(x.shape, w.shape, **geometry)
    return x, w, random(*shape.y_shape, seed=2), shape


def peak(function, *arguments) -> int:
    """The bytes that a call allocates at most, its result included."""
    workspace.memory.clear()
    buffers.clear()
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("groups", [1, 2, 64])
def test_a_large_layer_needs_little_more_memory_than_its_result(groups):
    """One image's columns would be 28 MB."""
    x, w, dy, shape = conv_case(1, 112, 64, 64, 3, padding="same", groups=groups)
    limit = 8 << 20
    assert shape.taps * x.nbytes > 3 * limit
    assert peak(backend.conv_fprop, x, w, None, shape) < dy.nbytes + limit
    assert peak(backend.conv_dgrad, dy, w, None, shape) < x.nbytes + limit
    assert peak(backend.conv_wgrad, x, dy, shape) < limit


def test_a_pointwise_convolution_copies_no_pixels():
    x, w, dy, shape = conv_case(8, 28, 64, 32, 1)
    x, dy = pixel_major(x, True), pixel_major(dy, True)
    slack = 1 << 17
    assert x.nbytes > 10 * slack
    assert peak(backend.conv_fprop, x, w, None, shape) < dy.nbytes + slack
    assert peak(backend.conv_dgrad, dy, w, None, shape) < x.nbytes + slack
    assert peak(backend.conv_wgrad, x, dy, shape) < slack


@pytest.mark.parametrize("rows", [200, 50, 20, 5, 2])
def test_blocks_of_every_size_give_the_same_convolution(monkeypatch, rows):
    """A block may be some rows of pixels, a part of one, or some images of a pixel."""
    x, w, dy, shape = conv_case(3, 13, 6, 8, 3, strides=2, padding=1, groups=2)
    for name in ("ROWS", "SHORT", "PART_WORK", "PARTS"):
        monkeypatch.setattr(taps, name, 1)
    monkeypatch.setattr(taps, "COLUMN_BYTES", rows * 4 * shape.taps * shape.channels)
    for got, expected in (
        (backend.conv_fprop(x, w, None, shape), reference.conv_fprop(x, w, None, shape)),
        (backend.conv_dgrad(dy, w, None, shape), reference.conv_dgrad(dy, w, None, shape)),
        (backend.conv_wgrad(x, dy, shape), reference.conv_wgrad(x, dy, shape)),
    ):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


def test_an_empty_batch_of_a_depthwise_convolution():
    x, w, _, shape = conv_case(0, 5, 4, 8, 3, groups=4)
    dy = np.zeros(shape.y_shape, np.float32)
    assert backend.conv_fprop(x, w, None, shape).shape == (0, 3, 3, 8)
    assert backend.conv_dgrad(dy, w, None, shape).shape == x.shape
    np.testing.assert_array_equal(backend.conv_wgrad(x, dy, shape), np.zeros_like(w))


@pytest.fixture
def one_thread(monkeypatch):
    """Each has scratch memory of its own."""
    monkeypatch.setattr(workers, "thread_count", lambda: 1)


def test_an_update_needs_no_memory_of_the_parameters_size(one_thread):
    param, gradient, m, v = (random(1 << 20, seed=seed) for seed in range(4))
    np.square(v, out=v)
    sgd = {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "grad_scale": None}
    adam = {
        "learning_rate": 0.1, "beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-7,
        "correction_1": 0.1, "correction_2": 0.01, "decoupled": False, "grad_scale": None,
    }  # fmt: skip
    limit = 1 << 20
    assert peak(lambda: backend.sgd_update([param], [gradient], [m], [0.1], **sgd)) < limit
    assert peak(lambda: backend.adam_update([param], [gradient], [m], [v], [0.1], **adam)) < limit


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_batch_norm_needs_little_more_memory_than_its_result(one_thread, activation):
    x, dy = (pixel_major(random(8, 64, 64, 32, seed=seed), True) for seed in (0, 1))
    gamma, beta, shape = random(32), random(32, seed=1), NormShape.of(x.shape)
    limit = x.nbytes + (1 << 21)
    assert peak(backend.batch_norm_train, x, gamma, beta, 1e-3, shape, activation) < limit
    mean, var = np.zeros(32, np.float32), np.ones(32, np.float32)
    arguments = (1e-3, True, shape, activation, beta if activation == "relu" else None)
    assert peak(backend.batch_norm_backward, dy, x, gamma, mean, var, *arguments) < limit


def test_batch_norm_of_squares_that_overflow():
    """The variance fits."""
    x = 1e20 + 1e17 * random(2, 40, 30, 3)
    ones = np.ones(3, np.float32)
    _, mean, var = backend.batch_norm_train(x, ones, ones, 1e-3, NormShape.of(x.shape))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=1e-5)


def test_an_infinity_stays_in_its_channel():
    x = random(2, 40, 30, 3)
    x[1, 2, 3, 2] = np.inf
    ones = np.ones(3, np.float32)
    y, mean, var = backend.batch_norm_train(x, ones, ones, 1e-3, NormShape.of(x.shape))
    assert np.isposinf(mean).tolist() == [False, False, True]
    assert np.isnan(var).tolist() == [False, False, True]
    assert np.isnan(y[..., 2]).all()
    assert np.isfinite(y[..., :2]).all()


def test_one_thread_and_three_give_the_same_bits(monkeypatch):
    x, dy = (pixel_major(random(8, 48, 48, 24, seed=seed), True) for seed in (0, 1))
    gamma, beta, norm = random(24), random(24, seed=1), NormShape.of(x.shape)
    window = PoolShape.of(x.shape, 3, mode="max", rank=2, strides=2, padding=1)

    def results() -> list[np.ndarray]:
        y, mean, var = backend.batch_norm_train(x, gamma, beta, 1e-3, norm, "relu")
        z, index = backend.pool_forward(y, window)
        dz = backend.pool_backward(z, index, window)
        masked = backend.activation_backward(dz, y, "relu", 0.0)
        arguments = (dy, x, gamma, mean, var, 1e-3, True, norm, "relu", beta)
        return [y, mean, var, z, index, dz, masked, *backend.batch_norm_backward(*arguments)[:3]]

    found = []
    for threads in (1, 3):
        monkeypatch.setattr(workers, "thread_count", lambda threads=threads: threads)
        monkeypatch.setattr(workers, "_workers", None)
        found.append([result.tobytes() for result in results()])
    assert found[0] == found[1]


def test_threads_of_the_backend_are_set_as_their_callers(monkeypatch):
    monkeypatch.setattr(workers, "thread_count", lambda: 3)
    monkeypatch.setattr(workers, "_workers", None)
    found, together = set(), threading.Barrier(3)

    def part(_):
        together.wait(10)
        found.add((threading.current_thread().name, np.getbufsize(), np.geterr()["over"]))

    settled(workers.run)(part, 3)
    assert len(found) == 3 and {setting[1:] for setting in found} == {(1024, "ignore")}


def test_what_is_composed_elsewhere_does_not_warn_either():
    """A batch norm of a channel of infinities; one behind a convolution of them."""
    x, one = np.full((1, 3, 3, 2), np.inf, np.float32), np.ones(2, np.float32)
    w, shape = np.ones((2, 1, 1, 2), np.float32), ConvShape.of(x.shape, (2, 1, 1, 2))
    y = backend.conv_norm_infer(x, w, None, shape, one, one, x[0, 0, 0], one, 0.0)
    assert np.isnan(y).all()


def test_the_size_of_numpys_buffers_is_the_callers_again():
    before = np.getbufsize()
    assert settled(np.getbufsize)() < before
    with pytest.raises(ZeroDivisionError):
        settled(lambda item: 1 / item)(0)
    assert np.getbufsize() == before


@pytest.mark.parametrize("channels", [8, 4096])
@pytest.mark.parametrize(("window", "stride"), [(3, 2), (2, 3), (5, 2), (4, 3)])
def test_windows_of_long_and_short_pixels(channels, window, stride):
    """Taps that a stride parts are read in place or copied next to each other."""
    x = np.round(2 * random(1, 7, 9, channels))  # with ties
    shape = PoolShape.of(x.shape, window, mode="max", rank=2, strides=stride, padding=1)
    y, index = backend.pool_forward(x, shape)
    dy = random(*shape.y_shape, seed=1)
    dx = backend.pool_backward(dy, index, shape)
    part = slice(3, 7)  # channels are alike: the slow reference is spared most
    few = PoolShape.of(x[..., part].shape, window, mode="max", rank=2, strides=stride, padding=1)
    exact, place = reference.pool_forward(x[..., part], few)
    np.testing.assert_array_equal(y[..., part], exact)
    np.testing.assert_array_equal(index[..., part], place)
    exact = reference.pool_backward(dy[..., part], place, few)
    np.testing.assert_allclose(dx[..., part], exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("size", [2, 9])
def test_large_windows_go_back_as_small_ones_do(monkeypatch, channels_last, size):
    """Overlapping, dilated and padded windows of 4 x 5; on the small map some hold no input."""
    x = random(*((2, size, 7, 3) if channels_last else (2, 3, size, 7)))
    shape = PoolShape.of(
        x.shape, (4, 5), mode="max", rank=2, strides=(2, 1), padding=(9, 2), dilation=(3, 1),
        channels_last=channels_last,
    )  # fmt: skip
    _, index = backend.pool_forward(x, shape)
    assert (index == shape.taps).any() == (size == 2)
    dy = random(*shape.y_shape, seed=1)
    tap_by_tap = backend.pool_backward(dy, index, shape)
    monkeypatch.setattr(pool, "MANY_TAPS", 0)
    np.testing.assert_allclose(backend.pool_backward(dy, index, shape), tap_by_tap, atol=1e-6)


def test_a_global_maximum_of_a_large_map():
    x = random(2, 40, 30, 3)
    shape = PoolShape.of(x.shape, (40, 30), mode="max", rank=2)
    assert shape.taps > pool.MANY_TAPS
    y, index = backend.pool_forward(x, shape)
    np.testing.assert_array_equal(y[:, 0, 0], x.max((1, 2)))
    dx = backend.pool_backward(np.full_like(y, 7), index, shape)
    np.testing.assert_array_equal(dx, np.where(x == y, 7, 0))


def test_what_overflows_is_an_infinity_without_a_warning():
    """Warnings are errors here; NumPy's own settings are as they were."""
    x = np.full((1, 2, 2, 1), 6e4, np.float16)
    w = np.full((1, 1, 1, 1), 2, np.float16)
    y = backend.conv_fprop(x, w, None, ConvShape.of(x.shape, w.shape))
    assert np.isposinf(y).all()
    shape = NormShape.of(y.shape)
    ones = np.ones(1, np.float16)
    assert np.isnan(backend.batch_norm_train(y, ones, ones, 1e-3, shape)[0]).all()
    with pytest.warns(RuntimeWarning, match="overflow"):
        np.float32(1e38) * np.float32(1e38)


def test_a_copy_on_the_host_is_a_copy():
    x = np.arange(3.0)
    assert backend.asarray(x) is x
    copy = backend.to_numpy(x)
    x[0] = 9
    assert copy[0] == 0
