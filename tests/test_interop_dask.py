"""Predictions over Dask arrays: on threads, on worker processes, and where one of these dies."""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path

import numpy as np
import pytest

import gpucnn
from gpucnn.interop.dask import predict

from .networks import two_headed
from .test_serving import classifier, pictures

da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

X = np.concatenate([pictures(client) for client in range(6)])  # 45 samples


def block_by_block(model: gpucnn.Sequential, sizes: tuple[int, ...]) -> np.ndarray:
    parts = np.split(X, np.cumsum(sizes)[:-1])
    return np.concatenate([model.predict(part) for part in parts if len(part)])


def cluster(processes: bool) -> distributed.LocalCluster:
    return distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=processes, dashboard_address=None
    )


@pytest.mark.parametrize("sizes", [(45,), (8, 8, 8, 8, 8, 5), (1,) * 45, (40, 0, 5), (0, 45)])
def test_whatever_the_blocks_the_numbers_are_predicts(sizes):
    model = classifier()
    y = predict(model, da.from_array(X, chunks=(sizes, 28, 28, 1)))
    assert (y.shape, y.chunks, y.dtype) == ((45, 10), (sizes, (10,)), np.float32)
    assert type(y._meta) is np.ndarray
    np.testing.assert_array_equal(y.compute(), block_by_block(model, sizes))


def test_nothing_runs_before_it_is_asked_for():
    def fail(block: np.ndarray) -> np.ndarray:
        raise AssertionError("a block was computed")

    blocks = da.zeros((4, 28, 28, 1), chunks=(2, 28, 28, 1), dtype=np.float32)
    lazy = blocks.map_blocks(fail, meta=np.empty((0,) * 4, np.float32))
    assert predict(classifier(), lazy).shape == (4, 10)


def test_blocks_of_unknown_sizes():
    model = classifier()
    chosen = np.arange(45) % 3 == 0
    blocks = da.from_array(X, chunks=(10, 28, 28, 1))[da.from_array(chosen, chunks=10)]
    assert np.isnan(blocks.shape[0])
    y = predict(model, blocks)
    assert np.isnan(y.shape[0]) and y.shape[1:] == (10,)
    places = (slice(start, start + 10) for start in range(0, 45, 10))
    parts = [model.predict(X[place][chosen[place]]) for place in places]
    np.testing.assert_array_equal(y.compute(), np.concatenate(parts))


def test_a_result_of_another_rank():
    model = gpucnn.Sequential(
        [gpucnn.Conv2D(2, 3, input_shape=(9, 8, 1)), gpucnn.Reshape((7, 3, 2, 2))]
    )
    x = np.random.default_rng(0).standard_normal((7, 9, 8, 1)).astype(np.float32)
    for chunks in (3, 7):
        y = predict(model, da.from_array(x, chunks=(chunks, 9, 8, 1)), batch_size=2)
        assert y.shape == (7, 7, 3, 2, 2)
        np.testing.assert_allclose(y.compute(), model.predict(x), rtol=1e-5, atol=1e-6)


class Counted(gpucnn.ReLU):
    """A layer that leaves a line in a file for each time that it is unpickled."""

    file = ""

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        with Path(self.file).open("a") as file:
            file.write(f"{os.getpid()}\n")


@pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
def test_workers_give_the_same_numbers_and_get_the_model_once(processes, tmp_path):
    """Two workers, of two threads each, whose blocks are computed side by side."""
    model = classifier()
    model.layers[4] = Counted(name="counted")
    model.layers[4].file = str(tmp_path / "unpickled")
    sizes = (3,) * 15
    y = predict(model, da.from_array(X, chunks=(sizes, 28, 28, 1)))
    with cluster(processes) as workers, distributed.Client(workers):
        found = y.compute()
    np.testing.assert_array_equal(found, block_by_block(model, sizes))
    if processes:
        unpickled = (tmp_path / "unpickled").read_text().split()
        in_workers = [pid for pid in unpickled if pid != str(os.getpid())]
        assert len(in_workers) == len(set(in_workers)) <= 2


