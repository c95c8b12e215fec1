"""Bugs in optimizers and in the batches that they learn from."""

from __future__ import annotations

import numpy as np

from gpucnn.backends.cuda import CudaBackend
from gpucnn.changes import Changes
from tests import reference
from tests.planted_bugs.common import Bug, assert_close, random
from tests.tolerance import assert_close as close


def adam(backend: CudaBackend) -> None:
    params = [random("p", (5, 7)), random("q", (4099,))]
    grads = [random("g", p.shape) for p in params]
    m, v = ([np.zeros(p.shape, np.float32) for p in params] for _ in range(2))
    settings = dict(
        learning_rate=0.1, beta_1=0.9, beta_2=0.99, epsilon=1e-6, correction_1=0.1,
        correction_2=0.01, decoupled=True, grad_scale=None,
    )  # fmt: skip
    expected = [p - 0.1 * np.sign(g) * (np.abs(g) / (np.abs(g) + 1e-6))
                for p, g in zip(params, map(np.float64, grads), strict=True)]  # fmt: skip
    backend.adam_update(params, grads, m, v, [0.0, 0.0], **settings)
    for got, want in zip(params, expected, strict=True):
        assert_close(got, want, reduction=12, magnitude=np.abs(want) + 0.1)


def global_norm(backend: CudaBackend) -> None:
    grads = [random("g", (9000,)), random("h", (3, 5))]
    exact = np.sqrt(sum((np.float64(g) ** 2).sum() for g in grads))
    close(backend.gradient_scale(grads)[0], exact, dtype=np.float64, reduction=9015)


def masters(backend: CudaBackend) -> None:
    """One that is up to date but for an element, and of a rate that float16 cannot follow."""
    p, master = np.ones(5000, np.float16), np.full(5000, 1.0001, np.float32)
    p[7] = 2.0
    backend.sgd_update(
        [p], [np.ones(5000, np.float16)], [np.zeros(5000, np.float32)], [0.0], grad_scale=None,
        learning_rate=1e-4, momentum=0.0, nesterov=False, masters=[master],
    )  # fmt: skip
    assert_close(master, np.where(np.arange(5000) == 7, 2.0, 1.0001) - 1e-4, reduction=3)
    np.testing.assert_array_equal(p, master.astype(np.float16))


def loss_scaling(backend: CudaBackend) -> None:
    """An overflow, and then Adam's first step, which is the learning rate."""
    p, m, v = (np.zeros(300, np.float32) for _ in range(3))
    scale, skipped = np.array([8.0, 0.0]), np.zeros(1)
    for step, value in enumerate((np.inf, 4.0), 1):
        grads = [np.full(300, value, np.float32)]
        _, factor, *corrections = backend.gradient_scale(
            grads, loss_scale=scale, growth_interval=9, skipped=skipped, step=step,
            betas=(0.9, 0.99),
        )  # fmt: skip
        backend.adam_update(
            [p], grads, [m], [v], [0.0], learning_rate=0.1, beta_1=0.9, beta_2=0.99, epsilon=1e-6,
            correction_1=corrections[0], correction_2=corrections[1], decoupled=False,
            grad_scale=factor,
        )  # fmt: skip
    assert_close(p, np.full(300, -0.1), reduction=12, magnitude=1.0)
    assert_close(m, np.full(300, 0.1), reduction=4)  # a gradient of 4 over a scale of 4
    assert scale.tolist() == [4, 1] and skipped == 1


def muon(backend: CudaBackend) -> None:
    grads = [random("g", (3, 5)), random("h", (9, 1000))]
    velocities = [random("v", g.shape) for g in grads]
    expected = [reference.muon_momentum(g, v, 0.9, True, 1.0)[0]
                for g, v in zip(grads, velocities, strict=True)]  # fmt: skip
    got = backend.muon_direction(grads, velocities, momentum=0.9, nesterov=True, grad_scale=None)
    for direction, u in zip(got, expected, strict=True):
        norm = reference.global_norm([u])
        assert_close(direction, u / norm, reduction=12, magnitude=4 / norm)
    a, b = random("a", (17, 17)), random("b", (17, 17))
    got = backend.newton_schulz(a, b, (3.0, -4.0, 2.0))
    assert_close(got, 3 * np.eye(17) - 4.0 * a + 2.0 * b, reduction=4, magnitude=9.0)


