"""Functions compiled by numba, and plain threads that run them."""

import functools
import inspect
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled on first use, free of the interpreter's lock, cached on disk where that can be written."""
    function = inspect.unwrap(function)  # numba must see the source itself, also where type checks wrap every function
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba: "no locator available", a read-only install without a writable home
        return njit(nogil=True)(function)


def run_parts(work: Callable[[slice], None], *, items: int, threads: int | None = None) -> None:
    """Call `work` on slices that cover `items`, a slice a thread; the first exception of any is raised.

    Plain threads and not numba's pools: those must not be entered from two threads at once (they end the process), nor
    after a fork, and dask does both.
    """
    threads = max(1, min(items, threads or usable_cores()))
    edges = np.linspace(0, items, threads + 1).round().astype(int).tolist()
    parts = [slice(start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True)]
    if threads == 1:
        return work(parts[0])
    list(pool_of(threads).map(work, parts))


@functools.cache
def pool_of(threads: int) -> ThreadPoolExecutor:
    """So many threads, kept: to start them costs as much as a batch of crops."""
    return ThreadPoolExecutor(threads)


if hasattr(os, "register_at_fork"):  # a fork has the pool but not its threads
    os.register_at_fork(after_in_child=pool_of.cache_clear)


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
