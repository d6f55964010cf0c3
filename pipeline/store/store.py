"""An open store, and the few ways to touch it."""

import hashlib
import importlib.metadata
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from mclip.pipeline.store.location import refuse_foreign_folder
from mclip.pipeline.store.schema import CONVENTIONS, FORMAT, STRINGS, StoreError, spec_of


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

    @property
    def fps(self) -> float:
        """Frames per second of its motion."""
        return float(self.attributes("prepare")["options"]["fps"])

    @property
    def crop(self) -> int:
        """Frames of a training crop."""
        return int(self.attributes("prepare")["options"]["crop"])

    @property
    def window(self) -> int:
        """Frames of a window."""
        return int(self.attributes("prepare")["options"]["window"])

    @property
    def encoders(self) -> dict[str, Any]:
        """The description of every encoder whose vectors it has, by name."""
        return dict(self.attributes("embed").get("encoders", {}))

    @property
    def is_indexed(self) -> bool:
        """Whether its sequences are cut into windows."""
        return bool(self.attributes("prepare").get("indexed"))

    def motion(self, at: slice) -> tuple[np.ndarray, np.ndarray]:
        """6D rotations (N, 24, 6) and root places (N, 3), metres, of some rows of its motion, in float32."""
        return self.read("motion/rot6d", at), self.read("motion/trans", at)

    def columns(self, table: str, *names: str) -> tuple[np.ndarray, ...]:
        """Some columns of a table such as `windows`."""
        return tuple(self.read(f"{table}/{name}") for name in names)

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
