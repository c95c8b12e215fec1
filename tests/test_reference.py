"""The reference, by hand: numbers that a person can follow on paper."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from tests import reference
from tests.reference.elementwise import FORWARD, SLOPE
from tests.reference.sliding import slide


def conv_1d(size: int, window: int, **changes: object) -> SimpleNamespace:
    fields = {
        "batch": 1, "channels": 1, "filters": 1, "input": (size,), "kernel": (window,),
        "strides": (1,), "padding": ((0, 0),), "dilation": (1,), "groups": 1, "channels_last": True,
    }  # fmt: skip
    return SimpleNamespace(**{**fields, **changes})


def pool_1d(size: int, window: int, mode: str, **changes: object) -> SimpleNamespace:
    fields = {
        "batch": 1, "channels": 1, "input": (size,), "window": (window,), "strides": (1,),
        "padding": ((0, 0),), "dilation": (1,), "mode": mode, "ceil_mode": False,
        "count_padding": False, "channels_last": True,
    }  # fmt: skip
    return SimpleNamespace(**{**fields, **changes})


def column(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float64).reshape(1, -1, 1)


def test_a_window_slides_until_it_no_longer_fits():
    assert slide(5, 3, 1, (0, 0), 1) == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert slide(5, 3, 2, (1, 1), 1) == [[-1, 0, 1], [1, 2, 3], [3, 4, 5]]
    assert slide(6, 3, 2, (0, 0), 1) == [[0, 1, 2], [2, 3, 4]]
    assert slide(6, 2, 1, (0, 0), 5) == [[0, 5]]
    assert slide(2, 3, 1, (0, 0), 1) == []


def test_ceil_mode_adds_a_window_over_what_is_left():
    assert slide(6, 3, 2, (0, 0), 1, ceil=True) == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    assert slide(2, 3, 2, (0, 0), 1, ceil=True) == [[0, 1, 2]]
    assert slide(2, 3, 1, (0, 0), 1, ceil=True) == []
    assert slide(5, 3, 2, (0, 0), 1, ceil=True) == [[0, 1, 2], [2, 3, 4]]  # nothing is left
    # the third window would start in the back padding
    assert slide(4, 2, 3, (1, 1), 1, ceil=True) == [[-1, 0], [2, 3]]


def test_convolution_does_not_flip():
    x, w, b = column(1, 2, 3, 4), np.array([[[10.0], [1.0]]]), np.array([100.0])
    y = reference.conv_fprop(x, w, b, conv_1d(4, 2))
    assert y.ravel().tolist() == [112, 123, 134]


def test_convolution_pads_strides_and_dilates():
    shape = conv_1d(5, 2, strides=(2,), padding=((1, 0),), dilation=(2,))
    x, w = column(1, 2, 3, 4, 5), np.array([[[10.0], [1.0]]])
    # windows at (-1, 1) and (1, 3)
    assert reference.conv_fprop(x, w, None, shape).ravel().tolist() == [2, 24]
    dy = column(7, 9)
    assert reference.conv_dgrad(dy, w, None, shape).ravel().tolist() == [0, 7 + 90, 0, 9, 0]
    assert reference.conv_wgrad(x, dy, shape).ravel().tolist() == [9 * 2, 7 * 2 + 9 * 4]


def test_the_textbooks_binary_image():
    image = ["11100", "01110", "00111", "00110", "01100"]
    kernel = ["101", "010", "101"]
    x = np.array([list(map(float, row)) for row in image]).reshape(1, 5, 5, 1)
    w = np.array([list(map(float, row)) for row in kernel]).reshape(1, 3, 3, 1)
    shape = conv_1d(
        5, 3, input=(5, 5), kernel=(3, 3), strides=(1, 1), padding=((0, 0),) * 2, dilation=(1, 1)
    )
    y = reference.conv_fprop(x, w, None, shape)[0, :, :, 0]
    assert y.tolist() == [[4, 3, 4], [2, 4, 3], [2, 3, 4]]


def test_groups_see_their_own_channels_only():
    shape = conv_1d(1, 1, channels=4, filters=2, groups=2)
    x, w = np.array([[[1.0, 2.0, 3.0, 4.0]]]), np.array([[[1.0, 10.0]], [[100.0, 1000.0]]])
    assert reference.conv_fprop(x, w, None, shape).tolist() == [[[21, 4300]]]
    dy = np.array([[[5.0, 7.0]]])
    assert reference.conv_dgrad(dy, w, None, shape).tolist() == [[[5, 50, 700, 7000]]]
    assert reference.conv_wgrad(x, dy, shape).tolist() == [[[5, 10]], [[21, 28]]]


def test_channels_first_is_the_same_with_the_axis_moved():
    shape = conv_1d(3, 2, channels=2, channels_last=False)
    x = np.array([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
    w = np.array([[[1.0, 10.0], [0.0, 100.0]]])  # taps by channels
    y = reference.conv_fprop(x, w, None, shape)
    assert y.tolist() == [[[1 + 40 + 500, 2 + 50 + 600]]]


def test_maximum_takes_the_first_of_several_and_nan_wins():
    shape = pool_1d(6, 3, "max")
    y, index = reference.pool_forward(column(3, 1, 3, math.nan, 5, math.nan), shape)
    assert y.ravel()[0] == 3 and np.isnan(y.ravel()[1:]).all()
    assert index.ravel().tolist() == [0, 2, 1, 0]


def test_a_maximum_of_minus_infinities_still_has_a_place():
    shape = pool_1d(3, 3, "max", padding=((1, 0),))
    y, index = reference.pool_forward(column(-math.inf, -math.inf, -math.inf), shape)
    assert y.ravel().tolist() == [-math.inf] * 2 and index.ravel().tolist() == [1, 0]


def test_a_window_without_inputs_is_marked():
    for mode, value, place in (("max", -math.inf, 2), ("min", math.inf, 2), ("sum", 0, 0)):
        shape = pool_1d(1, 2, mode, padding=((1, 1),), dilation=(2,))
        y, index = reference.pool_forward(column(8), shape)
        assert (y.item(), index.item()) == (value, place)
        given = index if mode != "sum" else None
        assert reference.pool_backward(column(1), given, shape).item() == 0


def test_an_average_divides_by_what_it_counts():
    x = column(1, 2, 4, 8)
    shape = pool_1d(4, 3, "average", strides=(2,), padding=((1, 0),), ceil_mode=True)
    y, _ = reference.pool_forward(x, shape)  # windows (-1, 0, 1) and (1, 2, 3)
    assert y.ravel().tolist() == [1.5, 14 / 3]
    shape.count_padding = True
    assert reference.pool_forward(x, shape)[0].ravel().tolist() == [1, 14 / 3]
    shape.window, shape.strides = (4,), (2,)  # (-1, 0, 1, 2) and (1, 2, 3, 4): 4 is beyond
    y, _ = reference.pool_forward(x, shape)
    assert y.ravel().tolist() == [7 / 4, 14 / 3]
    dx = reference.pool_backward(column(4, 3), None, shape)
    assert dx.ravel().tolist() == [1, 2, 2, 1]


@pytest.mark.parametrize("kind", FORWARD)
def test_slopes_are_those_of_the_forward_functions(kind):
    from_output = list(SLOPE).index(kind) < list(SLOPE).index("softplus")
    for x in (-4.1, -2.3, -0.7, -0.01, 0.01, 0.4, 1.3, 2.9, 5.5, 6.5):
        h = 1e-6
        central = (FORWARD[kind](x + h, 0.3) - FORWARD[kind](x - h, 0.3)) / (2 * h)
        slope = SLOPE[kind](FORWARD[kind](x, 0.3) if from_output else x, 0.3)
        assert slope == pytest.approx(central, abs=1e-8)


def test_softmax_by_hand():
    x = np.log(np.array([[1.0, 2.0, 5.0]]))
    assert reference.softmax_forward(x) == pytest.approx(np.array([[0.125, 0.25, 0.625]]))
    losses, dx = reference.softmax_cross_entropy(x, np.array([1]), 0.0, 2.0)
    assert losses == pytest.approx([math.log(4)])
    assert dx == pytest.approx(np.array([[0.25, -1.5, 1.25]]))
    smooth, _ = reference.softmax_cross_entropy(x, np.array([1]), 0.3, 1.0)
    assert smooth == pytest.approx([0.1 * math.log(8) + 0.8 * math.log(4) + 0.1 * math.log(1.6)])


def test_a_label_out_of_range_is_nan():
    x = np.zeros((3, 2))
    losses, dx = reference.softmax_cross_entropy(x, np.array([-1, 0, 2]), 0.0, 1.0)
    assert np.isnan(losses).tolist() == [True, False, True]
    assert np.isnan(dx).all(axis=1).tolist() == [True, False, True]


def test_normalisation_by_hand():
    shape = SimpleNamespace(batch=1, channels=1, length=2, groups=1, channels_last=True)
    x, one = np.array([[[3.0], [7.0]]]), np.ones(1)
    y, mean, var = reference.batch_norm_train(x, 10 * one, one, 0.0, shape)
    assert (mean.item(), var.item(), y.ravel().tolist()) == (5, 4, [-9, 11])
    y, mean, var = reference.group_norm_forward(x, 10 * one, one, 0.0, shape)
    assert (mean.item(), var.item(), y.ravel().tolist()) == (5, 4, [-9, 11])


def test_philox_gives_the_authors_known_answers():
    """The vectors of kat_vectors in Random123."""
    ones, pi = 0xFFFFFFFF, [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0]
    for counter, key, answer in (
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([ones] * 4, [ones] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (pi[:4], pi[4:], [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
    ):
        assert reference.philox4x32(counter, key) == answer


def test_dropout_reads_one_word_for_each_element():
    words = reference.philox4x32([0, 0, 5, 0], [7, 1]) + reference.philox4x32([1, 0, 5, 0], [7, 1])
    y = reference.dropout(np.ones(6), 0.25, 7 + 2**32, 5)
    assert y.tolist() == [4 / 3 if word >= 2**30 else 0 for word in words[:6]]


def test_momentum_by_hand():
    p, g, v = np.array([2.0]), np.array([3.0]), np.array([1.0])
    settings = {"learning_rate": 0.1, "momentum": 0.5, "grad_scale": 2.0}
    # g = 2 * 3 + 0.5 * 2 = 7; v = 0.5 - 0.7
    p_new, v_new = reference.sgd_update(p, g, v, 0.5, nesterov=False, **settings)
    assert (p_new.item(), v_new.item()) == pytest.approx((1.8, -0.2))
    p_new, _ = reference.sgd_update(p, g, v, 0.5, nesterov=True, **settings)
    assert p_new.item() == pytest.approx(2 - 0.5 * 0.2 - 0.7)


def test_adams_first_step_is_the_learning_rate():
    zero = np.zeros(2)
    p, m, v = reference.adam_update(
        zero, np.array([1e-3, -50.0]), zero, zero, 0.0, learning_rate=0.1, beta_1=0.9,
        beta_2=0.99, epsilon=0.0, correction_1=0.1, correction_2=0.01, decoupled=False,
        grad_scale=1.0,
    )  # fmt: skip
    assert p == pytest.approx([-0.1, 0.1])
    assert m == pytest.approx([1e-4, -5]) and v == pytest.approx([1e-8, 25])
