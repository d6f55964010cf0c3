"""Files that appear whole or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def by_rename(path: Path) -> Iterator[Path]:
    """A path to write to; what was written takes its place at the end, and nothing is left of a failure."""
    aside = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
