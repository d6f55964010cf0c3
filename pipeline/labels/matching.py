"""Whose labels are whose: recordings and label files, told by the ends of their paths, and nothing guessed."""

import difflib
import functools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mclip.pipeline.labels.names import AMASS_SPLIT, DATASETS, key_below, parts_of, twin_of
from mclip.pipeline.labels.spans import LabelError, Labels

HELD_OUT = ("val", "test")
NAMED = 3  # files and labels without each other that are named
LONG_SEARCH = 5000  # names among which the most alike is looked for


@dataclass(frozen=True)
class Recording:
    """A recording's name below its source, and the last folders above that."""

    name: str
    above: tuple[str, ...] = ()

    @functools.cached_property
    def parts(self) -> tuple[str, ...]:
        """All folders and the clip, by today's names."""
        return (*parts_of("/".join((*self.above, "x")))[:-1], *parts_of(self.name))

    @functools.cached_property
    def key(self) -> str:
        """What it is called."""
        return key_below(self.above, self.name)


@dataclass(frozen=True)
class Match:
    """The key of the labels of each recording (its own where it has none), its split, and who has no other."""

    keys: list[str]
    splits: list[str]
    files_alone: list[str] = field(default_factory=list)
    labels_alone: list[str] = field(default_factory=list)

    @property
    def told(self) -> list[str]:
        """The first few that have no other, in words, each with the most alike on the other side."""
        lines = []
        for kind, these, those in (
            ("file without labels", self.files_alone, self.labels_alone),
            ("labels without a file", self.labels_alone, self.files_alone),
        ):
            for name in these[:NAMED]:
                near = nearest(name, those)
                lines.append(f"{kind}: {name!a}" + (f", the most alike: {near!a}" if near else ""))
        return lines


def nearest(name: str, others: Sequence[str]) -> str:
    """The most alike of other names: one that ends as this one does, else by its letters; empty where none is."""
    clip = name.rpartition("/")[2]
    same = next((other for other in others if other.rpartition("/")[2] == clip), "")
    return same or next(iter(difflib.get_close_matches(name, others[:LONG_SEARCH], 1)), "")


def match(labels: Labels, recordings: Sequence[Recording]) -> Match:
    """Which labels and which split each recording has.

    A key that is the same decides. Else the labels' path is the end of the recording's, or the recording's that of one
    label alone. LabelError when there are labels or splits and none finds a recording, and where a recording would be
    training data although it may be one that the labels hold out.
    """
    known = {**dict.fromkeys(labels.spans), **dict.fromkeys(labels.split)}
    found = keys_of(list(known), recordings)
    keys = [key if key is not None else each.key for key, each in zip(found, recordings, strict=True)]
    splits = [split_of(key, labels, each.parts) for key, each in zip(keys, recordings, strict=True)]
    if labels.split:
        splits = twins_together(labels, recordings, keys, splits)
    alone = [each.key for key, each in zip(keys, recordings, strict=True) if not labels.spans.get(key)]
    without = sorted(key for key, spans in labels.spans.items() if spans and key not in set(keys))
    matched = Match(keys, splits, alone if labels.spans else [], without)
    if recordings:
        require_match(labels, recordings, keys, matched)
        hold_out(labels, recordings, found, keys)
    return matched


def keys_of(known: Sequence[str], recordings: Sequence[Recording]) -> list[str | None]:
    """The known key of each recording, None where there is none or more than one may be meant."""
    exact = set(known)
    by_clip = defaultdict(list)
    for key in known:
        by_clip[key.rpartition("/")[2]].append(key)
    found: list[str | None] = []
    owners: defaultdict[str | None, set[str]] = defaultdict(set)
    for each in recordings:
        key = each.key
        if key in exact:
            found.append(key)
            owners[key].add(key)
            continue
        at_end = ending_alike(each, by_clip[key.rpartition("/")[2]])
        found.append(at_end[0] if len(at_end) == 1 else None)
        owners[found[-1]].add(key)
    # One label for two recordings that are called differently is a guess too many.
    return [
        None if len(owners[key]) > 1 and key != each.key else key for key, each in zip(found, recordings, strict=True)
    ]


