"""Label files: BABEL's, HumanML3D's, and one's own tables."""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mclip.pipeline.prepare.labels import LabelError, Labels, Span, sequence_key

LONGEST_TEXT = 1000  # characters; CLIP reads 77 tokens of them
# Seconds that HumanML3D cuts off the beginning of these data sets before its own start and end count.
HUMANML3D_TRIM = {"EyesJapanDataset": 3.0, "HDM05": 3.0, "TotalCapture": 1.0, "PosePrior": 1.0, "Transitions": 0.5}
HUMANML3D_FPS = 20.0


def read_labels(paths: Sequence[Path], split: Path | None = None) -> Labels:
    """Labels of several sources together: BABEL's folder or json, HumanML3D's folder, a .csv or .jsonl of one's own.

    All spans are kept and know their source. Where sources disagree on a split, the file `split` decides, then the
    source that is named first.
    """
    read = [read_source(path) for path in paths]
    spans: dict[str, tuple[Span, ...]] = {}
    splits = read_split(split) if split else {}
    passed_over: Counter[str] = Counter()
    for each in read:
        for key, found in each.spans.items():
            spans[key] = spans.get(key, ()) + found
        splits = {**each.split, **splits}
        passed_over.update(each.passed_over)
    return Labels(spans, splits, passed_over)


def read_source(path: Path) -> Labels:
    """Labels of one source, told by what it is. LabelError when there is none."""
    if path.suffix in (".csv", ".jsonl"):
        return read_table(path)
    if (path / "index.csv").is_file() and (path / "texts").is_dir():
        return read_humanml3d(path)
    if path.exists():
        return read_babel(path)
    raise LabelError(f"{path}: no such file or folder; expected BABEL's or HumanML3D's folder, or a .csv or .jsonl")


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """(line, row) of a .csv with a header or of a .jsonl; LabelError naming the line that is neither."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                reader = csv.DictReader(file)
                yield from ((reader.line_num, dict(row)) for row in reader)
            else:
                yield from ((number, json.loads(line)) for number, line in enumerate(file, 1) if line.strip())
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise LabelError(f"{path}: cannot be read as {path.suffix[1:]} ({error})") from error


def read_table(path: Path) -> Labels:
    """One's own labels: a .csv or .jsonl with `path`, `text` and maybe `start`, `end` (seconds), `category`, `split`.

    `category` may be several, `|` between them. A row that says no times holds for the whole sequence.
    """
    spans: dict[str, tuple[Span, ...]] = {}
    split: dict[str, str] = {}
    passed_over: Counter[str] = Counter()
    for line, row in rows_of(path):
        if not isinstance(row, dict) or not row.get("path") or row.get("text") is None:
            raise LabelError(f"{path}: line {line} has no `path` or no `text`: expected path,start,end,text,category")
        key = sequence_key(str(row["path"]))
        try:
            start, end = float(str(row.get("start") or 0)), float(str(row.get("end") or math.inf))
        except ValueError as error:
            raise LabelError(f"{path}: line {line}: {error}: expected seconds") from error
        categories = tuple(each.strip() for each in str(row.get("category") or "").split("|") if each.strip())
        add_span(spans, key, Span(clean(row["text"]), start, end, categories, path.name), passed_over)
        if row.get("split"):
            add_split(split, key, str(row["split"]), f"{path}: line {line}")
    return Labels(spans, split, passed_over)


def read_split(path: Path) -> dict[str, str]:
    """Split by sequence key, or by a folder of them: a .csv or .jsonl with `path` and `split`. LabelError."""
    found: dict[str, str] = {}
    for line, row in rows_of(path):
        if not isinstance(row, dict) or not row.get("path"):
            raise LabelError(f"{path}: line {line} has no `path`: expected path,split")
        add_split(found, sequence_key(str(row["path"])), str(row.get("split")), f"{path}: line {line}")
    return found


def add_split(splits: dict[str, str], key: str, name: str, where: str) -> None:
    """Add a sequence's split; LabelError when it is none, or when the sequence has another one already."""
    if name not in ("train", "val", "test"):
        raise LabelError(f"{where}: split {name!r}, expected train, val or test")
    if splits.setdefault(key, name) != name:
        raise LabelError(f"{where}: {key} is in {name}, and in {splits[key]} further up; a sequence has one split")


