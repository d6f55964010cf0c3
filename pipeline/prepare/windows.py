"""Windows of the sequences, and the label set of every crop of them."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mclip.pipeline.geometry.resample import source_times, stride_of
from mclip.pipeline.labels.crop_texts import crop_members, in_order, joined, release_frames, release_texts
from mclip.pipeline.labels.matching import NAMED, Recording, match
from mclip.pipeline.labels.mirror import mirror_text
from mclip.pipeline.labels.spans import Labels, Span
from mclip.pipeline.prepare.plan import MIRROR
from mclip.pipeline.store.schema import DONE, FAILED, SPLITS
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

    def __init__(self, texts: Texts, *, ordered: bool = False) -> None:
        self.texts, self.ordered = texts, ordered
        self.index: dict[tuple[int, tuple[int, ...], tuple[int, ...]], int] = {(-1, (), ()): 0}

    def of_crops(self, spans: Sequence[Span], members: np.ndarray, wholes: Sequence[str] | None = None) -> np.ndarray:
        """Set of every row of `members` (shifts, spans); `wholes` are their joined texts, if a rule has made them."""
        if not spans and wholes is None:
            return np.zeros(len(members), np.int32)
        rows = [row.tobytes() for row in members]
        crops = [(row, wholes[place] if wholes is not None else "") for place, row in enumerate(rows)]
        number = {
            crop: self.of_spans([*itertools.compress(spans, crop[0])], crop[1] if wholes is not None else None)
            for crop in sorted(set(crops))
        }
        return np.array([number[crop] for crop in crops], np.int32)

    def of_spans(self, spans: Sequence[Span], whole: str | None = None) -> int:
        """Number of the set that these spans make; `whole` is its joined text, where a rule has made it."""
        if not spans and whole is None:
            return 0
        sources = {span.source for span in spans}
        if whole is None:
            whole = in_order(spans) if self.ordered else joined(span.text for span in spans)
        text = self.texts(whole, *sources)
        labels = dict.fromkeys(self.texts(span.text, span.source) for span in sorted(spans, key=lambda s: s.text))
        pairs = sorted((category, span.source) for span in spans for category in span.categories)
        categories = dict.fromkeys(self.texts(category, source) for category, source in pairs)
        entry = (text, tuple(labels), tuple(categories))
        return self.index.setdefault(entry, len(self.index))

    def write(self, store: Store) -> None:
        """Write the sets: joined text, and labels and categories flat with offsets."""
        whole, labels, categories = zip(*self.index, strict=True)
        store.write("labelsets/text", np.array(whole, np.int64))
        for name, members in (("labels", labels), ("categories", categories)):
            store.write(f"labelsets/{name}", np.array([*itertools.chain(*members)], np.int64))
            store.write(f"labelsets/{name}_offset", np.cumsum([0, *map(len, members)]))


@dataclass(frozen=True)
class Clock:
    """How a sequence of the store lies in time: its frames, and those of its source."""

    frames: int
    fps: float  # of the store; what it calls `fps` is `true_fps` where frames are taken at a stride
    how: str
    source_frames: int
    source_fps: float

    @property
    def true_fps(self) -> float:
        """Frames per second; the release's stride keeps the source's clock: 25 to 33 that are called 30."""
        return self.fps if self.how == "slerp" else self.source_fps / stride_of(self.source_fps, self.fps)

    @property
    def seconds(self) -> float:
        """How long the source lasts."""
        return self.source_frames / self.source_fps

    def source_frame(self) -> np.ndarray:
        """(frames,) number of the source's frame that is nearest to each."""
        times = source_times(self.source_frames, self.source_fps, target_fps=self.fps, how=self.how)
        return np.rint(times[: self.frames]).astype(np.int64)


@dataclass
class Fitted:
    """A store's labels, put on its motion, and what could not be."""

    labels: Labels
    passed_over: Counter[str] = field(default_factory=Counter)
    other_length: list[str] = field(default_factory=list)

    def spans(self, key: str, clock: Clock, *, mirror: bool) -> tuple[list[Span], np.ndarray | None]:
        """A sequence's labels by its clock, and by the release's rule the text of each of its frames."""
        spans = [span.in_seconds(clock.source_fps) for span in self.labels.spans.get(key, ())]
        if mirror:
            spans = self.mirrored(spans)
        said, texts = self.labels.seconds.get(key, clock.seconds), None
        if self.labels.rules.join == "release" and spans:
            texts = release_frames(spans, frames=clock.source_frames, seconds=said)[clock.source_frame()]
        # A frame of the store or of the source, and half a hundredth: BABEL's lengths are rounded.
        if abs(said - clock.seconds) > 1 / min(clock.true_fps, clock.source_fps) + 0.006:
            spans = self.of_other_length(key, spans, clock.seconds, said, told=not mirror)
        inside = [span for span in spans if span.start < clock.seconds]
        self.passed_over["label beyond the end of its motion"] += len(spans) - len(inside)
        return inside, texts

    def mirrored(self, spans: Sequence[Span]) -> list[Span]:
        """The labels of a mirrored sequence; one whose sides are not sure is left out."""
        found = []
        for span in spans:
            text, *categories = (mirror_text(each) for each in (span.text, *span.categories))
            if text is None:
                self.passed_over["label whose mirror image is not sure"] += 1
                continue
            kept = tuple(each for each in categories if each is not None)
            found.append(replace(span, text=text, categories=kept, written=(mirror_text(span.written) or "")))
        return found

    def of_other_length(
        self, key: str, spans: Sequence[Span], seconds: float, said: float, *, told: bool
    ) -> list[Span]:
        """The labels of a motion that is not as long as they say: on a stretched clock, or without those with times."""
        if told:
            self.other_length.append(f"{key} lasts {seconds:.2f} s, its labels say {said:.2f} s")
        if self.labels.rules.trust == "labels" or self.labels.rules.join == "release":  # which knows no other clock
            return [span.stretched(seconds / said) for span in spans]
        kept = [span for span in spans if span.is_whole]
        self.passed_over["label with times on a motion of another length"] += len(spans) - len(kept)
        return kept


