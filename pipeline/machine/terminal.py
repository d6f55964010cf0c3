"""What people see in the terminal: progress bars and tables."""

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mclip.pipeline.machine.words import visible, warn

T = TypeVar("T")
EVERY = 30.0  # seconds between two lines where no terminal shows a bar


class Bar(Progress):
    """A bar on stderr with count, rate and time left; where that is no terminal, a plain line now and then."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.told = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Move a task's bar; tell of it, where nothing was told for EVERY seconds."""
        super().update(task_id, **changes)
        if time.monotonic() - self.told >= EVERY:
            self.tell(task_id)

    def tell(self, task_id: TaskID, *more: str) -> None:
        """Say where a task stands, and more, in a line where there is no bar to say it."""
        self.told = time.monotonic()
        if not self.disable:
            return
        task = self.tasks[task_id]
        seconds = None if task.finished else task.time_remaining
        left = "" if seconds is None else f"{timedelta(seconds=round(seconds))} left"
        place = f"{task.description}: {task.completed:,.0f} of {task.total or 0:,.0f}"
        warn(", ".join(filter(None, (place, task.fields["rate"], *more, left))))


def tracked(items: Sequence[T], what: str, unit: str) -> Iterator[T]:
    """The items one by one, with a bar on stderr that counts them."""
    with Bar() as bar:
        task = bar.add_task(what, total=len(items), rate="")
        for item in items:
            yield item
            bar.update(task, advance=1, rate=f"{bar.tasks[task].speed or 0:,.1f} {unit}/s")


def peak_memory() -> str:
    """Largest memory that this process, or one of its workers, has had so far, in words."""
    try:
        import resource
    except ImportError:  # Windows keeps no such count
        return "peak memory unknown"
    kilobytes = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return f"peak memory {kilobytes / 1024:,.0f} MB"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as wide as the terminal; plain aligned columns, a line a row, where stdout is none."""
    title, *cells = (visible(cell, keep="") for cell in (title, *columns, *itertools.chain.from_iterable(rows)))
    lines = [cells[start : start + len(columns)] for start in range(0, len(cells), len(columns))]
    return (drawn_table if sys.stdout.isatty() else plain_table)(title, lines)


def plain_table(title: str, lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces apart; the first line is their heads."""
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(set_cell_size(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return "\n".join([title, *padded, "", ""])


def drawn_table(title: str, lines: Sequence[Sequence[str]]) -> str:
    """A table with rules; cells that do not fit the terminal are wrapped. Without colours."""
    heads, *rows = lines
    # Text, and not markup: [red] in a label is a label.
    drawn = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        drawn.add_column(Text(head))
    for row in rows:
        drawn.add_row(*map(Text, row))
    console = Console(color_system=None, no_color=True)
    with console.capture() as captured:
        console.print(drawn)
    return captured.get()