def twins_together(
    labels: Labels, recordings: Sequence[Recording], keys: Sequence[str], splits: Sequence[str]
) -> list[str]:
    """The splits, a clip and its mirror image with the one that is said of either: a model has seen both, or none.

    LabelError where two are said.
    """
    twins = [Recording(twin_of(each.key) or each.key, each.above) for each in recordings]
    known = list(labels.split)
    together = []
    for key, split, twin in zip(keys, splits, keys_of(known, twins), strict=True):
        own, other = labels.split.get(key), labels.split.get(twin or "")
        if own and other and own != other:
            raise LabelError(
                f"{key!a} is in {own}, and {twin!a} in {other}: a clip and its mirror image have one split"
            )
        together.append(split if own else other or split)
    return together


def ending_alike(recording: Recording, keys: Sequence[str]) -> list[str]:
    """The longest key that a recording's path ends in; else those that end in its path below the source."""
    if not keys:
        return []
    full, below = recording.parts, tuple(recording.key.split("/"))
    compatible = [key for key in keys if not contradict(below, key.split("/"))]
    ends = [key for key in compatible if ends_in(full, key.split("/"))]
    if ends:
        return [max(ends, key=len)]
    return [key for key in compatible if len(below) > 1 and ends_in(key.split("/"), below)]


def ends_in(path: Sequence[str], end: Sequence[str]) -> bool:
    """Whether a path's last parts are these."""
    return len(end) <= len(path) and tuple(path[len(path) - len(end) :]) == tuple(end)


def contradict(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two paths name two data sets of AMASS's."""
    return one[0] in DATASETS and other[0] in DATASETS and one[0] != other[0]


def split_of(key: str, labels: Labels, parts: Sequence[str] = ()) -> str:
    """`train`, `val` or `test`: what the files say of the sequence or a folder above it, else AMASS's by data set.

    A folder may be said from above the source on (`parts` are all of the recording's).
    """
    if labels.split:
        above, folders = key.split("/"), list(parts[:-1])
        paths = [above[:length] for length in range(len(above), 0, -1)]
        paths += [folders[first:last] for last in range(len(folders), 0, -1) for first in range(last)]
        for each in paths:
            if found := labels.split.get("/".join(each)):
                return found
    return AMASS_SPLIT.get(key.split("/")[0], "train")


def require_match(labels: Labels, recordings: Sequence[Recording], keys: Sequence[str], matched: Match) -> None:
    """LabelError when there are labels, or splits, and not one of them is a recording's."""
    labelled = [key for key, spans in labels.spans.items() if spans]
    if labelled and len(matched.labels_alone) == len(labelled):
        raise LabelError(nothing(f"{len(labelled):,} labelled sequences", labelled[0], recordings))
    said = [any_split(key, labels, each.parts) for key, each in zip(keys, recordings, strict=True)]
    if labels.split and not any(said):
        raise LabelError(nothing(f"{len(labels.split):,} paths with a split", next(iter(labels.split)), recordings))


def any_split(key: str, labels: Labels, parts: Sequence[str]) -> bool:
    """Whether labels say a split of a recording or of a folder above it."""
    plain = Labels(split={path: "said" for path in labels.split})
    return split_of(key, plain, parts) == "said"


def nothing(what: str, example: str, recordings: Sequence[Recording]) -> str:
    """What to say when nothing finds its recording."""
    near = nearest(example, [each.key for each in recordings]) or recordings[0].key
    return (
        f"none of the {what} is among the {len(recordings):,} files: they are called as {example!a}, the files as "
        f"{near!a}: name the folder that both begin in, or leave the labels and the split out"
    )


def hold_out(labels: Labels, recordings: Sequence[Recording], found: Sequence[str | None], keys: Sequence[str]) -> None:
    """LabelError when a recording without labels may be one that they hold out, and would be training data."""
    held = {key: name for key, name in labels.split.items() if name in HELD_OUT and key not in set(keys)}
    clips: Mapping[str, int] = Counter(key.rpartition("/")[2] for key in {*labels.split, *labels.spans})
    held_by_clip = {key.rpartition("/")[2]: key for key in held if "/" in key}
    for key, each in zip(found, recordings, strict=True):
        if key is not None or split_of(each.key, labels, each.parts) in HELD_OUT:
            continue
        other = held_by_clip.get(each.key.rpartition("/")[2])
        if other is None or contradict(each.key.split("/"), other.split("/")):
            continue
        doubtful = ends_in(other.split("/"), each.key.split("/")) or clips[other.rpartition("/")[2]] == 1
        if doubtful and not any_split(each.key, labels, each.parts):
            raise LabelError(
                f"{each.key!a} would be training data, but may be {other!a}, which is in {held[other]}: name the "
                "folder above both, or say its split with --split FILE"
            )
