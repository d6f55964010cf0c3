"""Where a store lies, and the files that lie beside it: its lock, its journal of runs, its manifest."""

import contextlib
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from mclip.pipeline.files.atomic import is_leftover, write_aside
from mclip.pipeline.store.schema import StoreError

EXTRAS = {"s3": "pip install 'mclip[s3]'", "gs": "pip install gcsfs", "gcs": "pip install gcsfs"}


def is_local(url: str) -> bool:
    """Whether a store is a folder of this machine and not the URL of something else."""
    return "://" not in url


def filesystem_of(url: str) -> tuple[Any, str]:
    """The file system of a path or URL, and the path in it; StoreError naming the package that a URL needs."""
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        remedy = EXTRAS.get(url.split("://")[0], "install it")
        raise StoreError(f"{url}: a package is missing ({error}): {remedy}") from error
    except ValueError as error:  # a protocol that nobody knows
        raise StoreError(f"{url}: {error}: name a folder, or s3://BUCKET/STORE") from error
    return filesystem, path


def beside(url: str, ending: str) -> Path:
    """A picture that goes with a store: beside a local one, in the current folder for another."""
    return (Path(url) if is_local(url) else Path(PurePosixPath(url).name)).with_suffix(ending)


def neighbour(url: str, ending: str) -> str:
    """Where a file or object of a store lies that is no array: beside it, so that zarr finds arrays alone."""
    return f"{url.rstrip('/')}{ending}"


def read_neighbour(url: str, ending: str) -> bytes:
    """What lies beside a store; nothing where there is no such file."""
    filesystem, path = filesystem_of(neighbour(url, ending))
    with contextlib.suppress(FileNotFoundError):
        return bytes(filesystem.cat_file(path))
    return b""


def write_neighbour(url: str, ending: str, text: str) -> None:
    """Put a whole text beside a store."""
    if is_local(url):
        write_aside(Path(neighbour(url, ending)), text)
    else:
        filesystem, path = filesystem_of(neighbour(url, ending))
        filesystem.pipe_file(path, text.encode())  # an object is there whole or not at all


def disk_size(url: str) -> int:
    """Bytes of all files or objects of a store."""
    filesystem, path = filesystem_of(url)
    return int(filesystem.du(path))


def refuse_foreign_folder(location: str) -> None:
    """StoreError when a local path holds files already: a store is never mixed with them."""
    path = Path(location)
    if not is_local(location) or not path.exists():
        return
    if not path.is_dir() or any(not is_leftover(each) for each in path.iterdir()):
        raise StoreError(f"{location}: exists and is no store; expected a new or empty folder: name another")
