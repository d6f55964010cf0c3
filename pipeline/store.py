"""The Zarr store: one schema as data, and the few ways to touch it.

Arrays are flat: the frames of all sequences lie one after the other, and a table says where each begins. Every stage
keeps a mark per item (0 pending, 1 done, 2 failed, 3 replaced) that is written after the payload, because a chunk that
was never written reads as zeros, not as an error.
"""

import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec  # type: ignore[import-untyped]
import numpy as np
import zarr
from filelock import FileLock, Timeout
from zarr.codecs import BloscCodec, Crc32cCodec

FORMAT = 1
LARGEST_SHARD = 128 << 20  # bytes before compression: what a writer holds in memory
PENDING, DONE, FAILED, REPLACED = 0, 1, 2, 3

CONVENTIONS = {
    "rot6d": "first two ROWS of the rotation matrix, row by row (PyTorch3D, MotionCLIP)",
    "joints": "SMPL's 24, parent before child; AMASS joints 0-21, 22 and 37",
    "axes": "world z up, as in AMASS",
    "units": "metres, seconds, radians; RGB 0..255",
    "marks": "0 pending, 1 done, 2 failed, 3 replaced by a later item; a missing chunk reads as zeros: trust the marks",
}


@dataclass(frozen=True)
class Spec:
    """One array: element type, the sizes after the first axis, rows a chunk, chunks a shard (0: not sharded)."""

    dtype: str
    row: tuple[str | int, ...]
    chunk: int
    shard: int
    doc: str
    also: tuple[str, ...] = ()  # other element types that a user may choose

    def fitting(self, row: tuple[int, ...]) -> tuple[int, int]:
        """Rows a chunk and chunks a shard: as stated, or as many as LARGEST_SHARD holds where rows are large."""
        fit = max(1, LARGEST_SHARD // (math.prod(row) * np.dtype(self.dtype).itemsize))
        chunk = min(self.chunk, fit)
        return chunk, min(self.shard, fit // chunk)


# Every array of the store. A name in `row` is a size that the stage fixes when it makes the array. A chunk (a shard
# where there are shards) is a file and has one writer. Frames: 9 MB a chunk, so that AMASS at 30 fps is about 280 files
# an array; shards of smaller chunks took two to three times as long to read and to write (records/prepare.md).
FRAME_CHUNK = 16384
VECTORS = ("float16",)
SCHEMA: dict[str, Spec] = {
    "sequences/row": Spec("int64", (), 65536, 0, "first row of the sequence in motion/*"),
    "sequences/frames": Spec(
        "int64", (), 65536, 0, "frames at the store's fps; its rows are zeros where the file failed"
    ),
    "sequences/block": Spec("int64", (), 65536, 0, "block of work; sequences of a block share its chunks"),
    "sequences/fps": Spec("float64", (), 65536, 0, "frames per second of the source file"),
    "sequences/size": Spec("int64", (), 65536, 0, "bytes of the file that holds the source"),
    "sequences/modified": Spec("int64", (), 65536, 0, "when that file was last changed, nanoseconds since 1970"),
    "sequences/betas": Spec("float32", (16,), 4096, 0, "SMPL shape of the source"),
    "sequences/gender": Spec("uint8", (), 65536, 0, "0 neutral, 1 female, 2 male"),
    "sequences/sha256": Spec("uint8", (32,), 4096, 0, "of the source file"),
    "sequences/split": Spec("uint8", (), 65536, 0, "0 train, 1 val, 2 test"),
    "sequences/done": Spec("uint8", (), 65536, 0, "mark of prepare"),
    "motion/rot6d": Spec("float32", (24, 6), FRAME_CHUNK, 0, "local joint rotations, 6D rows"),
    "motion/trans": Spec("float32", (3,), FRAME_CHUNK, 0, "root translation, metres, z up"),
    "spans/sequence": Spec("int64", (), 65536, 0, "sequence the label belongs to"),
    "spans/start": Spec("float64", (), 65536, 0, "seconds into the sequence"),
    "spans/end": Spec("float64", (), 65536, 0, "seconds into the sequence; infinity: to its end"),
    "spans/text": Spec("int64", (), 65536, 0, "text of the label"),
    "spans/labelset": Spec("int64", (), 65536, 0, "label set of the label alone, for its categories"),
    "windows/sequence": Spec("int64", (), 65536, 0, "sequence the window is cut from"),
    "windows/row": Spec("int64", (), 65536, 0, "first row in motion/*"),
    "windows/frames": Spec("int64", (), 65536, 0, "valid frames, at most the window; the rest is padding"),
    "windows/split": Spec("uint8", (), 65536, 0, "0 train, 1 val, 2 test"),
    "windows/labelset": Spec("int32", ("shifts",), 4096, 0, "label set of the crop at each shift"),
    "labelsets/text": Spec("int64", (), 65536, 0, "text of all labels joined by ' and '; -1: no label"),
    "labelsets/labels": Spec("int64", (), 65536, 0, "texts of the labels, flat"),
    "labelsets/labels_offset": Spec("int64", (), 65536, 0, "where a set's labels begin; one more at the end"),
    "labelsets/categories": Spec("int64", (), 65536, 0, "texts of the categories, flat"),
    "labelsets/categories_offset": Spec("int64", (), 65536, 0, "as labels_offset"),
    "texts/source": Spec("uint32", (), 65536, 0, "bit i: the text is from source i of prepare's `sources`"),
    "pictures/window": Spec("int64", (), 65536, 0, "window the picture shows"),
    "pictures/frame": Spec("int64", (), 65536, 0, "frame within the window"),
    "pictures/view": Spec("int64", (), 65536, 0, "camera, counted around the body from the front"),
    "pictures/done": Spec("uint8", (), 65536, 0, "mark of render"),
    "pictures/rgb": Spec("uint8", ("size", "size", 3), 8, 32, "pictures, RGB, white background"),
    # One group an encoder: embeddings/<encoder>/...
    "embeddings/*/image": Spec("float32", ("width",), 1024, 0, "image vectors as the encoder gives them", VECTORS),
    "embeddings/*/image_done": Spec("uint8", (), 65536, 0, "mark of embed, one a picture"),
    "embeddings/*/text": Spec("float32", ("width",), 1024, 0, "text vectors as the encoder gives them", VECTORS),
    "embeddings/*/text_cut": Spec("uint8", (), 65536, 0, "1 where the text is longer than the encoder reads"),
    "embeddings/*/text_done": Spec("uint8", (), 65536, 0, "mark of embed, one a text"),
    # One group a trained model, by the fingerprint of its weights. The attribute `latents` says which store it was.
    "latents/*/z": Spec("float32", ("width",), 1024, 0, "a model's vector of every window's middle crop"),
}
# Lists of strings are two arrays each: <name>/utf8 and <name>/offset.
STRINGS = {
    "sequences/name": "source path below the input folder, '/' between folders, '!/' before a path in an archive",
    "texts": "every distinct string that gets a vector: labels, joined labels, categories",
}
for _name, _doc in STRINGS.items():
    SCHEMA[f"{_name}/utf8"] = Spec("uint8", (), 1 << 20, 0, _doc)
    SCHEMA[f"{_name}/offset"] = Spec("int64", (), 65536, 0, "where a string begins in utf8; one more at the end")
SPLITS = ("train", "val", "test")


def spec_of(path: str) -> Spec:
    """The schema's entry for an array path; an encoder's or a model's name stands for the star."""
    parts = path.split("/")
    if parts[0] in ("embeddings", "latents"):
        parts[1] = "*"
    return SCHEMA["/".join(parts)]


class StoreError(ValueError):
    """A store that is not there, is of another kind, or was made with other options."""


class Store:
    """An open store. `root` is its zarr group; everything else is a short way to say something about it."""

    def __init__(self, url: str | os.PathLike[str], root: zarr.Group):
        self.url = str(url)
        self.root = root

    def __contains__(self, path: str) -> bool:
        return path in self.root

    def array(self, path: str) -> zarr.Array[Any]:
        """The array at `path`; StoreError naming the command that makes it when it is missing."""
        try:
            found = self.root[path]
        except KeyError:
            stage = {"pictures": "render", "embeddings": "embed"}.get(path.split("/")[0], "prepare")
            raise StoreError(f"{self.url}: no {path} in this store; run `mclip {stage} {self.url}` first") from None
        except ValueError as error:
            raise StoreError(f"{self.url}: {path}/zarr.json cannot be read ({error}): restore it") from error
        assert isinstance(found, zarr.Array)
        return found

    def read(self, path: str, at: slice | None = None) -> np.ndarray:
        """The array at `path`, or some rows of it, in memory; StoreError naming it where it cannot be decoded."""
        array = self.array(path)
        try:
            return np.asarray(array[at or ...])
        except (ValueError, RuntimeError) as error:  # crc32c, blosc
            raise StoreError(
                f"{self.url}: {path} is damaged ({error}): `mclip validate {self.url}` lists all that is; make it "
                "again with --replace, or restore the store"
            ) from error

    def grow(self, path: str, rows: int, *, dtype: str | None = None, **sizes: int) -> zarr.Array[Any]:
        """The array at `path` with `rows` rows, made from the schema or resized; old rows are kept."""
        spec = spec_of(path)
        if path in self.root:
            array = self.array(path)
            if array.shape[0] != rows:
                array.resize((rows, *array.shape[1:]))
            return array
        row = tuple(sizes[size] if isinstance(size, str) else size for size in spec.row)
        chunk, shard = spec.fitting(row)
        return self.root.create_array(
            path,
            shape=(rows, *row),
            dtype=dtype or spec.dtype,
            chunks=(chunk, *row),
            shards=(chunk * shard, *row) if shard else None,
            # 1 % larger than zstd-3, twice as fast (workflows/records/prepare.md). crc32c so that rot is seen.
            compressors=[BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()],
            fill_value=0,
            attributes={"doc": spec.doc},
        )

    def write(self, path: str, values: np.ndarray, **sizes: int) -> None:
        """Replace a whole small array."""
        self.grow(path, len(values), dtype=None, **sizes)[...] = values

    def write_strings(self, path: str, strings: Sequence[str]) -> None:
        """Replace a list of strings: UTF-8 bytes, flat, and where each begins.

        Nothing is deleted first: a list that only got longer keeps its beginning whenever the process dies.
        """
        # File names need not be UTF-8: what is not comes back as it was.
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        self.write(f"{path}/utf8", np.frombuffer(b"".join(encoded), dtype=np.uint8))
        self.write(f"{path}/offset", np.cumsum([0, *map(len, encoded)], dtype=np.int64))

    def strings(self, path: str) -> list[str]:
        """A list of strings as written by `write_strings`."""
        utf8, offset = self.read(f"{path}/utf8").tobytes(), self.read(f"{path}/offset").tolist()
        return [utf8[a:b].decode("utf-8", "surrogateescape") for a, b in itertools.pairwise(offset)]

    def attributes(self, name: str) -> dict[str, Any]:
        """A stage's attributes: its options, its failures, what it found. Empty when it never ran."""
        found = self.root.attrs.get(name, {})
        assert isinstance(found, dict)
        return dict(found)

    def set_attributes(self, name: str, **values: Any) -> None:
        """Add to a stage's attributes; one write of the store's metadata."""
        self.root.attrs[name] = self.attributes(name) | values

    def fix_options(self, stage: str, options: Mapping[str, Any]) -> None:
        """Record a stage's options, or refuse others than those its results were made with."""
        self.refuse_other_options(stage, options)
        if "options" not in self.attributes(stage):
            self.set_attributes(stage, options=json.loads(json.dumps(options)), version=version())

    def refuse_other_options(self, stage: str, options: Mapping[str, Any]) -> None:
        """StoreError when a stage has results that were made with other options."""
        made_with = self.attributes(stage).get("options")
        options = json.loads(json.dumps(options))
        if made_with is not None and made_with != options:
            differ = [key for key in options | made_with if options.get(key) != made_with.get(key)]
            was, now = ({key: each.get(key) for key in differ} for each in (made_with, options))
            raise StoreError(
                f"{self.url}: its {stage} stage was made with {was}, this command asks for {now}: "
                "use the same options, pass --replace, or use another store"
            )

    def forget(self, group: str, stage: str) -> None:
        """Delete a group of arrays and the attributes of the stage that made them."""
        if group in self.root:
            del self.root[group]
        if stage in self.root.attrs:
            del self.root.attrs[stage]

    def fingerprint(self) -> str:
        """Short hash of what the store was made from: format, options of every stage, inputs' sha256, texts."""
        digest = hashlib.sha256(json.dumps(self._identity(), sort_keys=True).encode())
        for path in ("sequences/sha256", "sequences/done", "windows/row", "windows/labelset"):
            if path in self:
                digest.update(self.read(path).tobytes())
        return digest.hexdigest()[:16]

    def _identity(self) -> dict[str, Any]:
        lists = [self.strings(path) for path in STRINGS if f"{path}/utf8" in self]
        stages = ("prepare", "render", "embed")
        return {"format": FORMAT, "lists": lists} | {stage: self.attributes(stage).get("options") for stage in stages}


def version() -> str:
    """mclip's version, from the installed metadata."""
    return importlib.metadata.version("mclip")


def open_store(url: str | os.PathLike[str], *, create: bool = False) -> Store:
    """The store at a path or URL. StoreError when it is missing (and not `create`), foreign, or of another format."""
    location = str(url)
    if create and not is_store(location):
        refuse_foreign_folder(location)
        return Store(location, new_root(location))
    try:
        root = zarr.open_group(location, mode="r+")
    except FileNotFoundError as error:
        raise StoreError(f"{location}: no store here; `mclip prepare SOURCE {location}` makes one") from error
    except ValueError as error:
        raise StoreError(
            f"{location}: its zarr.json cannot be read ({error}): restore it, or use another store"
        ) from error
    made_by = root.attrs.get("mclip")
    if not isinstance(made_by, dict):
        raise StoreError(f"{location}: a Zarr group, but not one of mclip's (no `mclip` attribute): name another")
    if made_by.get("format") != FORMAT:
        raise StoreError(
            f"{location}: store format {made_by.get('format')} written by mclip {made_by.get('version')}, "
            f"this is mclip {version()} with format {FORMAT}: use that version, or prepare a new store"
        )
    return Store(location, root)


def new_root(location: str) -> zarr.Group:
    """An empty store's group, whatever lay there; its attributes come with it in one write."""
    made_by: dict[str, Any] = {"format": FORMAT, "version": version()}
    return zarr.open_group(location, mode="w", attributes={"mclip": made_by, "conventions": CONVENTIONS})


def delete_store(location: str) -> None:
    """Empty a store, if there is one; StoreError for what is none of ours."""
    if is_store(location):
        open_store(location)
        new_root(location)


def is_store(location: str) -> bool:
    """Whether a Zarr group lies there."""
    try:
        zarr.open_group(location, mode="r")
    except FileNotFoundError:
        return False
    except ValueError:  # damaged metadata: something lies there
        return True
    return True


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
    holder = Path(f"{url.rstrip('/')}.lock")
    holder.parent.mkdir(parents=True, exist_ok=True)
    refuse_read_only(Path(url))
    lock = FileLock(f"{holder}.flock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        # The lock is alive, so its process is: taking it over would make two writers.
        raise StoreError(f"{url}: {told_by(holder.read_bytes())}: wait for it, or name another") from None
    try:
        holder.write_bytes(claim())
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


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
    filesystem, path = fsspec.core.url_to_fs(f"{url.rstrip('/')}.lock")
    if filesystem.exists(path) and not take_over:
        told = told_by(filesystem.cat_file(path))
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


def told_by(lock: bytes) -> str:
    """A lock's holder and age in words; a lock that is just being written says nothing yet."""
    try:
        told = json.loads(lock)
    except ValueError:
        return "another process has just begun to write here"
    age = max(0.0, time.time() - told["since"])  # clocks go backwards
    return f"process {told['pid']} on {told['host']} has been writing here for {age:.0f} s"
