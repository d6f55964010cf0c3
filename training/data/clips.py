"""A clip of a store by what it is labelled or called, as a source beside texts and motion files."""

# T frames, W windows, S shifts, L label sets

import difflib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mclip.pipeline.prepare.sources import clip_name
from mclip.pipeline.store.middle import middle_shift
from mclip.pipeline.store.schema import StoreError
from mclip.pipeline.store.store import Store
from mclip.training.data.rows import rows_of_motion

CLIP = "store:"  # before a label or a name, where a text would be a prompt
NOBODY = np.iinfo(np.int64).max
NEAR = 3  # labels, and as many clips, that an error names


@dataclass(frozen=True)
class Clip:
    """A crop of a store: its window, how many frames into it, and of how many sequences it is the first that fits."""

    window: int
    shift: int
    among: int


def find_clip(store: Store, wanted: str) -> Clip:
    """The first clip that carries the label `wanted`, else the first whose path holds it; case does not matter.

    Of all crops with the label, one with the fewest others is taken, as near to its window's middle as can be.
    StoreError naming labels and clips that are near.
    """
    found = labelled(store, wanted) or named(store, wanted)
    if found is None:
        raise StoreError(f"{store.url}: no clip is labelled or called {wanted!r}; near it: {near(store, wanted)}")
    return found


def labelled(store: Store, wanted: str) -> Clip | None:
    """The clip of a label."""
    labelset_WS, frames_W, crop = store.read("windows/labelset"), store.read("windows/frames"), store.crop
    shift_S, room_W = np.arange(labelset_WS.shape[1]), np.maximum(frames_W - crop, 0)
    others_WS = np.where(shift_S <= room_W[:, None], other_labels(store, wanted)[labelset_WS], NOBODY)
    carries_WS = others_WS != NOBODY
    if not carries_WS.any():
        return None
    from_middle_WS = abs(shift_S - middle_shift(frames_W, crop)[:, None])
    best = np.where(others_WS == others_WS.min(), from_middle_WS, NOBODY).argmin()
    window, shift = divmod(int(best), len(shift_S))
    return Clip(window, shift, len(np.unique(store.read("windows/sequence")[carries_WS.any(axis=1)])))


def other_labels(store: Store, wanted: str) -> Int[np.ndarray, " L"]:
    """How many labels every label set has beside `wanted`; NOBODY for a set without it.

    All labels of a set joined are a label too: `mclip search` shows them so.
    """
    # One more at the end, for the joined text -1 of a set without labels.
    is_wanted = np.array([*(text.casefold() == wanted.casefold() for text in store.strings("texts")), False])
    labels, count_L = store.read("labelsets/labels"), np.diff(store.read("labelsets/labels_offset"))
    owner = np.repeat(np.arange(len(count_L)), count_L)
    carries_L = np.bincount(owner, weights=is_wanted[labels], minlength=len(count_L)) > 0
    is_joined_L = is_wanted[store.read("labelsets/text")]
    return np.where(is_joined_L, 0, np.where(carries_L, count_L - 1, NOBODY))


def named(store: Store, wanted: str) -> Clip | None:
    """The middle of the first window of the clip whose path ends in, or leads through, `wanted`."""
    word, paths = wanted.casefold(), [f"/{name.casefold()}" for name in store.strings("sequences/name")]
    holds = np.array([f"/{word}/" in f"{path}/" or clip_name(path) == word for path in paths], bool)
    sequence_W = store.read("windows/sequence")
    windows = np.flatnonzero(holds[sequence_W])
    if not len(windows):
        return None
    first = int(windows[0])
    frames = int(store.read("windows/frames")[first])
    return Clip(first, middle_shift(frames, store.crop), len(np.unique(sequence_W[windows])))


def near(store: Store, wanted: str) -> str:
    """Labels and clips that look like `wanted`, those that hold it first; or `nothing`."""
    texts, names = store.strings("texts"), store.strings("sequences/name")
    labels = {texts[number] for number in np.unique(store.read("labelsets/labels"))} - {""}
    groups = (sorted(labels), sorted({clip_name(name) for name in names}))
    found = dict.fromkeys(each for among in groups for each in alike(wanted, among))
    return "; ".join(found) or "nothing"


def alike(wanted: str, among: list[str]) -> list[str]:
    """Up to NEAR of some strings: those that hold the word, shortest first, then those that are written like it."""
    by_case = {each.casefold(): each for each in among}
    holding = sorted((each for each in by_case if wanted.casefold() in each), key=len)
    written = difflib.get_close_matches(wanted.casefold(), by_case, n=NEAR, cutoff=0.5)
    return [by_case[each] for each in dict.fromkeys([*holding, *written])][:NEAR]


def clip_rows(store: Store, window: int, shift: int) -> Float[Tensor, "T 25 6"]:
    """The frames of a window's crop that begins `shift` frames into it, in the model's rows."""
    row, frames = (int(store.read(f"windows/{name}")[window]) for name in ("row", "frames"))
    at = slice(row + shift, row + min(shift + store.crop, frames))
    rot6d, trans = map(torch.from_numpy, store.motion(at))
    return rows_of_motion(rot6d, trans)


def middle_rows(store: Store, window: int) -> Float[Tensor, "T 25 6"]:
    """The frames of a window's middle crop, in the model's rows."""
    frames = int(store.read("windows/frames")[window])
    return clip_rows(store, window, middle_shift(frames, store.crop))


def seconds_of(store: Store, windows: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """When the crops of windows that begin `shifts` frames into them begin and end, in seconds into their sequences."""
    sequence, row, frames = (store.read(f"windows/{name}")[windows] for name in ("sequence", "row", "frames"))
    first = row - store.read("sequences/row")[sequence] + shifts
    return first / store.fps, (first + np.minimum(frames - shifts, store.crop)) / store.fps


def described(store: Store, wanted: str, clip: Clip) -> str:
    """Which clip `store:LABEL` was taken for, of how many."""
    name = store.strings("sequences/name")[int(store.read("windows/sequence")[clip.window])]
    ((start,), (end,)) = seconds_of(store, np.array([clip.window]), np.array([clip.shift]))
    return f"{CLIP}{wanted}: the first of {clip.among} clips, {name} from {start:.1f} to {end:.1f} s"


def chunks(frames: int, crop: int) -> list[tuple[int, int]]:
    """Consecutive pieces of `crop` frames; a rest of under half a crop belongs to none, unless it is all there is."""
    starts = range(0, max(frames - crop // 2 + 1, 1), crop)
    return [(start, min(start + crop, frames)) for start in starts]