def dying(block: np.ndarray, marker: Path, block_info: dict | None = None) -> np.ndarray:
    """Return the block, but at the sixth one, for the first time, kill the process."""
    if block_info is not None and block_info[0]["chunk-location"][0] == 5:
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            return block
        os.kill(os.getpid(), signal.SIGKILL)
    return block


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system does not kill like that")
def test_what_a_worker_leaves_when_it_dies_another_one_does(tmp_path):
    model, marker, sizes = classifier(), tmp_path / "died", (5,) * 9
    blocks = da.from_array(X, chunks=(sizes, 28, 28, 1))
    meta = np.empty((0,) * 4, np.float32)
    y = predict(model, blocks.map_blocks(dying, marker=marker, meta=meta))
    with cluster(processes=True) as workers, distributed.Client(workers) as client:
        before = set(client.run(os.getpid).values())
        found = y.compute()
        after = set(client.run(os.getpid).values())
    assert marker.exists() and not before <= after
    np.testing.assert_array_equal(found, block_by_block(model, sizes))


def test_a_model_travels_with_its_weights_and_no_more():
    model = classifier()
    weights = sum(array.nbytes for array in model.state_dict().values())
    y = model.forward(X, training=True)
    model.backward(y)
    model.forward(X, training=True)
    data = pickle.dumps(model)
    assert len(data) < weights + 20_000
    copy = pickle.loads(data)
    assert type(copy.backend) is type(model.backend)
    with pytest.raises(RuntimeError, match="call forward before each backward"):
        copy.backward(y)
    assert model.backward(y) is not None  # the model itself still has what it kept
    assert model.layers[0].grads and not copy.layers[0].grads
    model.load_state_dict(copy.state_dict())
    np.testing.assert_array_equal(copy.predict(X), model.predict(X))


class Cupylike(np.ndarray):
    """A kind of block that is not NumPy's own, as CuPy's are not."""


def test_the_kind_of_the_blocks_is_the_results():
    blocks = da.from_array(X, chunks=(20, 28, 28, 1)).map_blocks(
        lambda block: block.view(Cupylike), meta=np.empty((0,) * 4, np.float32).view(Cupylike)
    )
    assert type(predict(classifier(), blocks)._meta) is Cupylike


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda m, a: (m.layers[0], a), TypeError, "model must be a network of one input"),
        (lambda m, a: (two_headed(), a), TypeError, "model must be a network of one input"),
        (
            lambda m, a: (gpucnn.Sequential([gpucnn.Dense(1)]), a),
            ValueError,
            r"the model is not built; .*model.build\(input_shape\)",
        ),
        (lambda m, a: (m, X), TypeError, "must be a Dask array.*Received: numpy.ndarray"),
        (
            lambda m, a: (m, a.rechunk((9, 14, 28, 1))),
            ValueError,
            r"array.rechunk\({1: -1}\)\. Received: chunks=",
        ),
        (
            lambda m, a: (m, a[:, da.from_array(np.arange(28) > 3, chunks=28)]),
            ValueError,
            r"array.compute_chunk_sizes\(\)",
        ),
    ],
    ids=["layer", "graph", "unbuilt", "NumPy", "divided", "unknown"],
)
def test_what_does_not_fit_is_refused(change, kind, message):
    model, array = change(classifier(), da.from_array(X, chunks=(9, 28, 28, 1)))
    with pytest.raises(kind, match=f"^dask.predict: .*{message}"):
        predict(model, array)


def test_samples_of_another_shape_are_refused_at_once():
    with pytest.raises(ValueError, match=r"Conv2D 'conv2d': .*Received"):
        predict(classifier(), da.zeros((4, 28, 28, 3), chunks=(2, 28, 28, 3)))


def test_dask_itself_may_be_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dask", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "gpucnn\[dask\]"'):
        predict(classifier(), X)
