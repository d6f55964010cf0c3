"""One writer for each store."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mclip.pipeline.files.atomic import remove_leftovers
from mclip.pipeline.store.location import filesystem_of, is_local, neighbour
from mclip.pipeline.store.schema import StoreError

PATIENCE = 0.5  # seconds that a writer waits for a lock: whoever clears a dead one holds it for an instant


@contextlib.contextmanager
def one_writer(url: str, *, take_over: bool = False) -> Iterator[None]:
    """Hold a store for writing, or StoreError naming who holds it since when.

    A local store's lock dies with its process. Another machine cannot know that, so a remote store's lock stays after a
    crash until `take_over`.
    """
    with local_lock(url) if is_local(url) else remote_lock(url, take_over=take_over):
        yield


@contextlib.contextmanager
def local_lock(url: str) -> Iterator[None]:
    """`one_writer` by the operating system's file lock, with the holder's name in a file beside it."""
    holder = Path(neighbour(url, ".lock"))
    holder.parent.mkdir(parents=True, exist_ok=True)
    refuse_read_only(Path(url))
    lock = FileLock(f"{holder}.flock", timeout=PATIENCE)
    try:
        lock.acquire()
    except Timeout:
        # The lock is alive, so its process is: taking it over would make two writers.
        told = describe_holder(holder.read_bytes() if holder.exists() else b"")
        raise StoreError(f"{url}: {told}: wait for it, or name another") from None
    try:
        holder.write_bytes(claim())
        if any((Path(url) / name).exists() for name in ("zarr.json", "config.json")):  # a store, a run: nobody else's
            remove_leftovers(Path(url))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def clear_dead_lock(url: str) -> None:
    """Remove the name of a writer that died on this machine; one that lives, or may live elsewhere, keeps it."""
    if not is_local(url) or not (holder := Path(neighbour(url, ".lock"))).exists():
        return
    # Whoever may not write here cannot clear anything, and reads as well as before.
    with contextlib.suppress(Timeout, OSError), FileLock(f"{holder}.flock", timeout=0):
        holder.unlink(missing_ok=True)


def refuse_read_only(store: Path) -> None:
    """StoreError when this account may not write to a store's folder, or to the one that it lies in."""
    for folder in (store, store.parent):
        if folder.exists() and not os.access(folder, os.W_OK):
            raise StoreError(
                f"{store}: this account may not write to {folder}: make it writable, or name another store"
            )


@contextlib.contextmanager
def remote_lock(url: str, *, take_over: bool) -> Iterator[None]:
    """`one_writer` by an object `<store>.lock` beside the store."""
    filesystem, path = filesystem_of(neighbour(url, ".lock"))
    if filesystem.exists(path) and not take_over:
        told = describe_holder(filesystem.cat_file(path))
        raise StoreError(f"{url}: {told}: wait for it; if it is dead, pass --take-over")
    mine = claim()
    filesystem.pipe_file(path, mine)
    try:
        yield
    finally:
        # Whoever took over in the meantime has a claim of its own there.
        if filesystem.exists(path) and filesystem.cat_file(path) == mine:
            filesystem.rm_file(path)


def claim() -> bytes:
    """What a lock says of its holder: this process."""
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}).encode()


def describe_holder(lock: bytes) -> str:
    """A lock's holder and age in words; a lock that is just being written says nothing yet."""
    try:
        told = json.loads(lock)
    except ValueError:
        return "another process has just begun to write here"
    age = max(0.0, time.time() - told["since"])  # clocks go backwards
    return f"process {told['pid']} on {told['host']} has been writing here for {age:.0f} s"
