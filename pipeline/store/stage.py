"""The one loop that every stage runs: pending items in, payload written by `compute`, marks written last.

Resume, progress, failure records, limits and dask live here once. A block of items has one writer, and the marks have
one too: this process.
"""

import contextlib
import itertools
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mclip.pipeline.machine.terminal import Bar
from mclip.pipeline.machine.words import visible
from mclip.pipeline.store.schema import DONE, FAILED, PENDING
from mclip.pipeline.store.store import Store


@dataclass(frozen=True)
class Result:
    """What `compute` gives back for a block, its payload being written.

    `failures` is item -> reason; all other items of the block are done. `columns` are small values, one an item, for
    arrays that have a single chunk and therefore a single writer: the process that marks.
    """

    failures: dict[int, str] = field(default_factory=dict)
    columns: dict[str, np.ndarray] = field(default_factory=dict)


SHOWN = 10  # failures that a summary names


@dataclass(frozen=True)
class Summary:
    """What a stage did, in items; `failures` are `item: reason`, and all of them lie in `where`."""

    stage: str
    unit: str
    done: int
    skipped: int
    failed: int
    left: int
    seconds: float
    failures: tuple[str, ...] = field(default=(), repr=False)
    where: str = ""
    passed_over: str = ""  # what was no item at all, in words

    def __str__(self) -> str:
        rate = f", {self.done / self.seconds:,.0f} {self.unit}/s" if self.done else ""
        left = f", {self.left:,} left" if self.left else ""
        first = (
            f"{self.stage}: {self.done:,} {self.unit} done, {self.skipped:,} skipped, "
            f"{self.failed:,} failed{left} in {self.seconds:.1f} s{rate}"
        )
        told = [*told_failures(self.failures), f"all of them: {self.where}"] if self.failures else []
        return "\n  ".join([first, *([self.passed_over] if self.passed_over else []), *told])

    @property
    def figures(self) -> dict[str, Any]:
        """What a journal keeps of it."""
        names = ("stage", "unit", "done", "skipped", "failed", "left", "seconds")
        return {name: getattr(self, name) for name in names}


