"""The Zarr store: one schema as data, and the few ways to touch it.

Arrays are flat: the frames of all sequences lie one after the other, and a table says where each begins. Every stage keeps
a mark per item (0 pending, 1 done, 2 failed) that is written after the payload, because a chunk that was never written
reads as zeros, not as an error.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from filelock import FileLock, Timeout
from zarr.codecs import BloscCodec, Crc32cCodec

FORMAT = 1
PENDING, DONE, FAILED = 0, 1, 2

CONVENTIONS = {
    "rot6d": "first two ROWS of the rotation matrix, row by row (PyTorch3D, MotionCLIP)",
    "joints": "SMPL's 24, parent before child; AMASS joints 0-21, 22 and 37",
    "axes": "world z up, as in AMASS",
    "units": "metres, seconds, radians; RGB 0..255",
    "marks": "0 pending, 1 done, 2 failed; a missing chunk reads as zeros, so trust the marks",
}


@dataclass(frozen=True)
class Spec:
    """One array: element type, the sizes after the first axis, rows a chunk, chunks a shard (0: not sharded)."""

    dtype: str
    row: tuple[str | int, ...]
    chunk: int
    shard: int
    doc: str


# Every array of the store. A name in `row` is a size that the stage fixes when it makes the array. A shard is a file and
# has one writer. Frames: 32 x 512 rows a shard, so that AMASS at 30 fps is about 280 files an array.
FRAME_CHUNK, FRAME_SHARD = 512, 32
SCHEMA: dict[str, Spec] = {
    "sequences/row": Spec("int64", (), 65536, 0, "first row of the sequence in motion/*"),
    "sequences/frames": Spec("int64", (), 65536, 0, "frames at the store's fps; 0 where the file failed"),
    "sequences/block": Spec("int64", (), 65536, 0, "block of work; sequences of a block share its shards"),
    "sequences/fps": Spec("float64", (), 65536, 0, "frames per second of the source file"),
    "sequences/betas": Spec("float32", (16,), 65536, 0, "SMPL shape of the source"),
    "sequences/gender": Spec("uint8", (), 65536, 0, "0 neutral, 1 female, 2 male"),
    "sequences/sha256": Spec("uint8", (32,), 65536, 0, "of the source file"),
    "sequences/split": Spec("uint8", (), 65536, 0, "0 train, 1 val, 2 test"),
    "sequences/done": Spec("uint8", (), 65536, 0, "mark of prepare"),
    "motion/rot6d": Spec("float32", (24, 6), FRAME_CHUNK, FRAME_SHARD, "local joint rotations, 6D rows"),
    "motion/trans": Spec("float32", (3,), FRAME_CHUNK, FRAME_SHARD, "root translation, metres, z up"),
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
    "pictures/window": Spec("int64", (), 65536, 0, "window the picture shows"),
    "pictures/frame": Spec("int64", (), 65536, 0, "frame within the window"),
    "pictures/view": Spec("int64", (), 65536, 0, "camera, counted around the body from the front"),
    "pictures/done": Spec("uint8", (), 65536, 0, "mark of render"),
    "pictures/rgb": Spec("uint8", ("size", "size", 3), 8, 32, "pictures, RGB, white background"),
    # One group an encoder: embeddings/<encoder>/...
    "embeddings/*/image": Spec("float32", ("width",), 1024, 0, "image vectors as the encoder gives them"),
    "embeddings/*/image_done": Spec("uint8", (), 65536, 0, "mark of embed, one a picture"),
    "embeddings/*/text": Spec("float32", ("width",), 1024, 0, "text vectors as the encoder gives them"),
    "embeddings/*/text_done": Spec("uint8", (), 65536, 0, "mark of embed, one a text"),
}
# Lists of strings are two arrays each: <name>/utf8 and <name>/offset.
STRINGS = {
    "sequences/name": "source path below the input folder, '/' between folders",
    "texts": "every distinct string that gets a vector: labels, joined labels, categories",
}
SPLITS = ("train", "val", "test")


def spec_of(path: str) -> Spec:
    """The schema's entry for an array path; an encoder's name stands for the star."""
    parts = path.split("/")
    if parts[0] == "embeddings":
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

    def array(self, path: str) -> zarr.Array:
        """The array at `path`; StoreError naming the command that makes it when it is missing."""
        if path not in self.root:
            stage = {"pictures": "render", "embeddings": "embed"}.get(path.split("/")[0], "prepare")
            raise StoreError(f"{self.url}: no {path} in this store; run `mclip {stage} {self.url}` first")
        found = self.root[path]
        assert isinstance(found, zarr.Array)
        return found

    def read(self, path: str) -> np.ndarray:
        """The whole array at `path` in memory."""
        return np.asarray(self.array(path)[...])

    def grow(self, path: str, rows: int, **sizes: int) -> zarr.Array:
        """The array at `path` with `rows` rows, made from the schema or resized; old rows are kept."""
        spec = spec_of(path)
        if path in self.root:
            array = self.array(path)
            if array.shape[0] != rows:
                array.resize((rows, *array.shape[1:]))
            return array
        row = tuple(sizes[size] if isinstance(size, str) else size for size in spec.row)
        return self.root.create_array(
            path,
            shape=(rows, *row),
            dtype=spec.dtype,
            chunks=(spec.chunk, *row),
            shards=(spec.chunk * spec.shard, *row) if spec.shard else None,
            # Bit shuffling suits slowly changing floats; crc32c so that rot on the disk is seen.
            compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), Crc32cCodec()],
            fill_value=0,
            attributes={"doc": spec.doc},
        )

    def write(self, path: str, values: np.ndarray, **sizes: int) -> None:
        """Replace a whole small array."""
        self.grow(path, len(values), **sizes)[...] = values

    def write_strings(self, path: str, strings: Sequence[str]) -> None:
        """Replace a list of strings: UTF-8 bytes, flat, and where each begins."""
        encoded = [string.encode() for string in strings]
        offset = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        utf8 = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        for part, values in (("utf8", utf8), ("offset", offset)):
            self.root.create_array(
                f"{path}/{part}", data=values, chunks=(1 << 20,), overwrite=True,
                compressors=[BloscCodec(cname="zstd"), Crc32cCodec()],
                attributes={"doc": STRINGS[path]},
            )  # fmt: skip

    def strings(self, path: str) -> list[str]:
        """A list of strings as written by `write_strings`."""
        utf8, offset = self.read(f"{path}/utf8").tobytes(), self.read(f"{path}/offset")
        return [utf8[a:b].decode() for a, b in zip(offset[:-1], offset[1:], strict=True)]

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
        options = json.loads(json.dumps(options))
        made_with = self.attributes(stage).get("options")
        if made_with is None:
            self.set_attributes(stage, options=options, version=version())
        elif made_with != options:
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
        root = zarr.create_group(location, attributes={})
        root.attrs.update({"mclip": {"format": FORMAT, "version": version()}, "conventions": CONVENTIONS})
        return Store(location, root)
    try:
        root = zarr.open_group(location, mode="r+")
    except FileNotFoundError as error:
        raise StoreError(f"{location}: no store here; `mclip prepare SOURCE {location}` makes one") from error
    made_by = root.attrs.get("mclip")
    if not isinstance(made_by, dict):
        raise StoreError(f"{location}: a Zarr group, but not one of mclip's (no `mclip` attribute)")
    if made_by.get("format") != FORMAT:
        raise StoreError(
            f"{location}: store format {made_by.get('format')} written by mclip {made_by.get('version')}, "
            f"this is mclip {version()} with format {FORMAT}: use that version, or prepare a new store"
        )
    return Store(location, root)


def delete_store(location: str) -> None:
    """Delete a store, if there is one; a folder that is none is left alone by `open_store`'s own check."""
    if is_store(location):
        open_store(location)
        zarr.open_group(location, mode="w")
        if "://" not in location:
            shutil.rmtree(location)


def is_store(location: str) -> bool:
    """Whether a Zarr group lies there."""
    try:
        zarr.open_group(location, mode="r")
    except FileNotFoundError:
        return False
    return True


def refuse_foreign_folder(location: str) -> None:
    """StoreError when a local path holds files already: a store is never mixed with them."""
    path = Path(location)
    if "://" not in location and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StoreError(f"{location}: exists and is no store; expected a new or empty folder: name another")


@contextlib.contextmanager
def one_writer(url: str) -> Iterator[None]:
    """Hold a local store for writing, or StoreError naming who holds it. The lock dies with its process."""
    if "://" in url:
        yield
        return
    holder = Path(f"{url.rstrip('/')}.lock")
    lock = FileLock(f"{holder}.flock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        told = json.loads(holder.read_text())
        raise StoreError(
            f"{url}: process {told['pid']} on {told['host']} has been writing here for "
            f"{time.time() - told['since']:.0f} s: wait for it, or use another store"
        ) from None
    try:
        holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}))
        yield
        holder.unlink(missing_ok=True)
    finally:
        lock.release()
