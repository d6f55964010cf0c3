"""The one loop: what is pending runs, what fails is recorded, and every scheduler gives the same."""

import functools
import threading

import numpy as np
import pytest

from mclip.pipeline.machine.terminal import peak_memory
from mclip.pipeline.store.schema import DONE, FAILED, PENDING, REPLACED
from mclip.pipeline.store.stage import Result, Summary, first_blocks, run_stage
from mclip.pipeline.store.store import Store, open_store

BLOCKS = [range(0, 3), range(3, 4), range(4, 9), range(9, 12)]


@pytest.fixture
def store(tmp_path) -> Store:
    """A store with twelve pending sequences."""
    store = open_store(tmp_path / "s.zarr", create=True)
    store.write("sequences/done", np.zeros(12, np.uint8))
    store.write("sequences/frames", np.zeros(12, np.int64))
    return store


def squares(fails: frozenset[int], block: range) -> Result:
    """Squares of the items; those of `fails` fail."""
    return Result(
        {item: f"a.npz: number {item}" for item in block if item in fails},
        {"sequences/frames": np.array([item**2 for item in block])},
    )


ALL_WELL = functools.partial(squares, frozenset())


def run(store: Store, compute=ALL_WELL, **options):
    return run_stage(
        store, "prepare", marks="sequences/done", blocks=BLOCKS, compute=compute, unit="sequences", **options
    )


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_every_scheduler_does_all_items(store, scheduler):
    summary = run(store, scheduler=scheduler, workers=2)
    assert (summary.done, summary.skipped, summary.failed, summary.left) == (12, 0, 0, 0)
    assert store.read("sequences/frames").tolist() == [item**2 for item in range(12)]
    assert (store.read("sequences/done") == DONE).all()


def test_second_run_computes_nothing(store):
    run(store)

    def never(block: range) -> Result:
        raise AssertionError(block)

    summary = run(store, never)
    assert (summary.done, summary.skipped) == (0, 12)


def test_failures_are_recorded_and_the_rest_is_done(store):
    summary = run(store, functools.partial(squares, frozenset({1, 10})), scheduler="threads", workers=3)
    assert (summary.done, summary.failed) == (10, 2)
    assert np.flatnonzero(store.read("sequences/done") == FAILED).tolist() == [1, 10]
    assert store.attributes("prepare")["failures"] == {
        "sequences/done[10]": "a.npz: number 10",
        "sequences/done[1]": "a.npz: number 1",
    }
    assert "2 failed" in str(summary)


def test_what_failed_or_was_replaced_before_stays_so(store):
    marks = store.array("sequences/done")
    marks[4:6] = np.array([FAILED, REPLACED], np.uint8)
    summary = run(store)
    assert (summary.done, summary.skipped, summary.failed) == (10, 1, 0)
    assert store.read("sequences/done")[3:7].tolist() == [DONE, FAILED, REPLACED, DONE]


def test_limit_stops_after_the_blocks_that_hold_it(store):
    summary = run(store, limit=4)
    assert (summary.done, summary.left) == (4, 8)
    assert [len(block) for block in first_blocks(BLOCKS, 5)] == [3, 1, 5]
    assert first_blocks(BLOCKS, None) == BLOCKS


def test_an_error_that_is_no_bad_item_stops_the_run_and_keeps_the_marks_of_what_is_done(store):
    def full(block: range) -> Result:
        if block.start == 4:
            raise OSError("No space left on device")
        return Result()

    with pytest.raises(OSError, match="No space left"):
        run(store, full)
    assert store.read("sequences/done").tolist() == [DONE] * 4 + [PENDING] * 8
    assert run(store).done == 8


def test_no_more_blocks_are_under_way_than_workers(store):
    running, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2, timeout=10)

    def count(block: range) -> Result:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if block.start < 4:
            both.wait()  # the first two really run at the same time
        with lock:
            running -= 1
        return Result()

    run(store, count, scheduler="threads", workers=2)
    assert most == 2


def test_unknown_scheduler_is_refused_by_name(store):
    with pytest.raises(ValueError, match="--scheduler is 'thread': expected sync, threads, processes or tcp"):
        run(store, scheduler="thread")


def test_peak_memory_is_that_of_this_process():
    ballast = np.ones(30 << 20, np.uint8)
    assert int(peak_memory().split()[2].replace(",", "")) > ballast.nbytes >> 20


def test_a_summary_names_ten_failures_with_reasons_equal_ones_together_and_says_where_all_are():
    failures = tuple(f"S/{number}.bvh: no joint for neck" for number in range(30)) + ("odd\nname.npz: cut short",)
    told = str(Summary("prepare", "sequences", 5, 0, 31, 0, 1.0, failures, "s.zarr/manifest.jsonl"))
    lines = told.splitlines()
    assert lines[1] == "  failed: S/0.bvh, S/1.bvh, S/2.bvh, S/3.bvh, S/4.bvh and 25 more: no joint for neck"
    assert lines[2] == "  failed: odd\\u000aname.npz: cut short"
    assert lines[3] == "  all of them: s.zarr/manifest.jsonl"
    assert len(lines) == 4
