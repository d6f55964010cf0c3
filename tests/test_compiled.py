import os
import subprocess
import sys

import pytest

from mclip.pipeline.machine.compiled import compiled, run_parts, usable_cores


@pytest.mark.parametrize(("items", "threads"), [(1, 1), (1, 4), (7, 3), (32, 2), (5, None)])
def test_every_item_is_worked_on_once(items, threads):
    done = [0] * items

    def work(part: slice) -> None:
        for item in range(items)[part]:
            done[item] += 1

    run_parts(work, items=items, threads=threads)
    assert done == [1] * items


def test_exception_of_one_thread_reaches_the_caller():
    def work(part: slice) -> None:
        if part.start == 0:
            raise ValueError("first part")

    with pytest.raises(ValueError, match="first part"):
        run_parts(work, items=4, threads=2)


def test_parts_run_in_a_fork_too():
    run_parts(lambda part: None, items=2, threads=2)  # the pool has threads, which a fork has not
    import os
    import warnings

    with warnings.catch_warnings(action="ignore"):  # Python's own, of forks beside threads
        child = os.fork()
    if child == 0:
        done: list[slice] = []
        run_parts(done.append, items=2, threads=2)
        os._exit(len(done))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


def test_a_process_that_is_held_to_one_core_uses_one():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    code += "from mclip.pipeline.machine.compiled import usable_cores; print(usable_cores())"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout == "1\n"
    assert usable_cores() == len(os.sched_getaffinity(0))


def test_function_that_cannot_be_cached_is_compiled_all_the_same():
    # Code without a file has no place for numba's cache, like a read-only install without a writable home.
    space: dict = {}
    exec("def double(x):\n    return 2 * x\n", space)
    from numba import njit

    with pytest.raises(RuntimeError, match="no locator available"):
        njit(cache=True)(space["double"])
    assert compiled(space["double"])(21) == 42
