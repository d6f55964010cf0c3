"""Pictures side by side, with the words that say what they show."""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps

from mclip.pipeline.files.atomic import by_rename
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS
from mclip.pipeline.machine.words import visible
from mclip.pipeline.prepare.plan import accounts
from mclip.pipeline.prepare.sources import clip_name
from mclip.pipeline.skeletons.check import nearest
from mclip.pipeline.store.schema import DONE
from mclip.pipeline.store.store import Store

INK, SOFT = "#1b1a18", "#5d5b57"
SIDE_COLOURS = {"left": "#1f77b4", "right": "#d62728"}
TITLE, LINE = 18, 20  # pixels: of a title's letters, and of a line of small ones


def window_pictures(store: Store, windows: np.ndarray) -> np.ndarray:
    """The first picture (B, S, S, 3) of every given window."""
    window, rgb = store.read("pictures/window"), store.array("pictures/rgb")
    return np.stack([np.asarray(rgb[int(np.argmax(window == each))]) for each in windows])


def contact_sheet(store: Store, path: Path, *, most: int = 64) -> int:
    """Write a PNG of some windows of the store, evenly chosen: up to `most` pictures, each over its clip's name.

    All pictures of a window stand in one line, and windows of one skeleton behind each other, which
    their captions name where there are several. Returns how many it
    shows; where none is drawn, no file is written.
    """
    window, done = store.read("pictures/window"), store.read("pictures/done") == DONE
    drawn = np.unique(window[done])
    if not len(drawn):
        return 0
    kind = [each.get("skeleton") or each.get("form") or "" for each in accounts(store)]
    kinds = np.array(kind or [""])[store.read("windows/sequence")]
    each = int(np.bincount(window[done]).max())
    count = max(1, min(len(drawn), most // each))
    chosen = drawn[np.linspace(0, len(drawn) - 1, count).astype(int)]
    shown = np.flatnonzero(done & np.isin(window, chosen))
    shown = shown[np.argsort(kinds[window[shown]], kind="stable")]  # a skeleton after the other
    names, rgb = store.strings("sequences/name"), store.array("pictures/rgb")
    sequence = store.read("windows/sequence")[window[shown]]
    pictures = np.stack([np.asarray(rgb[int(item)]) for item in shown])
    columns = each * max(1, round(math.sqrt(len(shown)) / each))
    several = len({*kinds[window[shown]]}) > 1
    captions = [
        f"{kinds[each] or 'SMPL'}: " * several + clip_name(names[item])
        for each, item in zip(window[shown], sequence, strict=True)
    ]
    sheet = tile(pictures, columns=columns, captions=captions)
    with by_rename(path) as aside:
        sheet.save(aside)
    return len(shown)


def tile(
    pictures_BSS3: np.ndarray, *, columns: int | None = None, side: int = 160, captions: Sequence[str] = ()
) -> Image.Image:
    """Pictures (B, S, S, 3) in rows, as near a square as they make, each `side` pixels over its caption."""
    columns = columns or math.ceil(math.sqrt(len(pictures_BSS3)))
    height = side + (LINE if captions else 0)
    sheet = Image.new("RGB", (columns * side, math.ceil(len(pictures_BSS3) / columns) * height), "white")
    for item, picture in enumerate(pictures_BSS3):
        x, y = item % columns * side, item // columns * height
        sheet.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS), (x, y))
        if captions:
            write_words(sheet, captions[item], (x + side // 2, y + side), width=side - 6, anchor="ma")
    return sheet


def picture_row(
    pictures_BSS3: np.ndarray, *, title: str, captions: Sequence[str], cell: tuple[int, int] = (150, 210)
) -> Image.Image:
    """Pictures (B, S, S, 3) on one background, cut to what is on it, in a row under a title, each over its caption."""
    width, height = cell
    top = TITLE + 14 if title else 4
    row = Image.new("RGB", (len(pictures_BSS3) * width, top + height + LINE), "white")
    write_words(row, title, (10, 6), width=row.width - 20, size=TITLE, colour=INK)
    for item, picture in enumerate(cut_to_content(pictures_BSS3)):
        fitted = ImageOps.contain(Image.fromarray(picture), (width - 8, height - 4), Image.Resampling.LANCZOS)
        row.paste(fitted, (item * width + (width - fitted.width) // 2, top + (height - fitted.height) // 2))
        write_words(row, captions[item], (item * width + width // 2, top + height), width=width, anchor="ma")
    return row


def stick_figures(
    place: Mapping[str, Float[np.ndarray, "T 3"]], frames: Sequence[int], *, side: int
) -> UInt8[np.ndarray, "B side side 3"]:
    """Pictures (B, S, S, 3) of a body's joints in some frames, z up, seen from its front and above its own place."""
    around = np.stack([*place.values()])[:, frames] - place["pelvis"][frames]
    scale = 0.45 * side / np.abs(around).max()
    pictures = []
    for frame in frames:
        picture = Image.new("RGB", (side, side), "white")
        pen, hips = ImageDraw.Draw(picture), (place["left_hip"] - place["right_hip"])[frame]
        across = hips * [1, 1, 0] / max(float(np.linalg.norm(hips[:2])), 1e-9)
        at = {}
        for name, each in place.items():
            away = each[frame] - place["pelvis"][frame]
            at[name] = (side / 2 + scale * float(away @ across), side / 2 - scale * float(away[2]))
        for joint, name in enumerate(JOINTS[1:], start=1):
            if name in at:
                colour = SIDE_COLOURS.get(name.split("_")[0], INK)
                above = nearest(JOINTS[PARENTS[joint]], at)
                above = "neck" if name.endswith("shoulder") and not above.endswith("collar") else above
                pen.line([at[name], at[above]], fill=colour, width=max(side // 60, 1))
        pictures.append(np.asarray(picture))
    return np.stack(pictures)


def stack(rows: Sequence[Image.Image]) -> Image.Image:
    """Pictures one below the other, on white."""
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    for row, y in zip(rows, itertools.accumulate((row.height for row in rows), initial=0), strict=False):
        sheet.paste(row, (0, y))
    return sheet


def cut_to_content(pictures_BSS3: np.ndarray) -> np.ndarray:
    """The pictures cut to the smallest frame that holds, in all of them, whatever differs from the upper left pixel."""
    content = (pictures_BSS3 != pictures_BSS3[:, :1, :1]).any(axis=(0, 3))
    if not content.any():
        return pictures_BSS3
    y, x = (np.flatnonzero(content.any(axis=axis)) for axis in (1, 0))
    return pictures_BSS3[:, y[0] : y[-1] + 1, x[0] : x[-1] + 1]


def write_words(
    image: Image.Image,
    words: str,
    at: tuple[int, int],
    *,
    width: int,
    size: int = 13,
    colour: str = SOFT,
    anchor: str = "la",
) -> None:
    """Write a line into a picture, cut with an ellipsis where it is wider than `width` pixels."""
    font, words = typeface(size), visible(words, keep="")
    if font.getlength(words) > width:
        lengths = (font.getlength(words[:count] + "…") for count in range(1, width))  # a letter has a pixel or more
        words = words[: sum(1 for _ in itertools.takewhile(lambda length: length <= width, lengths))].rstrip() + "…"
    ImageDraw.Draw(image).text(at, words, fill=colour, font=font, anchor=anchor)


@functools.cache
def typeface(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Arabic; of other letters it draws a box."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)
