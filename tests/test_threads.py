"""The BLAS runs with one thread in a training, unless a person says otherwise."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import gpucnn
from gpucnn.backends.numpy.threads import BLAS_VARIABLES, limited_blas
from gpucnn.callbacks import LambdaCallback


def threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for variable in (*BLAS_VARIABLES, "GPUCNN_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)


def test_threads_are_limited_and_given_back():
    before = threads()
    with limited_blas():
        assert threads() == {1}
    assert threads() == before


def test_a_person_decides(monkeypatch):
    before = threads()
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    with limited_blas():
        assert threads() == before


def test_a_wrong_number_is_refused(monkeypatch):
    monkeypatch.setenv("GPUCNN_NUM_THREADS", "many")
    with pytest.raises(ValueError, match="must be a positive integer"), limited_blas():
        pass


def test_a_training_runs_limited_and_a_layer_alone_does_not():
    before, seen = threads(), []
    model = gpucnn.Sequential([gpucnn.Dense(2)])
    watch = LambdaCallback(on_batch_end=lambda batch: seen.append(threads()))
    trainer = gpucnn.Trainer(model, backend="numpy", callbacks=[watch], progress=False)
    trainer.fit(np.ones((8, 3), np.float32), np.arange(8) % 2, epochs=1)
    assert seen == [{1}]
    assert threads() == before
