"""Dropout from a counter-based random number generator, and the optimizers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

WORD = 2**32


def philox4x32(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC'11)."""
    c, k = list(counter), list(key)
    for _ in range(10):
        product_0, product_1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [
            product_1 // WORD ^ c[1] ^ k[0],
            product_1 % WORD,
            product_0 // WORD ^ c[3] ^ k[1],
            product_0 % WORD,
        ]
        k = [(k[0] + 0x9E3779B9) % WORD, (k[1] + 0xBB67AE85) % WORD]
    return c


def dropout(x: np.ndarray, rate: float, seed: int, offset: int) -> np.ndarray:
    """Element i lives iff word i % 4 of the block i // 4 is at least floor(rate * 2^32)."""
    threshold = math.floor(rate * WORD)
    y = []
    for i, value in enumerate(x.astype(np.float64).ravel().tolist()):
        block = i // 4
        words = philox4x32(
            [block % WORD, block // WORD, offset % WORD, offset // WORD],
            [seed % WORD, seed // WORD],
        )
        y.append(value / (1 - rate) if words[i % 4] >= threshold else 0.0)
    return np.array(y, np.float64).reshape(x.shape)


def gather_batch(
    images: np.ndarray, labels: np.ndarray, order: np.ndarray, epoch: int, first: int, count: int,
    table: np.ndarray, seed: int, *, shift: int = 0, fill: int | None = 0, flip: float = 0.0,
    alternating: bool = False, cutout: int = 0, cover: int = 0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Pictures order[first:first + count], each shifted, flipped and covered; and their labels."""
    _, height, width, channels = images.shape
    x = np.empty((count, height, width, channels), table.dtype)
    for n in range(count):
        first_block, second_block = (
            philox4x32(
                [block % WORD, block // WORD, epoch, 1], [seed % WORD, seed // WORD % WORD]
            )
            for block in (2 * (first + n), 2 * (first + n) + 1)
        )  # fmt: skip
        down, right = (first_block[i] * (2 * shift + 1) // WORD - shift for i in (0, 1))
        flipped = first_block[2] / WORD < flip
        if alternating:
            own = philox4x32([int(order[first + n]), 0, 0, 2], [seed % WORD, seed // WORD % WORD])
            flipped = (own[2] / WORD < 0.5) != (epoch % 2)
        top = second_block[0] * height // WORD - cutout // 2
        left = second_block[1] * width // WORD - cutout // 2
        for h, w, c in np.ndindex(x.shape[1:]):
            row, column = h + down, (width - 1 - w if flipped else w) + right
            if fill is None:
                row, column = (
                    -i if i < 0 else 2 * (size - 1) - i if i >= size else i
                    for i, size in ((row, height), (column, width))
                )
            if top <= h < top + cutout and left <= w < left + cutout:
                pixel = cover
            elif 0 <= row < height and 0 <= column < width:
                pixel = images[order[first + n], row, column, c]
            else:
                pixel = fill
            x[n, h, w, c] = table[pixel, c]
    return x, labels[order[first : first + count]]


def global_norm(arrays: Sequence[np.ndarray]) -> float:
    return math.sqrt(sum(v * v for a in arrays for v in a.astype(np.float64).ravel().tolist()))


def gradient_scale(
    arrays: Sequence[np.ndarray], scale: float = 1.0, clip_norm: float = math.inf
) -> tuple[float, float]:
    """Return the norm of gradients of a scaled loss, and what to multiply them by."""
    norm = global_norm(arrays) / scale
    return norm, min(1.0, clip_norm / norm if norm else 1.0) / scale


def sgd_update(
    p: np.ndarray, grad: np.ndarray, v: np.ndarray, weight_decay: float, *, learning_rate: float,
    momentum: float, nesterov: bool, grad_scale: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Sutskever et al. 2013: return the new parameter and velocity of one tensor."""
    p, grad, v = (a.astype(np.float64) for a in (p, grad, v))
    g = grad_scale * grad + weight_decay * p
    v = momentum * v - learning_rate * g
    return (p + momentum * v - learning_rate * g if nesterov else p + v), v


def adam_update(
    p: np.ndarray, grad: np.ndarray, m: np.ndarray, v: np.ndarray, weight_decay: float, *,
    learning_rate: float, beta_1: float, beta_2: float, epsilon: float, correction_1: float,
    correction_2: float, decoupled: bool, grad_scale: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Kingma and Ba 2015, or Loshchilov and Hutter 2019 if decoupled: new p, m, v of one tensor."""
    p, grad, m, v = (a.astype(np.float64) for a in (p, grad, m, v))
    g = grad_scale * grad
    if decoupled:
        p = p - learning_rate * weight_decay * p
    else:
        g = g + weight_decay * p
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g**2
    m_hat, v_hat = m / correction_1, v / correction_2
    return p - learning_rate * m_hat / (np.sqrt(v_hat) + epsilon), m, v


def lookahead_update(p: np.ndarray, slow: np.ndarray, share: float) -> np.ndarray:
    """Zhang et al. 2019: the new slow weights of one tensor, and the new parameters."""
    p, slow = p.astype(np.float64), slow.astype(np.float64)
    return slow + share * (p - slow)


def muon_momentum(
    grad: np.ndarray, v: np.ndarray, momentum: float, nesterov: bool, grad_scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Jordan 2024: return what is made orthogonal, and the velocity of one tensor."""
    grad, v = grad_scale * grad.astype(np.float64), v.astype(np.float64)
    v = momentum * v + grad
    return (grad + momentum * v if nesterov else v), v


def orthogonal(u: np.ndarray, iterations: int, absolute: bool = False) -> np.ndarray:
    """Newton-Schulz as Jordan writes it; if ``absolute``, the sums of the terms' sizes."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = u.astype(np.float64).reshape(len(u), -1)
    if absolute:
        x, b = abs(x), -b
    rows, columns = x.shape
    x = x.T if rows > columns else x
    for _ in range(iterations):
        product = x @ x.T
        x = a * x + (b * product + c * product @ product) @ x
    x = x.T if rows > columns else x
    return (x * math.sqrt(max(1.0, rows / columns))).reshape(u.shape)
