"""BABEL's labels: train, val and test.json, and the extra_*.json of further annotators."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mclip.pipeline.files.documents import read_text
from mclip.pipeline.labels.names import DATASETS, sequence_key
from mclip.pipeline.labels.spans import SPLITS, Collection, LabelError, Labels, Span, clean, is_text, path_in

EXTRA = "extra_"
FRAMES, SEQUENCE = ("frame_ann", "frame_anns"), ("seq_ann", "seq_anns")  # the plural ones are lists, in extra_*.json


def read_babel(folder: Path) -> Labels:
    """Labels of BABEL's train/val/test.json in a folder (or of one such file).

    A sequence's frame labels are used where it has any, else its sequence labels, as in the paper's release; those of
    several annotators side by side. The labels of extra_*.json on a sequence of a plain file are second opinions:
    passed over and counted. LabelError when nothing is found or a file is not in BABEL's form.
    """
    files = [folder] if folder.is_file() else sorted(folder.glob("*.json"))
    files = [file for file in files if split_name(file) in SPLITS]
    if not files:
        raise LabelError(f"{folder}: no train.json, val.json or test.json of BABEL here")
    found = Collection()
    for file in sorted(files, key=lambda file: file.stem.startswith(EXTRA)):
        read_file(file, found)
    return found.labels()


def split_name(file: Path) -> str:
    """The split that a file's name says."""
    return file.stem.removeprefix(EXTRA)


def read_file(file: Path, found: Collection) -> None:
    """Add one file's entries."""
    seen: set[str] = set()
    for entry in read_json(file).values():
        try:
            key = key_of(path_in(entry["feat_p"], str(file)))
        except (KeyError, TypeError, LabelError):
            found.passed_over[f"{file.name}: an entry is not in BABEL's form (no feat_p)"] += 1
            continue
        if found.split.get(key, split_name(file)) != split_name(file):
            raise LabelError(f"{file}: {key} is in {found.split[key]}.json too; a sequence has one split")
        spans = [*spans_of(entry, file, found.passed_over)]
        if found.spans.get(key):
            kind = "a second entry of the same sequence" if key in seen else "a second opinion on a sequence"
            found.passed_over[f"{file.name}: {kind}"] += len(spans)
            continue
        seen.add(key)
        found.split[key] = split_name(file)
        if (seconds := number(entry.get("dur"), math.nan)) > 0 and math.isfinite(seconds):
            found.seconds[key] = seconds
        for span in spans:
            found.add_span(key, span)


def key_of(feat_p: str) -> str:
    """The sequence of BABEL's `feat_p`, which begins with one folder more than AMASS: CMU/CMU/02/02_01_poses.npz."""
    key = sequence_key(feat_p)
    return key if key.split("/")[0] in DATASETS else key.partition("/")[2] or key


def spans_of(entry: Mapping[str, Any], file: Path, passed_over: Counter[str]) -> Iterator[Span]:
    """The labels of one entry; what is none is counted."""
    for label in labels_of(entry, FRAMES) or labels_of(entry, SEQUENCE):
        try:
            text, start, end = text_of(label), number(label.get("start_t"), 0.0), number(label.get("end_t"), math.inf)
        except LabelError as error:
            passed_over[f"{file.name}: {error}"] += 1
            continue
        categories = categories_of(label.get("act_cat"))
        if categories is None:
            passed_over[f"{file.name}: act_cat is no list of texts"] += 1
        yield Span(clean(text), start, end, categories or (), written=text if text != clean(text) else "")


def labels_of(entry: Mapping[str, Any], names: tuple[str, str]) -> list[Any]:
    """All labels of an entry's annotations of one kind, one annotator's after the other's."""
    several = entry.get(names[1])
    annotations = [entry.get(names[0]), *(several if isinstance(several, list) else [several])]
    lists = [each.get("labels") for each in annotations if isinstance(each, Mapping)]
    return [label for labels in lists if isinstance(labels, list) for label in labels]


def text_of(label: Any) -> str:
    """The text of one label as BABEL writes it; LabelError saying what it lacks."""
    if not isinstance(label, Mapping):
        raise LabelError("a label is not in BABEL's form")
    text = label.get("raw_label") or label.get("proc_label")
    if text is None or text == "":
        raise LabelError("label without a text")  # all of test.json
    if not isinstance(text, str) or not is_text(text) or not clean(text):
        raise LabelError("label whose text is none")
    return text


def categories_of(value: Any) -> tuple[str, ...] | None:
    """A label's categories in BABEL's order; None when they are no texts."""
    several = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(several, list) or not all(map(is_text, several)):
        return None
    return tuple(clean(each) for each in several if clean(each))


def number(value: Any, none: float) -> float:
    """A number, `none` where there is none; nan, which no span holds, for anything else."""
    if value is None:
        return none
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def read_json(file: Path) -> dict[str, Any]:
    """A BABEL file's entries; LabelError when it is no JSON object."""
    try:
        entries = json.loads(read_text(file), object_pairs_hook=reject_duplicate_keys)
    except RecursionError as error:
        raise LabelError(f"{file}: cannot be read as JSON (nested too deep)") from error
    except (OSError, ValueError) as error:
        raise LabelError(f"{file}: cannot be read as JSON ({error})") from error
    if not isinstance(entries, dict):
        raise LabelError(f"{file}: a JSON {type(entries).__name__}, expected BABEL's object of entries")
    return entries


def reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError when a key stands twice, of which readers keep the last and say nothing."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{twice!a} stands there twice")
    return found
