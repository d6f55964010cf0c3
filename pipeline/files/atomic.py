"""Files that appear whole or not at all, and what a killed process leaves of those that did not."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

# A name of `aside`, or of a file that zarr is writing.
LEFTOVER = re.compile(r"\..+\.partial(\..+)?|.*\.[0-9a-f]{32}\.partial")


def aside(path: Path) -> Path:
    """Where a file or folder is made that takes its place by rename."""
    return path.with_name(f".{path.stem}.partial{path.suffix}")


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError in here names the path that was not written."""
    try:
        yield
    except OSError as error:
        failure = OSError(f"{path}: not written: {error.strerror or error}")
        failure.errno = error.errno
        raise failure from error


@contextlib.contextmanager
def by_rename(path: Path) -> Iterator[Path]:
    """A path to write to; what was written takes its place at the end. Nothing is left of a failure: OSError, named."""
    made = aside(path)
    try:
        with naming(path):
            yield made
            made.replace(path)
    finally:
        made.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_by_rename(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes its place at the end, also that of another; as `by_rename` of a failure."""
    made = aside(path.with_name(f"new-{path.name}"))  # not the place where `delete_whole` moves the other
    shutil.rmtree(made, ignore_errors=True)
    try:
        with naming(path):
            made.mkdir(parents=True)
            yield made
            delete_whole(path)
            made.replace(path)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def write_aside(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all."""
    with by_rename(path) as made:
        made.write_text(text, encoding="utf-8")


def delete_whole(folder: Path) -> None:
    """Delete a folder so that it is there whole or not at all; what a kill leaves of it goes the next time."""
    gone = aside(folder)
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        folder.replace(gone)
        shutil.rmtree(gone)


def is_leftover(path: Path) -> bool:
    """Whether a name is that of something that was being written when its process was killed."""
    return LEFTOVER.fullmatch(path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left below a folder; for whoever knows that nobody is writing there."""
    for path in [each for each in folder.rglob("*.partial*") if is_leftover(each)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
