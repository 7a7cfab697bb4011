"""Ranges of work: every row once, errors come out, nothing is left behind; BLAS limits restored."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import faiss  # noqa: F401, brings an OpenMP pool
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from threadpoolctl import ThreadpoolController, threadpool_info

from fmknn._threads import blas_threads, run_ranges, thread_count


@pytest.mark.parametrize("n_jobs", [1, 2, 7, np.int64(3)])
def test_a_number_of_threads_is_taken_at_its_word(n_jobs):
    assert thread_count(n_jobs) == n_jobs


@pytest.mark.parametrize("n_jobs", [None, -1])
def test_all_cores_are_those_granted(n_jobs):
    granted = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count()))(0)
    assert thread_count(n_jobs) == len(granted)


@pytest.mark.parametrize("n_jobs", [0, -2, 4097, 2**80, True, False, 1.5, 2.0, "2", [2]], ids=repr)
def test_any_other_number_of_threads_is_refused(n_jobs):
    with refused(ValueError, "n_jobs", repr(n_jobs)):
        thread_count(n_jobs)


@given(n=st.integers(0, 3000), n_jobs=st.integers(1, 5))
@settings(max_examples=40)
def test_every_row_is_in_exactly_one_range(n, n_jobs):
    ranges = []
    run_ranges(lambda start, stop: ranges.append((start, stop)), n, n_jobs)
    rows = [row for start, stop in ranges for row in range(start, stop)]
    assert sorted(rows) == list(range(n))


def test_many_rows_are_shared_among_threads():
    barrier = threading.Barrier(2, timeout=30)  # passes only if two tasks run at once
    waiting = threading.Semaphore(2)

    def task(start, stop):
        if waiting.acquire(blocking=False):
            barrier.wait()

    run_ranges(task, 10_000, 2)


def test_one_thread_is_the_callers_own():
    seen = []
    run_ranges(lambda start, stop: seen.append(threading.get_ident()), 10_000, 1)
    assert set(seen) == {threading.get_ident()}


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_an_error_in_a_task_comes_out(n_jobs):
    def task(start, stop):
        if stop == 5000:
            raise ArithmeticError("the last range failed")

    with refused(ArithmeticError, "the last range failed"):
        run_ranges(task, 5000, n_jobs)


def test_no_thread_outlives_the_call():
    before = threading.active_count()
    run_ranges(lambda start, stop: None, 10_000, 4)
    assert threading.active_count() == before


def test_run_ranges_within_run_ranges():
    done = np.zeros((4, 2000), dtype=int)

    def fill(row):
        def task(start, stop):
            done[row, start:stop] += 1

        run_ranges(task, 2000, 2)

    def outer(start, stop):
        for row in range(start, min(stop, 4)):
            fill(row)

    run_ranges(outer, 1024, 2)
    assert (done == 1).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_can_run_ranges():
    run_ranges(lambda start, stop: None, 10_000, 2)  # the parent has had a pool before
    child = os.fork()
    if child == 0:
        ranges = []
        run_ranges(lambda start, stop: ranges.append(stop - start), 10_000, 2)
        os._exit(0 if sum(ranges) == 10_000 else 1)
    assert os.waitpid(child, 0)[1] == 0


# --- BLAS and OpenMP ------------------------------------------------------------------------


def limits(user_api=None):
    """Threads of every pool, as the calling thread sees them."""
    pools = threadpool_info()
    return [p["num_threads"] for p in pools if user_api in (None, p["user_api"])]


def in_passing(action, *arguments, **options):
    """Call it in a thread that ends at once, so that no living thread owns the limit."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(action, *arguments, **options).result()


@pytest.fixture
def three_threads():
    """Start from limits of 3 everywhere, so that a limit of 1 shows."""
    pools = ThreadpoolController()
    blas = in_passing(pools.select(user_api="blas").limit, limits=3)
    with pools.select(user_api="openmp").limit(limits=3):
        assert set(limits()) == {3}, "numpy and faiss bring pools"
        yield
    in_passing(blas.restore_original_limits)


def test_the_limit_holds_inside_and_is_restored(three_threads):
    with blas_threads(1):
        assert set(limits()) == {1}
    assert set(limits()) == {3}


def test_the_limit_is_restored_after_an_error(three_threads):
    with pytest.raises(KeyError), blas_threads(1):
        raise KeyError
    assert set(limits()) == {3}


def test_none_leaves_the_limits_alone(three_threads):
    with blas_threads(None):
        assert set(limits()) == {3}


def test_a_limit_within_a_limit_is_restored_by_the_outer_one(three_threads):
    with blas_threads(1):
        with blas_threads(1):
            assert set(limits()) == {1}
        assert set(limits()) == {1}, "the inner one has restored too early"
    assert set(limits()) == {3}


def test_of_overlapping_threads_the_last_one_restores(three_threads):
    """Two workers that outlive their limits: the first one in is the first one out."""
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        own = {worker: worker.submit(limits, "openmp").result() for worker in (first, second)}
        held = {worker: blas_threads(1) for worker in (first, second)}
        for worker in (first, second):
            worker.submit(held[worker].__enter__).result()
            assert set(worker.submit(limits).result()) == {1}
        first.submit(held[first].__exit__, None, None, None).result()
        assert set(second.submit(limits).result()) == {1}, "the first one out has restored"
        second.submit(held[second].__exit__, None, None, None).result()
        assert set(limits("blas")) <= {3}, "there may be none"
        for worker in (first, second):
            assert worker.submit(limits, "openmp").result() == own[worker]
        with blas_threads(1):
            assert set(limits()) == {1}, "a thread that lives on has kept the limits to itself"
    assert set(limits()) == {3}
