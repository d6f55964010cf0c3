"""Where a store lies, and the files that lie beside it."""

from pathlib import Path, PurePosixPath

import fsspec

from mclip.pipeline.store.schema import StoreError


def is_local(url: str) -> bool:
    """Whether a store is a folder of this machine and not the URL of something else."""
    return "://" not in url


def beside(url: str, ending: str) -> Path:
    """A file that goes with a store: `ending` for its own, beside a local store, in the current folder for another."""
    return (Path(url) if is_local(url) else Path(PurePosixPath(url).name)).with_suffix(ending)


def journal(url: str, name: str) -> Path:
    """Where a store's JSON lines of a kind lie: in a local store's folder; a remote store's in the current one."""
    return Path(url) / f"{name}.jsonl" if is_local(url) else beside(url, f".{name}.jsonl")


def disk_size(url: str) -> int:
    """Bytes of all files or objects of a store."""
    filesystem, path = fsspec.core.url_to_fs(url)
    return int(filesystem.du(path))


def refuse_foreign_folder(location: str) -> None:
    """StoreError when a local path holds files already: a store is never mixed with them."""
    path = Path(location)
    if is_local(location) and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StoreError(f"{location}: exists and is no store; expected a new or empty folder: name another")
