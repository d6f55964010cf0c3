"""The one loop that every stage runs: pending items in, payload written by `compute`, marks written last.

Resume, progress, failure records, limits and dask live here once. A block of items has one writer, and the marks have one
too: this process.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import dask
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mclip.pipeline.store import DONE, FAILED, PENDING, Store


@dataclass(frozen=True)
class Result:
    """What `compute` gives back for a block, its payload being written.

    `failures` is item -> reason; all other items of the block are done. `columns` are small values, one an item, for
    arrays that have a single chunk and therefore a single writer: the process that marks.
    """

    failures: dict[int, str] = field(default_factory=dict)
    columns: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """What a stage did, in items."""

    stage: str
    unit: str
    done: int
    skipped: int
    failed: int
    left: int
    seconds: float

    def __str__(self) -> str:
        rate = f", {self.done / self.seconds:,.0f} {self.unit}/s" if self.done else ""
        left = f", {self.left:,} left" if self.left else ""
        return (
            f"{self.stage}: {self.done:,} {self.unit} done, {self.skipped:,} skipped, "
            f"{self.failed:,} failed{left} in {self.seconds:.1f} s{rate}"
        )


def progress_bar() -> Progress:
    """A bar on stderr with count, rate and time left; silent where stderr is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


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

    `marks` is the path of the stage's mark array; `blocks` are ranges of its items. `scheduler` is dask's local
    `sync`, `threads` or `processes`, or the address of a running one (`tcp://host:port`). `limit` stops after about
    that many items. Failures are kept with their reason under the stage's attributes and do not stop the stage.
    """
    started = time.perf_counter()
    array = store.array(marks)
    state = np.asarray(array[...])
    # A damaged file is not tried again by the same command: it stays failed until it is replaced.
    pending = [block for block in blocks if (state[block.start : block.stop] == PENDING).any()]
    pending = first_blocks(pending, limit)
    ahead = sum(len(block) for block in pending)
    reasons = store.attributes(stage).get("failures", {})
    failed = 0
    with progress_bar() as bar:
        task = bar.add_task(stage, total=ahead, rate="")
        for block, result in map_blocks(compute, pending, scheduler=scheduler, workers=workers):
            at = slice(block.start, block.stop)
            state[at] = DONE
            state[list(result.failures)] = FAILED
            for path, values in result.columns.items():
                store.array(path)[at] = values
            if result.failures:
                reasons |= {f"{marks}[{item}]": why for item, why in result.failures.items()}
                store.set_attributes(stage, failures=reasons)
            array[at] = state[at]
            failed += len(result.failures)
            bar.update(task, advance=len(block))
            finished = bar.tasks[task].completed
            bar.update(task, rate=f"{finished / (time.perf_counter() - started):,.0f} {unit}/s")
    left = int((state == PENDING).sum())
    seconds = time.perf_counter() - started
    return Summary(stage, unit, ahead - failed, len(state) - ahead - left, failed, left, seconds)


def first_blocks(blocks: list[range], limit: int | None) -> list[range]:
    """The first blocks that together hold `limit` items, or all of them."""
    if limit is None:
        return blocks
    before = np.cumsum([0, *(len(block) for block in blocks)])
    return [block for block, start in zip(blocks, before, strict=False) if start < limit]


def map_blocks(
    compute: Callable[[range], Result], blocks: Iterable[range], *, scheduler: str, workers: int
) -> Iterator[tuple[range, Result]]:
    """Pairs of block and result as they finish, by dask. One at a time, threads, processes, or a cluster's scheduler."""
    if scheduler == "sync":
        yield from ((block, compute(block)) for block in blocks)
    elif "://" in scheduler:
        yield from map_on_cluster(compute, blocks, address=scheduler)
    else:
        yield from map_locally(compute, blocks, scheduler=scheduler, workers=workers)


def map_locally(
    compute: Callable[[range], Result], blocks: Iterable[range], *, scheduler: str, workers: int
) -> Iterator[tuple[range, Result]]:
    """As `map_blocks`, in batches of four blocks a worker: memory stays bounded and marks stay fresh."""
    blocks = list(blocks)
    step = 4 * workers
    for start in range(0, len(blocks), step):
        batch = blocks[start : start + step]
        tasks = [dask.delayed(compute)(block) for block in batch]
        yield from zip(batch, dask.compute(*tasks, scheduler=scheduler, num_workers=workers), strict=True)


def map_on_cluster(
    compute: Callable[[range], Result], blocks: Iterable[range], *, address: str
) -> Iterator[tuple[range, Result]]:
    """As `map_blocks`, on a dask cluster that the user has. Lost workers' blocks run again on others."""
    from distributed import Client, as_completed

    with Client(address) as client:
        futures = {client.submit(compute, block, pure=False): block for block in blocks}
        for future, result in as_completed(list(futures), with_results=True):
            yield futures[future], result
