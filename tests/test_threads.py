"""The threads that the NumPy backend computes with, and its BLAS, which has one."""

from __future__ import annotations

import multiprocessing
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import gpucnn
from gpucnn.backends.numpy import workers
from gpucnn.backends.numpy.threads import one_blas_thread
from gpucnn.callbacks import LambdaCallback


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for variable in ("GPUCNN_NUM_THREADS", *workers.VARIABLES):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(workers, "thread_count", workers.thread_count.__wrapped__)


@pytest.fixture
def three_workers(monkeypatch):
    monkeypatch.setattr(workers, "thread_count", lambda: 3)
    monkeypatch.setattr(workers, "_workers", None)


def squares(parts: int) -> list[int]:
    """Fill a list through the workers; each part writes its own place."""
    results = [0] * parts
    workers.run(lambda part: results.__setitem__(part, part * part), parts)
    return results


def test_the_blas_has_one_thread_inside_and_its_own_again_behind():
    before = blas_threads()
    with one_blas_thread():
        assert blas_threads() == {1}
        with one_blas_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == before


def test_a_training_has_one_blas_thread_and_gives_the_others_back():
    before, seen = blas_threads(), []
    model = gpucnn.Sequential([gpucnn.Dense(2)])
    watch = LambdaCallback(on_batch_end=lambda batch: seen.append(blas_threads()))
    trainer = gpucnn.Trainer(model, backend="numpy", callbacks=[watch], progress=False)
    trainer.fit(np.ones((8, 3), np.float32), np.arange(8) % 2, epochs=1)
    assert seen == [{1}]
    assert blas_threads() == before


@pytest.mark.parametrize("variable", ["GPUCNN_NUM_THREADS", *workers.VARIABLES])
def test_a_person_decides_how_many_threads(monkeypatch, variable):
    monkeypatch.setenv(variable, "7")
    assert workers.thread_count() == 7


def test_our_own_variable_comes_first(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("GPUCNN_NUM_THREADS", "5")
    assert workers.thread_count() == 5


@pytest.mark.parametrize("value", ["many", "0", "-1", "1.5"])
def test_a_wrong_number_is_refused(monkeypatch, value):
    monkeypatch.setenv("GPUCNN_NUM_THREADS", value)
    with pytest.raises(ValueError, match="must be a positive integer"):
        workers.thread_count()


def test_every_part_is_done_once(three_workers):
    for parts in (0, 1, 2, 3, 4, 100):
        assert squares(parts) == [part * part for part in range(parts)]


def test_the_threads_share_the_parts(three_workers):
    """Part i is thread i mod n's; the caller is thread 0."""
    names = [""] * 6
    workers.run(lambda part: names.__setitem__(part, threading.current_thread().name), 6)
    caller = threading.current_thread().name
    assert names == [caller, "gpucnn-1", "gpucnn-2"] * 2


@pytest.mark.parametrize("wrong", range(4))
def test_an_error_in_a_part_reaches_the_caller_and_the_threads_live_on(three_workers, wrong):
    def fail(part: int) -> None:
        if part == wrong:
            raise KeyError(part)

    with pytest.raises(KeyError, match=str(wrong)):
        workers.run(fail, 4)
    assert squares(7) == [part * part for part in range(7)]


def test_work_inside_work_is_done_where_it_is(three_workers):
    results = [[]] * 3
    workers.run(lambda part: results.__setitem__(part, squares(part + 2)), 3)
    assert results == [squares(2), squares(3), squares(4)]


def test_several_callers_at_once(three_workers):
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(squares, [50] * 200)) == [squares(50)] * 200


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system"
)
def test_a_forked_process_starts_threads_of_its_own(three_workers):
    squares(9)
    with warnings.catch_warnings():
        # newer Pythons warn of any fork of a process with threads
        warnings.simplefilter("ignore", DeprecationWarning)
        process_pool = multiprocessing.get_context("fork").Pool(1)
    with process_pool as pool:
        assert pool.apply_async(squares, (9,)).get(timeout=20) == squares(9)
    assert squares(9) == [part * part for part in range(9)]


def test_no_warning_escapes_a_worker(three_workers):
    """Warnings are errors here."""
    x = np.full((1 << 18, 4), 1e30, np.float32)
    x[::2] *= -1
    ones = np.ones(4, np.float32)
    assert np.isposinf(gpucnn.functional.batch_norm_train(x, ones, ones)[2]).all()
