"""Labels: BABEL's files, whose they are, and which of them a crop of frames carries."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

# BABEL-60's classes in index order.
BABEL_60 = (
    "walk", "stand", "hand movements", "turn", "interact with/use object", "arm movements", "t pose", "step",
    "backwards movement", "raising body part", "look", "touch object", "leg movements", "forward movement",
    "circular movement", "stretch", "jump", "touching body part", "sit", "place something",
    "take/pick something up", "run", "bend", "throw", "foot movements", "a pose", "stand up",
    "lowering body part", "sideways movement", "move up/down incline", "action with ball", "kick", "gesture",
    "head movements", "jog", "grasp object", "waist movements", "lift something", "knee movement", "wave",
    "move something", "swing body part", "catch", "dance", "lean", "greet", "poses", "touching face",
    "sports move", "exercise/training", "clean something", "punch", "squat", "scratch", "hop", "play sport",
    "stumble", "crossing limbs", "perform", "martial art",
)  # fmt: skip

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


@dataclass(frozen=True)
class Labels:
    """Spans and split of each sequence, by `sequence_key`; what was passed over is counted by reason."""

    spans: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    split: Mapping[str, str] = field(default_factory=dict)
    passed_over: Mapping[str, int] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Short hash of spans and splits."""
        return hashlib.sha256(repr((sorted(self.spans.items()), sorted(self.split.items()))).encode()).hexdigest()[:16]


def sequence_key(path: str) -> str:
    """What one recording is called whatever its file is: current data set name, no `_poses` or `_stageii` ending."""
    dataset, *rest = PurePosixPath(path.replace(" ", "_")).parts
    name = "/".join((DATASET_ALIASES.get(dataset, dataset), *rest)).removesuffix(".npz")
    for ending in ("_poses", "_stageii", "_smpl"):
        name = name.removesuffix(ending)
    return name


def read_babel(folder: Path) -> Labels:
    """Labels of BABEL's train/val/test.json in a folder (or of one such file).

    A sequence's frame labels are used where it has any, else its sequence labels, as in the paper's release.
    LabelError when nothing is found or a file is not in BABEL's form.
    """
    files = [folder] if folder.is_file() else sorted(folder.glob("*.json"))
    files = [file for file in files if file.stem.removeprefix("extra_") in ("train", "val", "test")]
    if not files:
        raise LabelError(f"{folder}: no train.json, val.json or test.json of BABEL here")
    spans: dict[str, tuple[Span, ...]] = {}
    split: dict[str, str] = {}
    passed_over: Counter[str] = Counter()
    # BABEL's extra_*.json hold second opinions on sequences of the plain files: those come first and stay.
    for file in sorted(files, key=lambda file: file.stem.startswith("extra_")):
        for entry in read_json(file).values():
            try:
                key, found = babel_entry(entry, passed_over)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                passed_over[f"{file.name}: an entry is not in BABEL's form ({error!r})"] += 1
                continue
            if key in split and split[key] != file.stem.removeprefix("extra_"):
                raise LabelError(f"{file}: {key} is in {split[key]}.json too; a sequence has one split")
            spans.setdefault(key, found)
            split.setdefault(key, file.stem.removeprefix("extra_"))
    return Labels(spans, split, passed_over)


def read_json(file: Path) -> dict[str, dict[str, object]]:
    """A BABEL file's entries; LabelError when it is no JSON object."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LabelError(f"{file}: cannot be read as JSON ({error})") from error
    if not isinstance(entries, dict):
        raise LabelError(f"{file}: a JSON {type(entries).__name__}, expected BABEL's object of entries")
    return entries


def babel_entry(entry: Mapping, passed_over: Counter[str]) -> tuple[str, tuple[Span, ...]]:
    """Key and spans of one BABEL entry."""
    # feat_p has one folder more than AMASS: CMU/CMU/02/02_01_poses.npz.
    key = sequence_key(PurePosixPath(*PurePosixPath(entry["feat_p"]).parts[1:]).as_posix())
    annotation = entry.get("frame_ann") or entry.get("seq_ann") or {"labels": []}
    spans = []
    for label in annotation["labels"]:
        start, end = label.get("start_t", 0.0), label.get("end_t", math.inf)
        if not 0 <= start < end:
            passed_over[f"label from {start} to {end} s"] += 1
            continue
        text = str(label["raw_label"] or "").strip()[:1000]
        spans.append(Span(text, float(start), float(end), tuple(label.get("act_cat") or ())))
    return key, tuple(spans)


def split_of(key: str, labels: Labels) -> str:
    """`train`, `val` or `test`: the label file's where it names the sequence, else AMASS's by data set."""
    return labels.split.get(key) or AMASS_SPLIT.get(key.split("/")[0], "train")


def frame_range(span: Span, frames: int, fps: float) -> tuple[int, int]:
    """Frames (first, one past last) whose time lies in [start, end), cut to the sequence."""
    first = math.ceil(span.start * fps - 1e-6)
    last = frames if math.isinf(span.end) else math.ceil(span.end * fps - 1e-6)
    return max(first, 0), min(last, frames)


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
