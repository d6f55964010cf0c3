"""The crop in the middle of a window: the frames that a window is searched, shown, embedded and measured by."""

# W windows, S shifts

from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int

from mclip.pipeline.store.store import Store

Frames = TypeVar("Frames", bound=Any)  # one window's number of frames, or those of many as an array or tensor


def middle_shift(frames: Frames, crop: int) -> Frames:
    """How many frames into a window of `frames` its middle crop begins; 0 where the window is no longer than a crop."""
    return (frames - crop) * (frames > crop) // 2


def middle_labelsets(store: Store) -> Int[np.ndarray, " W"]:
    """Number of the label set that the middle crop of every window carries."""
    shift_W = middle_shift(store.read("windows/frames"), store.crop)
    labelset_W: np.ndarray = np.take_along_axis(store.read("windows/labelset"), shift_W[:, None], axis=1)[:, 0]
    return labelset_W


def middle_texts(store: Store) -> list[str]:
    """What the middle crop of every window shows, all labels joined; empty where nobody said."""
    texts, number = store.strings("texts"), store.read("labelsets/text")[middle_labelsets(store)]
    return [texts[each] if each >= 0 else "" for each in number.tolist()]
