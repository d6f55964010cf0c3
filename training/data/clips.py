"""A clip of a store by what it is labelled or called, as a source beside texts and motion files."""

# T frames, W windows, S shifts

import difflib

import torch
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline.store.schema import StoreError
from mclip.pipeline.store.store import Store
from mclip.training.data.rows import rows_of_motion

CLIP = "store:"  # before a label or a name, where a text would be a prompt


def clip_rows(store: Store, wanted: str, crop: int) -> Float[Tensor, "T 25 6"]:
    """The middle of a labelled or named clip, at most `crop` frames, in the model's rows; StoreError when none is."""
    window = window_of(store, wanted)
    row, frames = (int(store.read(f"windows/{name}")[window]) for name in ("row", "frames"))
    start = row + max(frames - crop, 0) // 2
    at = slice(start, min(start + crop, row + frames))
    rot6d, trans = map(torch.from_numpy, store.motion(at))
    return rows_of_motion(rot6d, trans)


def window_of(store: Store, wanted: str) -> int:
    """Number of the first window whose text is `wanted`, else whose path holds it; StoreError naming what is near."""
    texts = middle_texts(store)
    names = store.strings("sequences/name")
    paths = [f"/{names[sequence]}" for sequence in store.read("windows/sequence")]
    for number, text in enumerate(texts):
        if text.casefold() == wanted.casefold():
            return number
    for number, path in enumerate(paths):
        if f"/{wanted}/" in path or path.endswith((f"/{wanted}", f"/{wanted}.npz", f"/{wanted}_poses.npz")):
            return number
    near = difflib.get_close_matches(wanted, sorted({*texts} - {""}), n=3, cutoff=0.3)
    raise StoreError(f"{store.url}: no clip is labelled or called {wanted!r}; near it: {'; '.join(near) or 'nothing'}")


def middle_texts(store: Store) -> list[str]:
    """What every window shows in its middle, all labels joined; empty where nobody said."""
    texts, labelset = store.strings("texts"), store.read("windows/labelset")
    number = store.read("labelsets/text")[labelset[:, labelset.shape[1] // 2]]
    return [texts[each] if each >= 0 else "" for each in number.tolist()]


def chunks(frames: int, crop: int) -> list[tuple[int, int]]:
    """Consecutive pieces of `crop` frames; a rest of under half a crop belongs to none, unless it is all there is."""
    starts = range(0, max(frames - crop // 2 + 1, 1), crop)
    return [(start, min(start + crop, frames)) for start in starts]
