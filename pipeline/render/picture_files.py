"""Pictures of a store as files for use elsewhere: a folder of PNGs, or a tar in WebDataset's layout."""

import contextlib
import hashlib
import io
import json
import shutil
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mclip.pipeline.files.atomic import aside, by_rename
from mclip.pipeline.labels.crop_texts import joined
from mclip.pipeline.machine.terminal import tracked
from mclip.pipeline.store.schema import DONE, SPLITS, StoreError
from mclip.pipeline.store.store import Store

MADE_OF = ".made-of"
SPAN = ("sequence", "start", "end", "text")


def export_pictures(store: Store, out: Path) -> str:
    """Write the pictures that are drawn to a new folder, or to a .tar; returns what was written, in words.

    Each is NUMBER.png with NUMBER.json (where and when it is from) and NUMBER.txt (the labels of its moment), in a tar
    one after the other, as WebDataset reads them. What is there of these pictures already is not made again;
    ValueError when anything else is.
    """
    drawn = np.flatnonzero(store.read("pictures/done") == DONE)
    if not len(drawn):
        raise StoreError(f"{store.url}: no picture in this store; run `mclip render {store.url}` first")
    made_of = hashlib.sha256(store.fingerprint().encode() + drawn.tobytes()).hexdigest()
    if out.exists():
        if made_of_export(out) != made_of:
            raise ValueError(f"{out}: is there already; name another, or delete it first")
        return f"{out}: nothing to do, {len(drawn):,} pictures are there"
    out.parent.mkdir(parents=True, exist_ok=True)
    with (tar_writer if out.suffix == ".tar" else folder_writer)(out, made_of) as write:
        for name, content in members(store, drawn):
            write(name, content)
    return f"{out}: {len(drawn):,} pictures"


@contextlib.contextmanager
def folder_writer(out: Path, made_of: str) -> Iterator[Callable[[str, bytes], object]]:
    """What writes files to a folder that takes its name at the end."""
    made = aside(out)
    shutil.rmtree(made, ignore_errors=True)  # of a run that was killed
    made.mkdir()
    try:
        yield lambda name, content: (made / name).write_bytes(content)
        (made / MADE_OF).write_text(made_of)
        made.replace(out)
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def tar_writer(out: Path, made_of: str) -> Iterator[Callable[[str, bytes], object]]:
    """What writes files to a tar that takes its name at the end; equal content gives equal bytes."""
    with by_rename(out) as made, tarfile.open(made, "w", pax_headers={"comment": made_of}) as tar:

        def write(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        yield write


def made_of_export(out: Path) -> str | None:
    """What an export says that it was made of; None where it says nothing."""
    if out.is_dir():
        return (out / MADE_OF).read_text() if (out / MADE_OF).is_file() else None
    with contextlib.suppress(tarfile.TarError, OSError), tarfile.open(out) as tar:
        return tar.pax_headers.get("comment")
    return None


def members(store: Store, items: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files of pictures, three each."""
    rgb, told = store.array("pictures/rgb"), stories(store, items)
    for item in tracked(items.tolist(), "export", "pictures"):
        story = next(told)
        png = io.BytesIO()
        Image.fromarray(np.asarray(rgb[item])).save(png, "png", compress_level=1)
        yield f"{item:08d}.png", png.getvalue()
        yield f"{item:08d}.json", json.dumps(story).encode()
        yield f"{item:08d}.txt", joined(story["labels"]).encode()


def stories(store: Store, items: np.ndarray) -> Iterator[dict[str, Any]]:
    """What each picture shows: file, seconds into it, labels of that moment, window, frame, view, split."""
    names, texts, fps = (store.strings("sequences/name"), store.strings("texts"), store.fps)
    spans = defaultdict(list)
    for sequence, *span in zip(*(store.read(f"spans/{name}").tolist() for name in SPAN), strict=True):
        spans[sequence].append(span)
    first_row = store.read("sequences/row")
    sequence_W, row_W, split_W = store.columns("windows", "sequence", "row", "split")
    index = (store.read(f"pictures/{name}")[items].tolist() for name in ("window", "frame", "view"))
    for window, frame, view in zip(*index, strict=True):
        sequence = int(sequence_W[window])
        seconds = float(row_W[window] - first_row[sequence] + frame) / fps
        labels = sorted({texts[text] for start, end, text in spans[sequence] if start <= seconds < end})
        yield {
            "sequence": names[sequence],
            "split": SPLITS[split_W[window]],
            "seconds": round(seconds, 4),
            "labels": labels,
            "window": window,
            "frame": frame,
            "view": view,
        }
