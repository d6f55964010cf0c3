"""Which labels a crop of frames carries, and the one text that they make."""

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from mclip.pipeline.labels.spans import Span


def frame_range(span: Span, frames: int, fps: float) -> tuple[int, int]:
    """Frames (first, one past last) whose time lies in [start, end), cut to the sequence."""
    # Cut before rounding: infinity is no integer, and 1e300 s is more frames than an array can hold.
    first, last = (math.ceil(min(seconds * fps - 1e-6, frames)) for seconds in (span.start, span.end))
    return max(first, 0), last


def crop_members(
    spans: Sequence[Span], *, first_frame: int, shifts: int, crop: int, frames: int, fps: float
) -> np.ndarray:
    """(shifts, spans) booleans: whether crop `shift` of a window shares a frame with the span.

    The window begins at `first_frame` of a sequence of `frames`; crop `s` is frames first_frame + s .. + crop.
    """
    ranges = np.array([frame_range(span, frames, fps) for span in spans], np.int64).reshape(-1, 2)
    start = first_frame + np.arange(shifts)[:, None]
    overlap = np.minimum(ranges[:, 1], start + crop) - np.maximum(ranges[:, 0], start)
    return overlap > 0


def joined(texts: Iterable[str]) -> str:
    """Our text of a crop: its distinct labels in alphabetical order, joined by ' and '.

    `release_texts` is the rule of the paper's release, which differs where labels hold for the whole sequence, overlap,
    or leave frames unlabelled.
    """
    return " and ".join(sorted(set(texts)))


THEN = ", then "  # between what begins one after the other


def in_order(spans: Iterable[Span]) -> str:
    """Another text of a crop: its distinct labels in the order in which they begin, joined by THEN.

    Those that begin together are joined as `joined` does. An alphabet hides which came first.
    """
    by_start = itertools.groupby(sorted(spans, key=lambda span: span.start), key=lambda span: span.start)
    seen: set[str] = set()
    parts = []
    for _, together in by_start:
        new = {span.text for span in together} - seen
        seen |= new
        parts += [joined(new)] if new else []
    return THEN.join(parts)


def release_frames(spans: Sequence[Span], *, frames: int, seconds: float) -> np.ndarray:
    """(frames,) texts of a source's frames by the release's rule (its amass_parser.py); '' where nobody labelled.

    Labels of the whole sequence are one text, "and " between them and no space before; a later label overwrites an
    earlier one; times become frames by Python's round. `seconds` is what the labels say the motion lasts.
    """
    text_F = np.full(frames, "", object)
    whole = [span.written or span.text for span in spans if span.is_whole]
    if whole:
        text_F[:] = "and ".join(whole)
    for span in spans:
        if not span.is_whole:
            first, last = (round(min(at * frames / seconds, frames)) for at in (span.start, span.end))
            text_F[first:last] = span.written or span.text
    return text_F


def release_texts(text_N: np.ndarray, *, first_frame: int, shifts: int, crop: int, frames: int) -> list[str]:
    """The release's text of every crop of a window, from those of its sequence's frames (its dataset.py)."""
    starts = range(first_frame, first_frame + shifts)
    return [" and ".join(sorted(set(text_N[start : min(start + crop, frames)]))) for start in starts]
