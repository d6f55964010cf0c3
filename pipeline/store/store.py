"""An open store, and the few ways to touch it."""

import hashlib
import importlib.metadata
import itertools
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from mclip.pipeline.store.location import filesystem_of, is_local, refuse_foreign_folder
from mclip.pipeline.store.lock import clear_dead_lock
from mclip.pipeline.store.schema import CONVENTIONS, DONE, FORMAT, OUTCOME, SPLITS, STRINGS, StoreError, spec_of
from mclip.pipeline.store.sealed import CONSOLIDATED, METADATA, zarr_store

ENDINGS = re.compile(r"(_poses|_stageii)?\.\w+$")  # of a recording's file
UNREADABLE = (ValueError, TypeError)  # zarr's, for a damaged zarr.json: of values, and of keys that it does not know
DELETING = "deleting"  # attribute: groups of arrays that are none any more, though their files may still be there


class Windows(NamedTuple):
    """Pieces of sequences that training crops are cut from: whole numbers (W,), a window each."""

    sequence: np.ndarray  # its sequence, counted as in `Store.sequences`
    row: np.ndarray  # its first row in `motion/*`
    frames: np.ndarray  # how many rows it has, at most `Store.window`


class Store:
    """An open store. `root` is its zarr group; everything else is a short way to say something about it."""

    def __init__(self, url: str | os.PathLike[str], root: zarr.Group):
        self.url = str(url)
        self.root = root

    def __contains__(self, path: str) -> bool:
        return path in self.root and not self.is_deleted(path)

    def is_deleted(self, path: str) -> bool:
        """Whether a path lies in a group whose deletion was begun, and not ended where somebody was killed."""
        return any(f"{path}/".startswith(f"{group}/") for group in self.deleted())

    def deleted(self) -> list[str]:
        """Groups whose deletion was begun."""
        found = self.root.attrs.get(DELETING, [])
        return [str(group) for group in found] if isinstance(found, list) else []

    def array(self, path: str) -> zarr.Array[Any]:
        """The array at `path`; StoreError naming the command that makes it when it is missing."""
        try:
            if self.is_deleted(path):
                raise KeyError(path)
            found = self.root[path]
        except KeyError:
            stage = {"pictures": "render", "embeddings": "embed"}.get(path.split("/")[0], "prepare")
            raise StoreError(f"{self.url}: no {path} in this store; run `mclip {stage} {self.url}` first") from None
        except UNREADABLE as error:
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
        self.end_deletion()
        if path in self.root:
            array = self.array(path)
            if array.shape[0] != rows:
                self.drop_consolidated()
                array.resize((rows, *array.shape[1:]))
            return array
        self.drop_consolidated()
        for group in reversed(
            PurePosixPath(path).parents[:-1]
        ):  # one by one: zarr makes them all at once, in any order
            self.root.require_group(str(group))
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

    @property
    def sequences(self) -> list[str]:
        """The names of its sequences: each one's path below what was prepared, ending and all."""
        return self.strings("sequences/name")

    def find_sequence(self, clip: str) -> int:
        """Number of the one sequence that is called `clip`, with or without its folders, or whose name holds it.

        StoreError when there is none, or several.
        """
        names = self.sequences
        holding = [item for item, name in enumerate(names) if clip in name]
        # CMU/02/02_05_poses.npz is called 02_05, which 102_05 holds, too.
        called = [item for item in holding if f"/{ENDINGS.sub('', names[item])}".endswith(f"/{clip}")]
        found = [item for item in holding if names[item] == clip] or called or holding
        if not found:
            raise StoreError(
                f"{self.url}: no sequence whose name holds {clip!r}, among {len(names)}: first {names[:3]}"
            )
        if len(found) > 1:
            told = ", ".join(names[item] for item in found[:5])
            raise StoreError(f"{self.url}: {len(found)} sequences hold {clip!r}: {told}: name more of one")
        return found[0]

    def rows_of(self, item: int) -> slice:
        """The rows of a sequence in `motion/*`. StoreError for one that is not done, whose rows are zeros."""
        row, frames, done = (int(self.read(f"sequences/{name}")[item]) for name in ("row", "frames", "done"))
        if done != DONE:
            raise StoreError(f"{self.url}: {self.sequences[item]} has no motion: it is {OUTCOME[done]}, and not done")
        return slice(row, row + frames)

    def motion(self, of: str | slice) -> tuple[np.ndarray, np.ndarray]:
        """6D rotations (T, 24, 6) and root places (T, 3), metres, z up, of a sequence or of some rows, in float32.

        A sequence is named as for `find_sequence`; its frames are at `fps`. The six numbers are the first two rows of
        a local rotation's matrix. StoreError for a sequence without motion.
        """
        at = self.rows_of(self.find_sequence(of)) if isinstance(of, str) else of
        return self.read("motion/rot6d", at), self.read("motion/trans", at)

    def windows(self, *, split: str | None = None) -> Windows:
        """Where the windows of a split lie, or all of them. StoreError for a split that is none of SPLITS."""
        if split is not None and split not in SPLITS:
            raise StoreError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
        *columns, split_W = self.columns("windows", *Windows._fields, "split")
        wanted_W = slice(None) if split is None else split_W == SPLITS.index(split)
        return Windows(*(column[wanted_W] for column in columns))

    def columns(self, table: str, *names: str) -> tuple[np.ndarray, ...]:
        """Some columns of a table such as `windows`."""
        return tuple(self.read(f"{table}/{name}") for name in names)

    def stamp(self) -> str:
        """What its file system tells of its metadata, which every stage writes last: another one after every change.

        StoreError where the store is there no more.
        """
        filesystem, root = filesystem_of(self.url)
        filesystem.invalidate_cache()  # others write, too
        try:
            return str(filesystem.info(f"{root}/{METADATA}"))
        except FileNotFoundError as error:
            raise no_store(self.url) from error

    def refresh(self) -> None:
        """Take its attributes as they are now: since it was opened another process may have written them."""
        self.root = open_store(self.url).root

    def set_attributes(self, name: str, **values: Any) -> None:
        """Add to a stage's attributes; one write of the store's metadata."""
        self.root.attrs[name] = self.attributes(name) | values

    def fix_options(self, stage: str, options: Mapping[str, Any], *, names: Mapping[str, str] | None = None) -> None:
        """Record a stage's options, or refuse others than those its results were made with.

        `names` is how to call options whose values are hashes, when they are refused.
        """
        self.refuse_other_options(stage, options, names=names)
        if "options" not in self.attributes(stage):
            told = {"names": dict(names)} if names else {}
            self.set_attributes(stage, options=json.loads(json.dumps(options)), version=version(), **told)

    def refuse_other_options(
        self, stage: str, options: Mapping[str, Any], *, names: Mapping[str, str] | None = None
    ) -> None:
        """StoreError when a stage has results that were made with other options."""
        made_with = self.attributes(stage).get("options")
        options = json.loads(json.dumps(options))
        if made_with is not None and made_with != options:
            differ = [key for key in options | made_with if options.get(key) != made_with.get(key)]
            told = self.attributes(stage).get("names", {}), names or {}
            was, now = (
                {key: name.get(key, each.get(key)) for key in differ}
                for each, name in zip((made_with, options), told, strict=True)
            )
            raise StoreError(
                f"{self.url}: its {stage} stage was made with {was}, this command asks for {now}: "
                "use the same options, pass --replace, or use another store"
            )

    def forget(self, group: str, stage: str) -> None:
        """Delete a group of arrays and the attributes of the stage that made them."""
        self.delete([group], {name: value for name, value in self.root.attrs.items() if name != stage})

    def delete(self, groups: Iterable[str], attributes: Mapping[str, Any]) -> None:
        """Delete groups of arrays and put the store's attributes, both in one write: from then on they are gone.

        Their files go after it. Where a kill leaves some, nobody reads them, and the next writer ends the deletion.
        """
        going = {*self.deleted(), *groups}
        self.root.attrs.put({**attributes, DELETING: sorted(going)})
        self.end_deletion()

    def end_deletion(self) -> None:
        """Delete the files of groups that are deleted."""
        if DELETING not in self.root.attrs:
            return
        filesystem, root = filesystem_of(self.url)
        filesystem.invalidate_cache()  # zarr writes by a file system of its own
        for group in self.deleted():
            if filesystem.exists(f"{root}/{group}"):
                filesystem.rm(f"{root}/{group}", recursive=True)
        del self.root.attrs[DELETING]

    def drop_consolidated(self) -> None:
        """Write the root's metadata without the copy of all others that another program put there: it gets outdated."""
        filesystem, root = filesystem_of(self.url)
        if f'"{CONSOLIDATED}": {{'.encode() in filesystem.cat_file(f"{root}/{METADATA}"):
            self.root.update_attributes({})

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
    """mclip's version, from the installed metadata; of a checkout that is on the path only, from its project file."""
    try:
        return importlib.metadata.version("mclip")
    except importlib.metadata.PackageNotFoundError:
        project = Path(__file__).parents[2] / "pyproject.toml"
        found: str = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
        return found


