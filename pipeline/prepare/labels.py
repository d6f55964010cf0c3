"""Labels: BABEL's files, HumanML3D's, one's own; whose they are, and which of them a crop of frames carries."""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

# Names of AMASS's data sets then and now; the canonical one is on the right.
DATASET_ALIASES = {
    "BioMotionLab_NTroje": "BMLrub",
    "MPI_HDM05": "HDM05",
    "MPI_Limits": "PosePrior",
    "MPI_mosh": "MoSh",
    "SSM_synced": "SSM",
    "TCD_handMocap": "TCDHands",
    "Transitions_mocap": "Transitions",
    "Eyes_Japan_Dataset": "EyesJapanDataset",
    "DFaust_67": "DFaust",
}
# AMASS's own split by data set; everything else is training data.
AMASS_SPLIT = dict.fromkeys(("Transitions", "SSM"), "test") | dict.fromkeys(("HumanEva", "HDM05", "SFU", "MoSh"), "val")


class LabelError(ValueError):
    """A label file that cannot be used, and why."""


@dataclass(frozen=True)
class Span:
    """A label from `start` to `end` seconds (infinity: the whole sequence) with its action categories."""

    text: str
    start: float = 0.0
    end: float = math.inf
    categories: tuple[str, ...] = ()
    source: str = "babel"


@dataclass(frozen=True)
class Labels:
    """Spans and split of each sequence, by `sequence_key`; what was passed over is counted by reason."""

    spans: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    split: Mapping[str, str] = field(default_factory=dict)
    passed_over: Mapping[str, int] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, in the order of their first label."""
        return tuple(dict.fromkeys(span.source for spans in self.spans.values() for span in spans))

    @property
    def fingerprint(self) -> str:
        """Short hash of spans and splits."""
        return hashlib.sha256(repr((sorted(self.spans.items()), sorted(self.split.items()))).encode()).hexdigest()[:16]


def sequence_key(path: str) -> str:
    """What one recording is called whatever its file is: current data set name, no `_poses` or `_stageii` ending."""
    within = path.rpartition("!/")[2].replace(" ", "_")
    dataset, *rest = (part for part in within.split("/") if part not in ("", "."))
    name = "/".join((DATASET_ALIASES.get(dataset, dataset), *rest))
    for ending in (".npz", ".npy", ".bvh"):
        name = name.removesuffix(ending)
    for ending in ("_poses", "_stageii", "_smpl"):
        name = name.removesuffix(ending)
    return name


def split_of(key: str, labels: Labels) -> str:
    """`train`, `val` or `test`: what the files say of the sequence or a folder above it, else AMASS's by data set."""
    above = key
    while above:
        if found := labels.split.get(above):
            return found
        above = above.rpartition("/")[0]
    return AMASS_SPLIT.get(key.split("/")[0], "train")


# Words that a mirrored motion's text has the other way round.
SIDES = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise",
         "anticlockwise": "clockwise", "counter-clockwise": "clockwise", "anti-clockwise": "clockwise"}  # fmt: skip
SIDE = re.compile(rf"(?<![\w-])({'|'.join(sorted(SIDES, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)


def mirrored(text: str) -> str:
    """The text of the mirrored motion: left and right swapped, and the ways round."""
    return SIDE.sub(lambda found: like(found[0], SIDES[found[0].lower()]), text)


def like(word: str, other: str) -> str:
    """`other` with the capitals of `word`."""
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other


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
    """The release's text of a crop: distinct labels in alphabetical order, joined by ' and '."""
    return " and ".join(sorted(set(texts)))