def recordings_in(names: Sequence[str], folders: Sequence[Sequence[Any]]) -> list[Recording]:
    """The recordings of these names; `folders` says from which on what lies above their source."""
    above = [""] * len(names)
    for first, folder in folders:
        above[first:] = [folder] * (len(names) - first)
    parts = {folder: tuple(folder.split("/")) if folder else () for folder in above}
    return [Recording(name.removesuffix(MIRROR), parts[each]) for name, each in zip(names, above, strict=True)]


def index(store: Store, labels: Labels, *, window: int, crop: int, short: str, fps: float, how: str) -> None:
    """Cut the sequences that are done into windows, and find the label set of every crop.

    A crop's labels depend on where it begins, so each window has a label set for every shift; a set is stored once.
    """
    names, done = store.strings("sequences/name"), store.read("sequences/done")
    row, frames, rate, source_frames = (
        store.read(f"sequences/{name}").tolist() for name in ("row", "frames", "fps", "source_frames")
    )
    matched = match(labels, recordings_in(names, store.attributes("prepare").get("above", [])))
    splits = np.array([SPLITS.index(each) for each in matched.splits], np.uint8)
    texts, fitted = Texts(labels.sources), Fitted(labels)
    sets = LabelSets(texts, ordered=labels.rules.join == "ordered")
    table: list[tuple[int, int, int, int]] = []
    labelset: list[np.ndarray] = []
    shown: list[tuple[int, Span]] = []
    too_short = 0
    for item in np.flatnonzero(done == FAILED).tolist():
        if not names[item].endswith(MIRROR):
            fitted.passed_over["label of a file that failed"] += len(labels.spans.get(matched.keys[item], ()))
    for item in np.flatnonzero(done == DONE).tolist():
        clock = Clock(frames[item], fps, how, source_frames[item], rate[item])
        spans, text_N = fitted.spans(matched.keys[item], clock, mirror=names[item].endswith(MIRROR))
        shown += [(item, span) for span in spans]
        if labels.rules.unlabelled == "drop" and not labels.spans.get(matched.keys[item]):
            continue
        cut = windows_of(clock.frames, window=window, crop=crop, short=short)
        too_short += not cut
        for start, valid in cut:
            table.append((item, row[item] + start, valid, int(splits[item])))
            place = {"first_frame": start, "shifts": window - crop + 1, "crop": crop, "frames": start + valid}
            members = crop_members(spans, fps=clock.true_fps, **place)
            labelset.append(sets.of_crops(spans, members, None if text_N is None else release_texts(text_N, **place)))
    store.write("sequences/split", splits)
    write_windows(store, table, labelset, shifts=window - crop + 1)
    write_spans(store, shown, texts, sets)
    sets.write(store)
    texts.write(store)
    passed_over = Counter(labels.passed_over) + fitted.passed_over
    store.set_attributes(
        "prepare",
        indexed=True,
        windows=len(table),
        too_short=too_short,
        sources=list(labels.sources),
        unlabelled=sum(not labels.spans.get(key) for key in matched.keys),
        labels_told=matched.told,
        labels_without_file=len(matched.labels_alone),
        labels_passed_over=dict(passed_over),
        other_length=len(fitted.other_length),
        other_length_told=fitted.other_length[:NAMED],
    )


def write_windows(
    store: Store, table: Sequence[tuple[int, int, int, int]], labelset: Sequence[np.ndarray], *, shifts: int
) -> None:
    """Write the table of windows (sequence, row, frames, split), and the label set of each of their crops."""
    columns = np.array(table, np.int64).reshape(-1, 4).T
    for name, values in zip(("sequence", "row", "frames", "split"), columns, strict=True):
        store.write(f"windows/{name}", values)
    store.write("windows/labelset", np.array(labelset, np.int32).reshape(-1, shifts), shifts=shifts)


def write_spans(store: Store, spans: Sequence[tuple[int, Span]], texts: Texts, sets: LabelSets) -> None:
    """Write all labels that a sequence has, one row each: also those between and behind the windows."""
    store.write("spans/sequence", np.array([item for item, _ in spans], np.int64))
    store.write("spans/start", np.array([span.start for _, span in spans], np.float64))
    store.write("spans/end", np.array([span.end for _, span in spans], np.float64))
    store.write("spans/text", np.array([texts(span.text) for _, span in spans], np.int64))
    store.write("spans/labelset", np.array([sets.of_spans([span]) for _, span in spans], np.int64))