def open_store(url: str | os.PathLike[str], *, create: bool = False) -> Store:
    """The store at a path or URL. StoreError when it is missing (and not `create`), foreign, or of another format."""
    location = str(url)
    clear_dead_lock(location)
    if create and not is_store(location):
        refuse_foreign_folder(location)
        return Store(location, new_root(location))
    try:
        root = open_root(location, mode="r+")
    except FileNotFoundError as error:
        raise no_store(location) from error
    except StoreError:
        raise
    except UNREADABLE as error:
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


def no_store(location: str) -> StoreError:
    """What to say of a place without a store."""
    if is_local(location) and (Path(location) / "config.json").is_file():
        return StoreError(f"{location}: is a run, expected a store: the other way round, or name its store")
    if is_local(location) and Path(location).is_file():
        return StoreError(f"{location}: a file: expected a folder that is a store")
    return StoreError(f"{location}: no store here; `mclip prepare SOURCE {location}` makes one")


def open_root(location: str, *, mode: Literal["r", "r+"]) -> zarr.Group:
    """A store's group; FileNotFoundError where there is none. What another program consolidated is not believed."""
    if is_local(location) and not Path(location).is_dir():
        raise FileNotFoundError(location)  # zarr would make the folder
    return zarr.open_group(zarr_store(location), mode=mode, use_consolidated=False)


def made_here() -> dict[str, Any]:
    """Attributes of an empty store."""
    return {"mclip": {"format": FORMAT, "version": version()}, "conventions": CONVENTIONS}


def new_root(location: str) -> zarr.Group:
    """An empty store's group; its attributes come with it in one write."""
    return zarr.open_group(zarr_store(location), mode="w", attributes=made_here())


def delete_store(location: str) -> None:
    """Empty a store, if there is one; StoreError for what is none of ours."""
    if is_store(location):
        store = open_store(location)
        filesystem, root = filesystem_of(location)
        names = {PurePosixPath(path).name for path in filesystem.ls(root, detail=False, refresh=True)}
        store.delete(names - {METADATA}, made_here())


def is_store(location: str) -> bool:
    """Whether a Zarr group lies there."""
    try:
        open_root(location, mode="r")
    except FileNotFoundError:
        return False
    except StoreError:
        raise
    except UNREADABLE:  # damaged metadata: something lies there
        return True
    return True
