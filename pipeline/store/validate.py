"""A store looked at as a whole: every chunk decoded, every number where it must be, every mark with its payload."""

import itertools
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import zarr

from mclip.pipeline.files.documents import broken_lines
from mclip.pipeline.machine.terminal import Bar
from mclip.pipeline.machine.words import visible
from mclip.pipeline.store.location import filesystem_of, neighbour, read_neighbour
from mclip.pipeline.store.schema import DONE, FAILED, PENDING, REPLACED, SCHEMA, STRINGS, spec_of
from mclip.pipeline.store.sealed import METADATA, metadata_fault
from mclip.pipeline.store.stage import Summary
from mclip.pipeline.store.status import MANIFEST, RUNS, Line, marks
from mclip.pipeline.store.store import Store

NORM = 1e-4  # how far a row of a float32 rotation may be from length one, and two rows from square


def validate(store: Store) -> list[str]:
    """Everything that is wrong with the store, one line each; an empty list when nothing is."""
    damaged = [*bad_metadata(store)] or [*missing(store)]
    if not damaged:
        damaged = [problem for path in array_paths(store) for problem in undecodable(store, path)]
        damaged += bad_journals(store)
    if damaged:  # what cannot be read cannot be compared
        return damaged
    paths = array_paths(store)
    return [
        *misshapen(store, paths),
        *bad_marks(store),
        *bad_sequences(store),
        *bad_windows(store),
        *bad_texts(store),
        *bad_pictures(store),
        *bad_vectors(store),
    ]


def bad_metadata(store: Store) -> Iterator[str]:
    """Groups and arrays whose zarr.json is not as mclip wrote it."""
    filesystem, root = filesystem_of(store.url)
    filesystem.invalidate_cache()
    for file in sorted(path for path in filesystem.find(root) if PurePosixPath(path).name == METADATA):
        within = str(PurePosixPath(file).relative_to(root.lstrip("/") if not file.startswith(root) else root))
        if (fault := metadata_fault(filesystem.cat_file(file))) and not store.is_deleted(within):
            yield f"{within} {fault}"


def bad_journals(store: Store) -> Iterator[str]:
    """Lines of the journals beside the store that are damaged, and a manifest of other sequences than the store's."""
    for ending, schema in ((RUNS, Summary), (MANIFEST, Line)):
        content, name = read_neighbour(store.url, ending), neighbour(store.url, ending)
        broken = [*broken_lines(content, schema)]
        yield from (f"{name}: {fault}" for fault in broken)
        if ending == MANIFEST and not broken and content and store.attributes("prepare").get("indexed"):
            passed_over = len(store.attributes("prepare").get("passed_over", {}))
            count, lines = store.array("sequences/done").shape[0], content.count(b"\n") - passed_over
            if lines != count:
                yield f"{name}: {lines} lines, the store has {count} sequences: `mclip prepare` writes it anew"


def array_paths(store: Store) -> list[str]:
    """Paths of the schema's arrays that the store has."""
    return [path for path in schema_paths(store) if path in store]


def schema_paths(store: Store) -> list[str]:
    """Paths of all arrays of the schema, for every encoder and model that the store knows."""
    names = {"embeddings": store.encoders, "latents": store.attributes("latents")}
    return [path.replace("*", name) for path in SCHEMA for name in names.get(path.split("/")[0], [""])]


def missing(store: Store) -> Iterator[str]:
    """Arrays and groups that are not there, though the stage that makes them says that it did."""
    begun = {"embeddings", "latents"}
    if store.attributes("prepare").get("sequences"):
        begun |= {"sequences", "motion"}
    if store.is_indexed:
        begun |= {"spans", "windows", "labelsets", "texts"}
    if "options" in store.attributes("render"):
        begun |= {"pictures"}
    paths = [path for path in schema_paths(store) if path.split("/")[0] in begun]
    groups = dict.fromkeys(str(group) for path in paths for group in reversed(PurePosixPath(path).parents[:-1]))
    lost: list[str] = []
    for path in (*groups, *paths):
        if path not in store and not any(path.startswith(f"{above}/") for above in lost):
            lost.append(path)
            yield f"{path} is missing: restore it, or make it again with --replace"


