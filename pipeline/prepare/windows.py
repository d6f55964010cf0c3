"""Windows of the sequences, and the label set of every crop of them."""

import itertools
from collections.abc import Sequence

import numpy as np

from mclip.pipeline.geometry.resample import stride_of
from mclip.pipeline.prepare.labels import Labels, Span, crop_members, joined, mirrored, sequence_key, split_of
from mclip.pipeline.prepare.plan import MIRROR
from mclip.pipeline.store.schema import DONE, SPLITS
from mclip.pipeline.store.store import Store


def windows_of(frames: int, *, window: int, crop: int, short: str) -> list[tuple[int, int]]:
    """(first frame, valid frames) of a sequence's windows: whole ones, then the tail where it is kept.

    The release drops what does not fill a window. A short sequence is a motion all the same, and so is a tail that
    a whole crop fits into: `short` is "pad" to keep both, "drop" to lose them as the release does.
    """
    windows = [(start, window) for start in range(0, frames - window + 1, window)]
    rest = frames - len(windows) * window
    if short == "pad" and rest >= (crop if windows else 2):
        windows.append((frames - rest, rest))
    return windows


class Texts:
    """Distinct strings, each with the number of its first appearance and the sources that it came from."""

    def __init__(self, sources: Sequence[str]) -> None:
        self.index: dict[str, int] = {}
        self.bit = {source: 1 << min(place, 31) for place, source in enumerate(sources)}
        self.source: list[int] = []

    def __call__(self, text: str, *sources: str) -> int:
        number = self.index.setdefault(text, len(self.index))
        if number == len(self.source):
            self.source.append(0)
        for source in sources:
            self.source[number] |= self.bit[source]
        return number

    def write(self, store: Store) -> None:
        """Write the strings and their sources."""
        store.write("texts/source", np.array(self.source, np.uint32))
        store.write_strings("texts", list(self.index))


class LabelSets:
    """Distinct sets of (joined text, labels, categories) that crops carry; set 0 is the empty one."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts
        self.index: dict[tuple[int, tuple[int, ...], tuple[int, ...]], int] = {(-1, (), ()): 0}

    def of_members(self, spans: Sequence[Span], members: np.ndarray) -> np.ndarray:
        """Set of every row of `members` (shifts, spans)."""
        if not spans:
            return np.zeros(len(members), np.int32)
        flat, width = members.tobytes(), len(spans)
        rows = [flat[start : start + width] for start in range(0, len(flat), width)]
        number = {row: self.of_spans([*itertools.compress(spans, row)]) for row in sorted(set(rows))}
        return np.array([number[row] for row in rows], np.int32)

    def of_spans(self, spans: Sequence[Span]) -> int:
        """Number of the set that these spans make."""
        if not spans:
            return 0
        sources = {span.source for span in spans}
        whole = self.texts(joined(span.text for span in spans), *sources)
        labels = dict.fromkeys(self.texts(span.text, span.source) for span in sorted(spans, key=lambda s: s.text))
        pairs = sorted((category, span.source) for span in spans for category in span.categories)
        categories = dict.fromkeys(self.texts(category, source) for category, source in pairs)
        entry = (whole, tuple(labels), tuple(categories))
        return self.index.setdefault(entry, len(self.index))

    def write(self, store: Store) -> None:
        """Write the sets: joined text, and labels and categories flat with offsets."""
        whole, labels, categories = zip(*self.index, strict=True)
        store.write("labelsets/text", np.array(whole, np.int64))
        for name, members in (("labels", labels), ("categories", categories)):
            store.write(f"labelsets/{name}", np.array([*itertools.chain(*members)], np.int64))
            store.write(f"labelsets/{name}_offset", np.cumsum([0, *map(len, members)]))


def index(store: Store, labels: Labels, *, window: int, crop: int, short: str, fps: float, how: str) -> None:
    """Cut the sequences that are done into windows, and find the label set of every crop.

    A crop's labels depend on where it begins, so each window has a label set for every shift; a set is stored once.
    """
    names, frames, rows = store.strings("sequences/name"), store.read("sequences/frames"), store.read("sequences/row")
    rate, done = store.read("sequences/fps"), store.read("sequences/done")
    keys = [sequence_key(name.removesuffix(MIRROR)) for name in names]
    splits = np.array([SPLITS.index(split_of(key, labels)) for key in keys], np.uint8)
    known = labels.sources
    texts = Texts(known)
    sets = LabelSets(texts)
    table: list[tuple[int, int, int, int]] = []
    labelset: list[np.ndarray] = []
    shown: list[tuple[int, Span]] = []
    lost = 0
    for item in np.flatnonzero(done == DONE).tolist():
        spans = spans_of(labels, keys[item], mirror=names[item].endswith(MIRROR))
        # The release's stride keeps the source's clock: frames of 25 to 33 fps that are called 30.
        true_fps = fps if how == "slerp" else rate[item] / stride_of(rate[item], fps)
        cut = windows_of(int(frames[item]), window=window, crop=crop, short=short)
        lost += not cut
        in_crops = np.zeros(len(spans), bool)
        for start, valid in cut:
            table.append((item, int(rows[item]) + start, valid, int(splits[item])))
            members = crop_members(
                spans, first_frame=start, shifts=window - crop + 1, crop=crop, frames=start + valid, fps=true_fps
            )
            in_crops |= members.any(axis=0)
            labelset.append(sets.of_members(spans, members))
        shown += [(item, spans[place]) for place in np.flatnonzero(in_crops)]
    store.write("sequences/split", splits)
    columns = np.array(table, np.int64).reshape(-1, 4).T
    for name, values in zip(("sequence", "row", "frames", "split"), columns, strict=True):
        store.write(f"windows/{name}", values)
    shifts = window - crop + 1
    store.write("windows/labelset", np.array(labelset, np.int32).reshape(-1, shifts), shifts=shifts)
    write_spans(store, shown, texts, sets)
    sets.write(store)
    texts.write(store)
    store.set_attributes(
        "prepare", indexed=True, windows=len(table), too_short=lost, sources=list(known),
        unlabelled=sum(key not in labels.spans for key in keys),
        labels_without_file=len(set(labels.spans) - set(keys)), labels_passed_over=dict(labels.passed_over),
    )  # fmt: skip


def spans_of(labels: Labels, key: str, *, mirror: bool) -> list[Span]:
    """A sequence's labels, the other way round for a mirrored one."""
    spans = labels.spans.get(key, ())
    if not mirror:
        return list(spans)
    return [Span(mirrored(s.text), s.start, s.end, tuple(map(mirrored, s.categories)), s.source) for s in spans]


def write_spans(store: Store, spans: Sequence[tuple[int, Span]], texts: Texts, sets: LabelSets) -> None:
    """Write the labels that some crop carries, one row each."""
    store.write("spans/sequence", np.array([item for item, _ in spans], np.int64))
    store.write("spans/start", np.array([span.start for _, span in spans], np.float64))
    store.write("spans/end", np.array([span.end for _, span in spans], np.float64))
    store.write("spans/text", np.array([texts(span.text) for _, span in spans], np.int64))
    store.write("spans/labelset", np.array([sets.of_spans([span]) for _, span in spans], np.int64))
