"""Work cut into ranges, run on a pool of threads. Kernels release the GIL and own their rows."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from numbers import Integral
from typing import Any

__all__ = ["blas_threads", "run_ranges", "thread_count"]

_MOST_THREADS = 4096  # more than any machine has, and within what OpenMP takes
_MIN_ROWS_PER_TASK = 256  # below this a task costs more to hand over than to do


def thread_count(n_jobs: int | None) -> int:
    """Return the number of threads that ``n_jobs`` means here (-1 or None: all cores granted)."""
    if n_jobs is None or n_jobs == -1:
        try:
            return len(os.sched_getaffinity(0))
        except AttributeError:  # macOS and Windows have no affinity call
            return os.cpu_count() or 1
    whole = isinstance(n_jobs, Integral) and not isinstance(n_jobs, bool)
    if not whole or not 1 <= n_jobs <= _MOST_THREADS:
        raise ValueError(
            f"n_jobs must be a number of threads from 1 to {_MOST_THREADS}, -1 or None, "
            f"got {n_jobs!r}"
        )
    return int(n_jobs)


def run_ranges(
    task: Callable[[int, int], Any],
    n: int,
    n_jobs: int | None = 1,
    *,
    smallest: int = _MIN_ROWS_PER_TASK,
) -> None:
    """Call ``task(start, stop)`` over ranges that cover 0..n, each row in exactly one of them.

    There are no more threads than ranges of the ``smallest`` length.

    A pool lives only as long as the call: nothing is left behind for a forked child to hang on.
    """
    workers = min(thread_count(n_jobs), max(1, n // smallest))
    if workers == 1:
        task(0, n)
        return
    n_tasks = 4 * workers  # smaller than a worker's share, so that uneven rows even out
    bounds = [n * i // n_tasks for i in range(n_tasks + 1)]
    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(task, a, b) for a, b in pairwise(bounds)]:
            future.result()


class _BlasLimit:
    """A process-wide limit that several threads may hold at once; the last one restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._limits: Any = None

    def acquire(self, pools: Any, n_threads: int) -> None:
        with self._lock:
            if self._holders == 0:
                self._limits = pools.limit(limits=n_threads)
            self._holders += 1

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self._limits.restore_original_limits()
                self._limits = None


_blas_limit = _BlasLimit()


@lru_cache(maxsize=1)
def _thread_pools(n_modules: int) -> Any:
    """Find the thread pools of this process: again only when more has been imported since."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def blas_threads(n_threads: int | None) -> Iterator[None]:
    """Limit BLAS and OpenMP to ``n_threads`` inside the block (None: leave them alone)."""
    if n_threads is None:
        yield
        return
    pools = _thread_pools(len(sys.modules))
    # OpenMP counts by thread, so everybody sets their own; BLAS has one pool for all. Leaving this
    # block also gives up the thread's claim to that pool, so that another one can restore it.
    with pools.select(user_api="openmp").limit(limits=n_threads):
        _blas_limit.acquire(pools.select(user_api="blas"), n_threads)
        try:
            yield
        finally:
            _blas_limit.release()
