"""What people see in the terminal: progress bars and tables."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


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


def tracked(items: Sequence[T], what: str, unit: str) -> Iterator[T]:
    """The items one by one, with a bar on stderr that counts them."""
    with progress_bar() as bar:
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
    """A table for the terminal."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(*columns, title=title, title_justify="left", title_style="bold")
    for row in rows:
        drawn.add_row(*row)
    console = Console(width=120, color_system=None)
    with console.capture() as captured:
        console.print(drawn)
    return captured.get()
