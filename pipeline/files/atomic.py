"""Files that appear whole or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def by_rename(path: Path) -> Iterator[Path]:
    """A path to write to; what was written takes its place at the end. Nothing is left of a failure: OSError, named."""
    aside = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield aside
        aside.replace(path)
    except OSError as error:
        failure = OSError(f"{path}: not written: {error.strerror or error}")
        failure.errno = error.errno
        raise failure from error
    finally:
        aside.unlink(missing_ok=True)


def write_aside(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all."""
    with by_rename(path) as aside:
        aside.write_text(text, encoding="utf-8")