def told_failures(failures: Sequence[str]) -> list[str]:
    """The first failures by item and reason, those of one reason together, ten items at most."""
    items: dict[str, list[str]] = {}
    for failure in failures:
        item, _, reason = failure.partition(": ")
        items.setdefault(reason, []).append(item)
    each = max(1, SHOWN // len(items))
    lines = []
    for reason, of_it in itertools.islice(sorted(items.items(), key=lambda pair: -len(pair[1])), SHOWN):
        more = f" and {len(of_it) - each:,} more" if len(of_it) > each else ""
        lines.append(visible(f"failed: {', '.join(of_it[:each])}{more}: {reason}", keep=""))
    return lines


def run_stage(
    store: Store,
    stage: str,
    *,
    marks: str,
    blocks: Sequence[range],
    compute: Callable[[range], Result],
    unit: str,
    scheduler: str = "sync",
    workers: int = 1,
    limit: int | None = None,
) -> Summary:
    """Run `compute` over every block with pending items and mark them; the same call again continues.

    `marks` is the path of the stage's mark array; `blocks` are ranges of its items. `scheduler` is `sync`,
    `threads` or `processes`, or the address of a dask scheduler that runs (`tcp://host:port`). `limit` stops after
    about that many items. Failures are kept with their reason under the stage's attributes and do not stop the stage.
    """
    check_scheduler(scheduler)
    started = time.perf_counter()
    array = store.array(marks)
    state = np.asarray(array[...])
    # A damaged file is not tried again by the same command: it stays failed until it is replaced.
    pending = [block for block in blocks if (state[block.start : block.stop] == PENDING).any()]
    pending = first_blocks(pending, limit)
    ahead = sum(int((state[block.start : block.stop] == PENDING).sum()) for block in pending)
    skipped = int(((state == DONE) | (state == FAILED)).sum())
    reasons = store.attributes(stage).get("failures", {})
    failed: list[str] = []
    with Bar() as bar:
        task = bar.add_task(stage, total=ahead, rate="")
        for block, result in map_blocks(compute, pending, scheduler=scheduler, workers=workers):
            at = slice(block.start, block.stop)
            # What failed before, or was replaced, stays so.
            tried = np.flatnonzero(state[at] == PENDING) + block.start
            state[tried] = DONE
            failures = {item: why for item, why in result.failures.items() if item in tried}
            state[list(failures)] = FAILED
            for path, values in result.columns.items():
                store.array(path)[at] = values
            if failures:
                reasons |= {f"{marks}[{item}]": why for item, why in failures.items()}
                store.set_attributes(stage, failures=dict(sorted(reasons.items())))
            array[at] = state[at]
            failed += failures.values()
            bar.update(task, advance=len(tried))
            finished = bar.tasks[task].completed
            bar.update(task, rate=f"{finished / (time.perf_counter() - started):,.0f} {unit}/s")
    left = int((state == PENDING).sum())
    seconds = time.perf_counter() - started
    where = f"`mclip status {store.url}`"
    return Summary(stage, unit, ahead - len(failed), skipped, len(failed), left, seconds, tuple(failed), where)


def first_blocks(blocks: list[range], limit: int | None) -> list[range]:
    """The first blocks that together hold `limit` items, or all of them."""
    if limit is None:
        return blocks
    before = np.cumsum([0, *(len(block) for block in blocks)])
    return [block for block, start in zip(blocks, before, strict=False) if start < limit]


def map_blocks(
    compute: Callable[[range], Result], blocks: Sequence[range], *, scheduler: str, workers: int
) -> Iterator[tuple[range, Result]]:
    """Pairs of block and result as they finish. One at a time, by threads, processes, or a dask cluster's scheduler.

    Never more than a few blocks a worker are under way, so that memory is bounded by the block.
    """
    if scheduler == "sync":
        yield from ((block, compute(block)) for block in blocks)
        return
    with executor_of(scheduler, workers) as (executor, ahead):
        waiting = iter(blocks)
        running = {executor.submit(compute, block): block for block in itertools.islice(waiting, ahead)}
        while running:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                block = running.pop(future)
                yield block, future.result()
                running |= {executor.submit(compute, block): block for block in itertools.islice(waiting, 1)}


@contextlib.contextmanager
def executor_of(scheduler: str, workers: int) -> Iterator[tuple[Any, int]]:
    """What runs blocks, and how many of them to keep under way."""
    if "://" in scheduler:
        with on_cluster(scheduler) as found:
            yield found
    else:
        with local_executor(scheduler, workers) as executor:
            try:
                yield executor, 2 * workers  # a worker has its next block while this process marks the last one
            finally:  # an interrupted run does not wait for blocks that have not begun
                executor.shutdown(cancel_futures=True)


def check_scheduler(scheduler: str) -> None:
    """ValueError for what is no scheduler."""
    if "://" not in scheduler and scheduler not in ("sync", "threads", "processes"):
        raise ValueError(f"--scheduler is {scheduler!r}: expected sync, threads, processes or tcp://HOST:PORT")


def local_executor(scheduler: str, workers: int) -> Executor:
    """Threads or processes of this machine."""
    if scheduler == "threads":
        return ThreadPoolExecutor(workers)
    # Not fork: zarr and torch have threads of their own by now, whose locks a fork would leave closed for ever.
    # Ctrl+C reaches every process of a terminal; only this one has something to say to it.
    return ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    )


@contextlib.contextmanager
def on_cluster(address: str) -> Iterator[tuple[Any, int]]:
    """A dask cluster that the user has. Blocks of workers that are lost run again on others."""
    from distributed import Client

    with Client(address) as client:  # type: ignore[no-untyped-call]
        cores = sum(client.ncores().values())
        yield client.get_executor(pure=False, retries=3), 2 * max(cores, 1)
