"""HumanML3D's texts."""

from collections.abc import Iterator
from pathlib import Path

from mclip.pipeline.files.documents import read_text
from mclip.pipeline.labels.collecting import Collection, clean, is_text, path_in
from mclip.pipeline.labels.names import sequence_key
from mclip.pipeline.labels.spans import LabelError, Labels, Span
from mclip.pipeline.labels.tables import rows_of

# Seconds that HumanML3D cuts off the beginning of these data sets before its own start and end count; by its clock.
TRIM = {"EyesJapanDataset": 3.0, "HDM05": 3.0, "TotalCapture": 1.0, "PosePrior": 1.0, "Transitions": 0.5}
FPS = 20.0  # by name: it takes every int(fps / 20)-th frame and calls that 20, so times are `Span.rate`'s


def is_humanml3d(path: Path) -> bool:
    """Whether a folder is HumanML3D's."""
    return (path / "index.csv").is_file() and (path / "texts").is_dir()


def read_humanml3d(folder: Path) -> Labels:
    """HumanML3D's texts: `index.csv` (source_path, start_frame, end_frame, new_name) and `texts/NAME.txt`.

    Frames are of its own 20 a second. A line is text#tokens#from#to, seconds within the clip by the same clock; 0 and 0
    mean all of it. LabelError when a file is not so.
    """
    found = Collection()
    for line, row in rows_of(folder / "index.csv"):
        where = f"{folder / 'index.csv'}: line {line}"
        try:
            path = path_in(row["source_path"], where)
            start, end = (float(str(row[name])) / FPS for name in ("start_frame", "end_frame"))
            texts = folder / "texts" / f"{Path(str(row['new_name'])).stem}.txt"
        except (KeyError, ValueError) as error:
            if isinstance(error, LabelError):
                raise
            raise LabelError(f"{where}: {error!r} is missing or no number") from error
        if not texts.is_file():
            found.passed_over["HumanML3D clip without a text file"] += 1
            continue
        key = sequence_key(path.replace("\\", "/").removeprefix("./").removeprefix("pose_data/"))
        trim = TRIM.get(key.split("/")[0], 0.0)
        for span in spans_of(texts, start + trim, end + trim, found):
            found.add_span(key, span)
    return found.labels()


def spans_of(file: Path, start: float, end: float, found: Collection) -> Iterator[Span]:
    """Spans of one text file whose clip lies from `start` to `end` seconds of its sequence, by HumanML3D's clock."""
    try:
        lines = read_text(file).splitlines()
    except ValueError as error:
        raise LabelError(str(error)) from error
    for line in filter(str.strip, lines):
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
