"""Winograd's minimal filtering along one axis: the matrices, from the Cook-Toom algorithm.

A tile of m outputs y is computed from a window of inputs x and r taps w as

    y = A^T ((G w) * (B^T x))        A^T (m, a)   G (a, r)   B^T (a, window)

with a products, where the plain sum has m r. For a stride of 1, a = m + r - 1: polynomials of m
and r coefficients are multiplied by way of their values at a - 1 points and at infinity (Cook,
"On the minimum computation time of functions", 1966; Toom, 1963), and a correlation is the
transpose of such a product (Winograd, "Arithmetic Complexity of Computations", 1980). With the
points p and M(z) = (z - p_1) (z - p_2) ..., the row of a point p is

    A: p^i     G: p^k / M'(p)     B^T: the coefficients of M(z) / (z - p)

and that of infinity has the last output, the last tap and the coefficients of M. Nested along two
axes, F(m x m, r x r) has (a / m)^2 products an output (Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", 2016).

Rounding errors grow with the entries, so the points matter (Barabasz et al., "Error Analysis and
Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2020). In float32 the root
mean square error of F(4x4, 3x3) with 16 and 64 channels, as a multiple of that of a matrix product
over columns, is 5.1 and 5.9 with the usual points 0, +-1, +-2 and infinity, 2.5 and 2.8 with
0, +-3/4, +-3/2, and 2.5 and 2.7 with 0, +-5/8, +-3/2. Of all of these only G has inexact entries.
At a stride of 2, by F(4, 2) and F(4, 1), it is 2.0 and 2.3 with 0, +-1, 1/2 and infinity, and 1.3
and 1.5 with 0, 1/2, -1, 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

POINTS = {2: (0, 1, -1), 4: (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)}  # by m, for 3 taps
PAIR_POINTS = {2: (0, -1), 4: (0, 1 / 2, -1, 2)}  # for 2 taps


@dataclass(frozen=True, eq=False)
class Bilinear:
    """One axis of the algorithm, in float64.

    Attributes:
        outputs: A^T, (m, a).
        filters: G, (a, r).
        inputs: B^T, (a, window).
        step: how many inputs lie between the windows of neighbouring tiles.
    """

    outputs: np.ndarray
    filters: np.ndarray
    inputs: np.ndarray
    step: int


def cook_toom(m: int, r: int, points: Sequence[float]) -> Bilinear:
    """Return F(m, r): y[i] = sum over k of x[i + k] w[k].

    >>> cook_toom(2, 3, (0, 1, -1)).inputs
    array([[-1.,  0.,  1.,  0.],
           [ 0.,  1.,  1.,  0.],
           [ 0., -1.,  1.,  0.],
           [ 0., -1.,  0.,  1.]])
    """
    a = m + r - 1
    p = np.array(points, np.float64)
    outputs, filters, inputs = np.zeros((m, a)), np.zeros((a, r)), np.zeros((a, a))
    outputs[:, :-1] = p ** np.arange(m)[:, None]
    for j in range(a - 1):
        others = np.delete(p, j)
        filters[j] = p[j] ** np.arange(r) / np.prod(p[j] - others)
        inputs[j, :-1] = np.poly(others)[::-1]
    outputs[-1, -1] = filters[-1, -1] = 1
    inputs[-1] = np.poly(p)[::-1]
    return Bilinear(outputs, filters, inputs, m)


def plain(m: int) -> Bilinear:
    """Return F(m, 1), a product for each output."""
    return Bilinear(np.eye(m), np.ones((m, 1)), np.eye(m), m)


def dense(m: int) -> Bilinear:
    """Return F(m, 3) of stride 1."""
    return cook_toom(m, 3, POINTS[m])


def turned(algorithm: Bilinear) -> Bilinear:
    """Return the algorithm for the taps in reverse, as the gradient of the input has them."""
    return Bilinear(algorithm.outputs, algorithm.filters[:, ::-1], algorithm.inputs, algorithm.step)


def _phases(m: int) -> tuple[tuple[slice, Bilinear], ...]:
    """Of three taps at a stride of 2, those that meet the even inputs and those that meet the odd.

    With the algorithm of each: F(m, 2) and F(m, 1).
    """
    return (slice(0, 3, 2), cook_toom(m, 2, PAIR_POINTS[m])), (slice(1, 2), plain(m))


def strided(m: int) -> Bilinear:
    """Return y[i] = sum over k < 3 of x[2 i + k] w[k], by the two phases: 2 m + 1 products."""
    outputs, filters, inputs = [], [], []
    for taps, part in _phases(m):
        a = len(part.inputs)
        outputs.append(part.outputs)
        filters.append(np.zeros((a, 3)))
        filters[-1][:, taps] = part.filters
        inputs.append(np.zeros((a, 2 * m + 1)))
        inputs[-1][:, taps.start : taps.start + 2 * a : 2] = part.inputs
    return Bilinear(np.hstack(outputs), np.vstack(filters), np.vstack(inputs), 2 * m)


def strided_gradient(m: int, odd: bool) -> Bilinear:
    """Return x[i] = sum over k < 3, where i + pad - k is even, of y[(i + pad - k) / 2] w[k].

    A tile is m even and m odd pixels x, from a window of m + 1 y, the first of which is
    (pad - 1) // 2 for tile 0; ``odd`` says whether the padding is. Where i + pad is even, taps 2
    and 0 meet neighbouring y; where it is odd, tap 1 meets one.
    """
    outputs, filters, inputs = [], [], []
    for (taps, part), phase in zip(_phases(m), (int(odd), 1 - int(odd)), strict=True):
        a = len(part.inputs)
        outputs.append(np.zeros((2 * m, a)))
        outputs[-1][phase::2] = part.outputs
        filters.append(np.zeros((a, 3)))
        filters[-1][:, taps] = part.filters[:, ::-1]
        # With even padding, tap 1 of an odd pixel meets the second y, as tap 0 of an even one does.
        first = m + 1 - a if not odd else 0
        inputs.append(np.zeros((a, m + 1)))
        inputs[-1][:, first : first + a] = part.inputs
    return Bilinear(np.hstack(outputs), np.vstack(filters), np.vstack(inputs), m)
