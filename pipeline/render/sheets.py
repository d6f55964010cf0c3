"""Pictures side by side."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from mclip.pipeline.files.atomic import by_rename
from mclip.pipeline.store.schema import DONE
from mclip.pipeline.store.store import Store


def window_pictures(store: Store, windows: np.ndarray) -> np.ndarray:
    """The first picture (B, S, S, 3) of every given window."""
    window, rgb = store.read("pictures/window"), store.array("pictures/rgb")
    return np.stack([np.asarray(rgb[int(np.argmax(window == each))]) for each in windows])


def contact_sheet(store: Store, path: Path, *, most: int = 64) -> int:
    """Write a PNG with up to `most` of the store's pictures, evenly chosen; returns how many it shows.

    Where none is drawn, no file is written.
    """
    drawn = np.flatnonzero(store.read("pictures/done") == DONE)
    if not len(drawn):
        return 0
    shown = drawn[np.linspace(0, len(drawn) - 1, min(most, len(drawn))).astype(int)]
    rgb = store.array("pictures/rgb")
    with by_rename(path) as aside:
        tile(np.stack([np.asarray(rgb[int(item)]) for item in shown])).save(aside)
    return len(shown)


def tile(pictures_BSS3: np.ndarray, *, columns: int | None = None, side: int = 160) -> Image.Image:
    """Pictures (B, S, S, 3) side by side in rows, as near a square as they make, each `side` pixels."""
    columns = columns or math.ceil(math.sqrt(len(pictures_BSS3)))
    sheet = Image.new("RGB", (columns * side, math.ceil(len(pictures_BSS3) / columns) * side), "white")
    for item, picture in enumerate(pictures_BSS3):
        small = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(small, (item % columns * side, item // columns * side))
    return sheet