def blocks_of(array: zarr.Array[Any]) -> Iterator[slice]:
    """Slices of an array that hold whole shards, or whole chunks where it has none."""
    step = (array.shards or array.chunks)[0]
    yield from (slice(start, min(start + step, array.shape[0])) for start in range(0, array.shape[0], step))


def undecodable(store: Store, path: str) -> Iterator[str]:
    """Shards of an array that cannot be read back: cut short, or their checksum is wrong."""
    array = store.array(path)
    with Bar() as bar:
        task = bar.add_task(path, total=array.nchunks, rate="")
        for at in blocks_of(array):
            bar.update(task, advance=1)
            try:
                array[at]
            except Exception as error:  # crc32c, blosc, zarr and the file system each have their own
                yield f"{path}[{at.start}:{at.stop}] cannot be read: {type(error).__name__}: {error}"


def misshapen(store: Store, paths: list[str]) -> Iterator[str]:
    """Arrays of another type, and tables whose columns are of different lengths."""
    lengths: dict[str, dict[str, int]] = {}
    for path in paths:
        array, spec = store.array(path), spec_of(path)
        if array.dtype not in map(np.dtype, (spec.dtype, *spec.also)):
            yield f"{path} holds {array.dtype}, expected {' or '.join((spec.dtype, *spec.also))}"
        table, column = str(PurePosixPath(path).parent), PurePosixPath(path).name
        if table in ("sequences", "windows", "spans", "pictures", "motion"):
            lengths.setdefault(table, {})[column] = array.shape[0]
    for table, found in lengths.items():
        if len(set(found.values())) > 1:
            yield f"{table}/* have different lengths: {found}"
    for path in (each for each in STRINGS if f"{each}/offset" in store):
        offset, size = store.read(f"{path}/offset"), store.array(f"{path}/utf8").shape[0]
        lost = size > 0 and not offset.any()  # a chunk that is not there reads as zeros
        if lost or len(offset) == 0 or offset[0] != 0 or (np.diff(offset) < 0).any() or offset[-1] > size:
            yield f"{path}/offset does not divide the {size} bytes of {path}/utf8"


def bad_marks(store: Store) -> Iterator[str]:
    """Marks that are none, and failures without a reason."""
    for stage, path, _ in marks(store):
        found = store.read(path)
        if unknown := set(np.unique(found).tolist()) - {PENDING, DONE, FAILED, REPLACED}:
            yield f"{path} has marks {sorted(unknown)}, expected 0 to 3"
        reasons = store.attributes(stage).get("failures", {})
        for item in np.flatnonzero(found == FAILED).tolist():
            if f"{path}[{item}]" not in reasons:
                yield f"{path}[{item}] failed, and no reason is recorded"


def bad_sequences(store: Store) -> Iterator[str]:
    """Sequences whose rows are outside, overlap, or are no motion."""
    if "sequences/row" not in store:
        return
    row, frames, done = store.columns("sequences", "row", "frames", "done")
    total = store.array("motion/rot6d").shape[0]
    if ((row < 0) | (frames < 0) | (row + frames > total)).any():
        yield f"sequences/row and frames lead out of motion/*, which has {total} rows"
        return
    if (np.diff(row) < frames[:-1]).any():
        yield "sequences/row: sequences overlap"
    names = store.strings("sequences/name")
    # One shard at a time: which sequence a row belongs to, and whether that one is done.
    ready = np.repeat(done == DONE, frames)
    owner = np.repeat(np.arange(len(row)), frames)
    at_row = np.repeat(row, frames) + np.arange(frames.sum()) - np.repeat(np.cumsum(frames) - frames, frames)
    for path, wrong in (("motion/rot6d", not_rotations), ("motion/trans", not_finite)):
        array = store.array(path)
        for at in blocks_of(array):
            low, high = np.searchsorted(at_row, [at.start, at.stop])
            here = np.flatnonzero(ready[low:high]) + low
            bad = wrong(np.asarray(array[at])[at_row[here] - at.start])
            for item in np.unique(owner[here[bad]]).tolist():
                where = int(at_row[here[bad]][owner[here[bad]] == item][0])
                yield f"{path}[{where}] of {visible(names[item], keep='')}: {wrong.__doc__}, though it is marked done"


