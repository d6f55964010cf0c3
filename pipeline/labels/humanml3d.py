"""HumanML3D's texts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mclip.pipeline.files.documents import read_text
from mclip.pipeline.labels.names import sequence_key
from mclip.pipeline.labels.spans import Collection, LabelError, Labels, Span, clean, is_text, path_in
from mclip.pipeline.labels.tables import rows_of

# Seconds that HumanML3D cuts off the beginning of these data sets before its own start and end count; by its clock.
TRIM = {"EyesJapanDataset": 3.0, "HDM05": 3.0, "TotalCapture": 1.0, "PosePrior": 1.0, "Transitions": 0.5}
FPS = 20.0  # by name: it takes every int(fps / 20)-th frame and calls that 20, so times are `Span.rate`'s
INDEX, TEXTS, INNER = "index.csv", "texts", "HumanML3D"  # in its repository, texts and splits lie one folder deeper
SPLIT_FILES = {"test": "test", "val": "val", "train": "train", "train_val": "train"}  # all.txt says no split
MIRRORED = "M"  # before the name of a clip that is another's mirror image, in the same split


@dataclass(frozen=True)
class Clip:
    """A line of index.csv: which seconds of which sequence are called `name`."""

    key: str
    name: str
    start: float
    end: float


def is_humanml3d(path: Path) -> bool:
    """Whether a folder is HumanML3D's."""
    return (path / INDEX).is_file() and any((each / TEXTS).is_dir() for each in folders_of(path))


def folders_of(folder: Path) -> tuple[Path, Path]:
    """Where HumanML3D's texts and lists of ids may lie."""
    return folder, folder / INNER


def read_humanml3d(folder: Path) -> Labels:
    """HumanML3D's texts: `index.csv` (source_path, start_frame, end_frame, new_name) and `texts/NAME.txt`.

    Frames are of its own 20 a second. A line is text#tokens#from#to, seconds within the clip by the same clock; 0 and 0
    mean all of it. Its train.txt, val.txt and test.txt are the splits where they lie beside. LabelError when a file is
    not so.
    """
    found, clips = Collection(), [*clips_of(folder / INDEX)]
    split = splits_of(folder, clips, found)
    for clip in clips:
        found.split |= most_held_out(found.split.get(clip.key), split.get(clip.name), clip.key)
    texts = next(each / TEXTS for each in folders_of(folder) if (each / TEXTS).is_dir())
    for clip in clips:
        file, own, whole = texts / f"{clip.name}.txt", split.get(clip.name), found.split.get(clip.key)
        if not file.is_file():
            found.passed_over["HumanML3D clip without a text file"] += 1
            continue
        for span in spans_of(file, clip.start, clip.end, found):
            if own == whole or own is None:
                found.add_span(clip.key, span)
            else:
                found.passed_over[f"HumanML3D text of a clip in {own} whose sequence has another in {whole}"] += 1
    return found.labels()


def clips_of(index: Path) -> Iterator[Clip]:
    """The lines of index.csv; LabelError naming one that is not so."""
    for line, row in rows_of(index):
        where = f"{index}: line {line}"
        try:
            path = path_in(row["source_path"], where)
            start, end = (float(str(row[name])) / FPS for name in ("start_frame", "end_frame"))
            name = Path(str(row["new_name"])).stem
        except (KeyError, ValueError) as error:
            if isinstance(error, LabelError):
                raise
            raise LabelError(f"{where}: {error!r} is missing or no number") from error
        key = sequence_key(path.replace("\\", "/").removeprefix("./").removeprefix("pose_data/"))
        trim = TRIM.get(key.split("/")[0], 0.0)
        yield Clip(key, name, start + trim, end + trim)


def splits_of(folder: Path, clips: list[Clip], found: Collection) -> dict[str, str]:
    """Split by a clip's name, from lists of names; one that index.csv has not is counted.

    LabelError for a clip, or it and its mirror image, in two splits.
    """
    names, listed = {clip.name for clip in clips}, Collection()
    for kind, split in SPLIT_FILES.items():
        file = next((each / f"{kind}.txt" for each in folders_of(folder) if (each / f"{kind}.txt").is_file()), None)
        for line, name in enumerate(lines_of(file) if file else (), 1):
            own = name.strip().removesuffix(".npy").removesuffix(".txt").removeprefix(MIRRORED)
            if own and own not in names:
                found.passed_over[f"HumanML3D name in {kind}.txt that index.csv has not"] += 1
            elif own and not (kind == "train_val" and own in listed.split):
                listed.add_split(own, split, f"{file}: line {line}")
    return listed.split


def most_held_out(one: str | None, other: str | None, key: str) -> dict[str, str]:
    """A sequence's split where its clips have these: what is tested anywhere in it is trained nowhere."""
    said = next((split for split in SPLIT_FILES if split in (one, other)), None)
    return {key: said} if said else {}


def lines_of(file: Path) -> list[str]:
    """A text file's lines; LabelError when it is no text."""
    try:
        return read_text(file).splitlines()
    except ValueError as error:
        raise LabelError(str(error)) from error


def spans_of(file: Path, start: float, end: float, found: Collection) -> Iterator[Span]:
    """Spans of one text file whose clip lies from `start` to `end` seconds of its sequence, by HumanML3D's clock."""
    for line in filter(str.strip, lines_of(file)):
        text, *_, begin, stop = line.split("#") if line.count("#") >= 3 else ("", "", "")
        try:
            begin_s, stop_s = float(begin), float(stop)
        except ValueError:
            begin_s = stop_s = -1.0
        if begin_s < 0 or not clean(text) or not is_text(text):
            found.passed_over["HumanML3D line not of the form text#tokens#from#to"] += 1
            continue
        whole = not begin_s < stop_s  # 0 and 0, or nan
        first, last = (start, end) if whole else (start + begin_s, min(start + stop_s, end))
        yield Span(clean(text), first, last, source="humanml3d", rate=FPS)
