"""The threads that the NumPy backend computes with, and its BLAS, which has one."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import gpucnn
from gpucnn.backends.numpy import threads, workers
from gpucnn.backends.numpy.convolution import pointwise
from gpucnn.backends.numpy.threads import at_most, one_blas_thread
from gpucnn.callbacks import LambdaCallback
from tests.forking import fork_allowed


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


def test_what_a_person_changes_inside_stays_so():
    with threadpool_limits(3, user_api="blas"):
        with one_blas_thread():
            inner = threadpool_limits(2, user_api="blas")
        assert blas_threads() == {2}
        inner.restore_original_limits()


def test_the_blas_has_one_thread_until_the_last_leaves():
    inside = one_blas_thread()
    with threadpool_limits(2, user_api="blas"), ThreadPoolExecutor(1) as pool:
        with inside:
            pool.submit(inside.__enter__).result()
        assert blas_threads() == {1}
        pool.submit(inside.__exit__, None, None, None).result()
        assert blas_threads() == {2}


def test_every_thread_of_the_process_can_limit_the_blas():
    """Also while the one lives that set the number first, a server's main thread say."""

    def inside() -> set[int]:
        with one_blas_thread():
            return blas_threads()

    with threadpool_limits(2, user_api="blas"), ThreadPoolExecutor(1) as pool:
        assert inside() == {1}
        assert pool.submit(inside).result() == {1}
        assert blas_threads() == pool.submit(blas_threads).result() == {2}


def test_the_least_of_several_limits_counts():
    with threadpool_limits(4, user_api="blas"), ThreadPoolExecutor(1) as pool:
        with at_most(3):
            assert blas_threads() == {3}
            other = at_most(2)
            pool.submit(other.__enter__).result()
            assert blas_threads() == {2}
            with one_blas_thread(), at_most(3):
                assert blas_threads() == {1}
            assert blas_threads() == {2}
        assert blas_threads() == {2}
        pool.submit(other.__exit__, None, None, None).result()
        assert blas_threads() == {4}


class FakeMKL:
    """Its thread-local number alone: 0 where the process's counts, as in the library."""

    def __init__(self):
        self.numbers = {}

    def __call__(self, threads: int) -> int:
        before = self.numbers.get(threading.get_ident(), 0)
        self.numbers[threading.get_ident()] = threads
        return before


def test_mkl_is_limited_in_each_thread_that_computes(monkeypatch, three_workers):
    mkl = FakeMKL()
    monkeypatch.setattr(threads, "_mkl_setters", lambda: [mkl])
    seen = {}
    me = threading.get_ident()

    def look(part: int) -> None:
        time.sleep(0.002)  # so that others take parts
        seen[threading.get_ident()] = mkl.numbers[threading.get_ident()]

    with one_blas_thread(), at_most(3):
        workers.run(look, 60)
    assert len(seen) > 1
    assert set(seen.values()) == {1}
    assert mkl.numbers[me] == 0  # the process's number again
    mkl(2)
    with at_most(4):
        assert mkl.numbers[me] == 2
    assert mkl.numbers[me] == 2


@pytest.mark.parametrize("size", [2, 20_000])
def test_every_operation_and_pass_has_one_blas_thread(monkeypatch, size):
    """Also what is too little to be shared: threads of the BLAS would take the cores from ours."""
    seen = []

    def multiply(self, *arrays):
        seen.append(blas_threads())
        return right(self, *arrays)

    right = pointwise.Pointwise.fprop
    monkeypatch.setattr(pointwise.Pointwise, "fprop", multiply)
    inside = gpucnn.Sequential([gpucnn.Dense(2)])
    inside.layers[0]._activate = lambda y, _: (seen.append(blas_threads()), (y, None))[1]
    inside.layers[0].fused = ()
    with threadpool_limits(2, user_api="blas"), gpucnn.use_backend("numpy"):
        gpucnn.functional.dense_forward(np.ones((size, 3)), np.ones((2, 3)))
        inside.forward(np.ones((size, 3)))
        assert blas_threads() == {2}
    assert seen == [{1}] * 3


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


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads are placed on Linux")
def test_the_threads_keep_off_the_callers_cpu(monkeypatch, three_workers):
    mine = os.sched_getaffinity(0)
    cpu = min(mine)
    monkeypatch.setattr(workers, "_current_cpu", lambda: lambda: cpu)
    squares(6)
    threads = [thread.native_id for thread in workers._workers.threads]
    assert len(threads) == 2
    for thread in threads:
        assert os.sched_getaffinity(thread) == (mine - {cpu} or mine)
    assert os.sched_getaffinity(0) == mine  # the caller's is left alone

    os.sched_setaffinity(0, {cpu})  # a caller that may use one CPU only
    try:
        workers._workers.avoided = None
        squares(6)
        assert all(os.sched_getaffinity(thread) == {cpu} for thread in threads)
    finally:
        os.sched_setaffinity(0, mine)


def test_where_nothing_tells_the_cpu_threads_stay_where_they_are(monkeypatch, three_workers):
    monkeypatch.setattr(workers, "_current_cpu", lambda: None)
    assert squares(6) == [0, 1, 4, 9, 16, 25]
    assert workers._workers.avoided is None


def test_the_threads_share_the_parts(three_workers):
    """Each thread has a part at the same time, the caller among them."""
    together, names = threading.Barrier(3), []

    def part(_: int) -> None:
        together.wait(timeout=20)
        names.append(threading.current_thread().name)

    workers.run(part, 6)
    caller = threading.current_thread().name
    assert sorted(names) == sorted([caller, "gpucnn-1", "gpucnn-2"] * 2)


def test_a_part_that_takes_long_holds_up_no_other(three_workers):
    others = threading.Semaphore(0)

    def part(index: int) -> None:
        if index:
            others.release()
        else:
            assert all(others.acquire(timeout=20) for _ in range(8))

    workers.run(part, 9)


def test_a_thread_that_does_not_wake_is_not_waited_for(monkeypatch, three_workers):
    monkeypatch.setattr(workers._Workers, "_serve", lambda *arguments: None)
    assert squares(9) == squares(9) == [part * part for part in range(9)]


def test_threads_come_and_go_as_they_please(three_workers):
    """Runs so short that the threads wake in the middle of them, behind them and in the next."""
    for parts in [1, 2, 3, 7] * 1000:
        assert squares(parts) == [part * part for part in range(parts)]


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
    with fork_allowed():
        process_pool = multiprocessing.get_context("fork").Pool(1)
    with process_pool as pool:
        assert pool.apply_async(squares, (9,)).get(timeout=20) == squares(9)
    assert squares(9) == [part * part for part in range(9)]


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system"
)
def test_a_process_that_is_forked_while_another_thread_computes():
    """It has the BLAS threads of before, and is held up by nobody."""
    fork = multiprocessing.get_context("fork")
    with threadpool_limits(2, user_api="blas"), ThreadPoolExecutor(1) as pool, one_blas_thread():
        with fork_allowed():
            processes = pool.submit(fork.Pool, 1).result()
        with processes:
            assert processes.apply_async(blas_threads).get(timeout=20) == {2}
            assert processes.apply_async(squares, (9,)).get(timeout=20) == squares(9)


def test_no_warning_escapes_a_worker(three_workers):
    """Warnings are errors here."""
    x = np.full((1 << 18, 4), 1e30, np.float32)
    x[::2] *= -1
    ones = np.ones(4, np.float32)
    assert np.isposinf(gpucnn.functional.batch_norm_train(x, ones, ones)[2]).all()