def not_rotations(rot6d_NJD: np.ndarray) -> np.ndarray:
    """not two rows of a rotation"""
    a, b = rot6d_NJD[..., :3], rot6d_NJD[..., 3:]
    products = np.stack([(a * a).sum(-1) - 1, (b * b).sum(-1) - 1, (a * b).sum(-1)])
    return np.asarray(~(np.abs(products).max(axis=(0, 2)) < NORM))  # NaN is not below anything


def not_finite(values: np.ndarray) -> np.ndarray:
    """NaN or infinity"""
    return np.asarray(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))


def bad_windows(store: Store) -> Iterator[str]:
    """Windows outside their sequence, in another split, or with label sets that are none."""
    if not store.is_indexed:
        return
    sequence, row, frames, split = store.columns("windows", "sequence", "row", "frames", "split")
    begin, length = store.read("sequences/row"), store.read("sequences/frames")
    done = store.read("sequences/done")
    if ((sequence < 0) | (sequence >= len(begin))).any():
        yield f"windows/sequence: expected 0 to {len(begin) - 1}"
        return
    for window in np.flatnonzero(
        (row < begin[sequence]) | (row + frames > begin[sequence] + length[sequence]) | (frames < 1)
    ):
        yield f"windows/row[{window}]: rows {row[window]} to {row[window] + frames[window]} are not its sequence's"
    if (done[sequence] != DONE).any():
        yield "windows/sequence: a window of a sequence that is not done"
    if (split != store.read("sequences/split")[sequence]).any():
        yield "windows/split: a window in another split than its sequence"
    labelset, sets = store.read("windows/labelset"), store.array("labelsets/text").shape[0]
    if labelset.size and not 0 <= labelset.min() <= labelset.max() < sets:
        yield f"windows/labelset: expected 0 to {sets - 1}"


def bad_texts(store: Store) -> Iterator[str]:
    """Numbers of texts that are none, and offsets that do not divide their list."""
    if not store.is_indexed:
        return
    texts = store.array("texts/offset").shape[0] - 1
    sets = store.array("labelsets/text").shape[0]
    for path in ("labelsets/text", "labelsets/labels", "labelsets/categories", "spans/text"):
        found = store.read(path)
        if len(found) and not -1 <= found.min() <= found.max() < texts:
            yield f"{path}: expected texts 0 to {texts - 1}"
    for name in ("labels", "categories"):
        offset = store.read(f"labelsets/{name}_offset")
        if (
            len(offset) != sets + 1
            or (np.diff(offset) < 0).any()
            or offset[-1] != store.array(f"labelsets/{name}").shape[0]
        ):
            yield f"labelsets/{name}_offset does not divide labelsets/{name} among {sets} sets"


def bad_pictures(store: Store) -> Iterator[str]:
    """Pictures marked done that are black, as one that was never drawn is."""
    if "pictures/rgb" not in store:
        return
    done, rgb = store.read("pictures/done") == DONE, store.array("pictures/rgb")
    window = store.read("pictures/window")
    if len(window) and not 0 <= window.min() <= window.max() < store.array("windows/row").shape[0]:
        yield "pictures/window: a picture of a window that is none"
    for at in blocks_of(rgb):
        black = ~np.asarray(rgb[at]).any(axis=(1, 2, 3)) & done[at]
        yield from (
            f"pictures/rgb[{at.start + item}] is black, though it is marked done" for item in np.flatnonzero(black)
        )


def bad_vectors(store: Store) -> Iterator[str]:
    """Vectors marked done that are zero or not finite."""
    encoders = store.encoders
    for name, kind in itertools.product(encoders, ("image", "text")):
        path = f"embeddings/{name}/{kind}"
        if path not in store or f"{path}_done" not in store:
            continue
        done, array = store.read(f"{path}_done") == DONE, store.array(path)
        for at in blocks_of(array):
            vectors = np.asarray(array[at])
            bad = (not_finite(vectors) | ~vectors.any(axis=1)) & done[at]
            yield from (
                f"{path}[{at.start + item}] is no vector, though it is marked done" for item in np.flatnonzero(bad)
            )