def augment(backend: CudaBackend) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 41, 37, 3), np.uint8)
    flat = np.ascontiguousarray(images[:1, :3])  # mirrored as far as it goes
    labels, table = np.arange(4), np.arange(768, dtype=np.float32).reshape(256, 3)
    whole, mirrored = {"flip": 0.5, "cutout": 5, "cover": 9}, {"shift": 2, "fill": None}
    for pictures, order, options in (
        (images, [2, 0, 3, 1], mirrored | whole),
        (images, [2, 0, 3, 1], {"shift": 2, "fill": 7, "flip": 0.5}),
        (images, [2, 0, 3, 1], {"alternating": True}),
        (flat, [0] * 24, mirrored),
    ):
        order, count = np.array(order, np.int32), len(order) - 1
        own = labels[: len(pictures)]
        at = 5 * 2**32 + 1
        got = backend.gather_batch(pictures, own, order, at, count, table, Changes(**options), 8)
        expected = reference.gather_batch(pictures, own, order, 5, 1, count, table, 8, **options)
        assert np.array_equal(got[0], expected[0]) and np.array_equal(got[1], expected[1])


BUGS = [
    Bug("the draws are read before they are there", augment, "augment.cu",
        "    __syncthreads();  // the table and the draws are there\n", ""),
    Bug("mirrored about the edge, not the pixel there", augment, "augment.cu",
        "size - 1 - abs(size - 1", "size - abs(size - 1"),
    Bug("a column too far when flipped", augment, "augment.cu", "b.width - 1 - column",
        "b.width - column"),
    Bug("every epoch's turn is the first's", augment, "augment.cu", "epoch % 2 == 0", "true"),
    Bug("the place in the batch, not in the epoch", augment, "augment.cu",
        "(unsigned)at + blockIdx.x", "blockIdx.x"),
    Bug("the rows and columns that enter are read", augment, "augment.cu",
        "(unsigned)from_row >= (unsigned)b.height", "from_row >= b.height"),
    Bug("both parts of a picture begin at the first", augment, "augment.cu",
        "blockIdx.y * BLOCK_THREADS + threadIdx.x", "threadIdx.x"),
    Bug("elements beyond the picture are read", augment, "augment.cu", "if (first + j < size)", ""),
    Bug("chunks overlap", adam, "multi_tensor.cuh", "min(chunk.begin + CHUNK, tensor.size)",
        "tensor.size"),
    Bug("the end of a tensor unchecked", adam, "multi_tensor.cuh",
        "min(chunk.begin + CHUNK, tensor.size)", "chunk.begin + CHUNK"),
    Bug("squares are not squared", global_norm, "global_norm.cu", "sum += value * value",
        "sum += value"),
    Bug("a parameter that was changed is not", masters, "multi_tensor.cuh",
        "widen(narrow(master)) == p ? master : p", "master"),
    Bug("the master is left behind", masters, "multi_tensor.cuh",
        "    if (tensor.master) tensor.master[i] = p;\n", ""),
    Bug("the rounding is added to, not the master", masters, "multi_tensor.cuh",
        "if (!tensor.master) return p;", "return p;"),
    Bug("gradients that overflowed are taken", loss_scaling, "optimizer.cu",
        "    if (grad_scale && *grad_scale == 0) return;\n", ""),
    Bug("skipped steps count as made", loss_scaling, "gradient_scale.cu",
        " - (skipped ? *skipped : 0)", ""),
    Bug("the scale stays after an overflow", loss_scaling, "gradient_scale.cu",
        "growth_interval > 0 ? scale / 2 : scale", "scale"),
    Bug("gradients keep the scale", loss_scaling, "gradient_scale.cu",
        "clip_norm / norm : 1) / scale", "clip_norm / norm : 1)"),
    Bug("another tensor's norm", muon, "muon.cu", "blockIdx.x - chunk.begin / CHUNK", "0"),
    Bug("the look ahead twice", muon, "muon.cu",
        "momentum * velocities[k] : velocities[k]", "velocities[k] : velocities[k]"),
    Bug("ones in a column", muon, "muon.cu", "i / n == i % n", "i % n == 0"),
]  # fmt: skip