def add_span(spans: dict[str, tuple[Span, ...]], key: str, span: Span, passed_over: Counter[str]) -> None:
    """Add a span to its sequence's, or count it where its times make no span."""
    if not 0 <= span.start < span.end:
        passed_over[f"label from {span.start} to {span.end} s"] += 1
        return
    spans[key] = (*spans.get(key, ()), span)


def clean(text: object) -> str:
    """A label's text: one line without surrounding space, of a length that somebody could have meant."""
    return " ".join(str(text or "").split())[:LONGEST_TEXT]


def read_humanml3d(folder: Path) -> Labels:
    """HumanML3D's texts: `index.csv` (source_path, start_frame, end_frame at 20 fps, new_name) and `texts/NAME.txt`.

    A line is text#tokens#from#to, seconds within the clip; 0 and 0 mean all of it. LabelError when a file is not so.
    """
    spans: dict[str, tuple[Span, ...]] = {}
    passed_over: Counter[str] = Counter()
    for line, row in rows_of(folder / "index.csv"):
        try:
            path = str(row["source_path"]).removeprefix("./").removeprefix("pose_data/")
            start, end = (float(str(row[name])) / HUMANML3D_FPS for name in ("start_frame", "end_frame"))
            texts = folder / "texts" / f"{Path(str(row['new_name'])).stem}.txt"
        except (KeyError, ValueError) as error:
            raise LabelError(f"{folder / 'index.csv'}: line {line}: {error!r} is missing or no number") from error
        if not texts.is_file():
            passed_over["HumanML3D clip without a text file"] += 1
            continue
        key = sequence_key(path)
        trim = HUMANML3D_TRIM.get(key.split("/")[0], 0.0)
        for span in humanml3d_spans(texts, start + trim, end + trim, passed_over):
            add_span(spans, key, span, passed_over)
    return Labels(spans, {}, passed_over)


def humanml3d_spans(file: Path, start: float, end: float, passed_over: Counter[str]) -> Iterator[Span]:
    """Spans of one text file whose clip lies from `start` to `end` seconds of its sequence."""
    for line in file.read_text(encoding="utf-8").splitlines():
        text, *_, begin, stop = line.split("#") if line.count("#") >= 3 else ("", "", "")
        try:
            begin_s, stop_s = float(begin), float(stop)
        except ValueError:
            passed_over["HumanML3D line not of the form text#tokens#from#to"] += 1
            continue
        whole = not begin_s < stop_s  # 0 and 0, or nan
        yield Span(
            clean(text), start if whole else start + begin_s, end if whole else min(start + stop_s, end),
            source="humanml3d",
        )  # fmt: skip


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
        seen: set[str] = set()
        for entry in read_json(file).values():
            try:
                key, found = babel_entry(entry, passed_over)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                passed_over[f"{file.name}: an entry is not in BABEL's form ({error!r})"] += 1
                continue
            if key in split and split[key] != file.stem.removeprefix("extra_"):
                raise LabelError(f"{file}: {key} is in {split[key]}.json too; a sequence has one split")
            if key in seen and found:
                passed_over[f"{file.name}: a second entry of the same sequence"] += len(found)
            seen.add(key)
            spans.setdefault(key, found)
            split.setdefault(key, file.stem.removeprefix("extra_"))
    return Labels(spans, split, passed_over)


def read_json(file: Path) -> dict[str, dict[str, object]]:
    """A BABEL file's entries; LabelError when it is no JSON object."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=without_twins)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise LabelError(f"{file}: cannot be read as JSON ({error})") from error
    if not isinstance(entries, dict):
        raise LabelError(f"{file}: a JSON {type(entries).__name__}, expected BABEL's object of entries")
    return entries


def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError when a key stands twice, of which readers keep the last and say nothing."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{twice!r} stands there twice")
    return found


def babel_entry(entry: Mapping[str, Any], passed_over: Counter[str]) -> tuple[str, tuple[Span, ...]]:
    """Key and spans of one BABEL entry."""
    # feat_p has one folder more than AMASS: CMU/CMU/02/02_01_poses.npz.
    key = sequence_key(PurePosixPath(*PurePosixPath(entry["feat_p"]).parts[1:]).as_posix())
    annotation = entry.get("frame_ann") or entry.get("seq_ann") or {"labels": []}
    spans: dict[str, tuple[Span, ...]] = {}
    for label in annotation["labels"]:
        start, end = float(label.get("start_t", 0.0)), float(label.get("end_t", math.inf))
        span = Span(clean(label["raw_label"]), start, end, tuple(label.get("act_cat") or ()))
        add_span(spans, key, span, passed_over)
    return key, spans.get(key, ())
