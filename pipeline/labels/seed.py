"""BONES-SEED's captions and timelines: `seed_metadata_*.csv`, and the `*_temporal_labels.jsonl` beside it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from mclip.pipeline.labels.babel import number
from mclip.pipeline.labels.mirror import mirror_text
from mclip.pipeline.labels.names import TWIN, sequence_key
from mclip.pipeline.labels.spans import Collection, LabelError, Labels, Span, clean, is_text, path_in
from mclip.pipeline.labels.tables import Row, rows_of

METADATA, TIMELINES, INNER = "seed_metadata*.csv", "*temporal_labels*.jsonl", "metadata"
NAME, PATHS, DATE = "filename", ("move_soma_uniform_path", "move_soma_proportional_path"), "take_date"
# Whole sentences and short ones. The technical description, which tells joint by joint, is longer than CLIP reads.
NATURAL = tuple(f"content_natural_desc_{number}" for number in range(1, 5))
CAPTIONS = (*NATURAL, "content_short_description", "content_short_description_2")
CATEGORY, EVENTS = "content_type_of_movement", "events"


@dataclass
class Clip:
    """A line of the metadata: where its motion lies, and what is said of it."""

    key: str
    spans: list[Span] = field(default_factory=list)


def is_seed(path: Path) -> bool:
    """Whether a path is BONES-SEED's metadata: a folder of it, the folder above, or one of its files."""
    return bool(files_of(path, METADATA) or files_of(path, TIMELINES))


def files_of(path: Path, pattern: str) -> list[Path]:
    """The files of a kind that a path is or holds, by version."""
    if path.is_file():
        return [path] * PurePosixPath(path.name).match(pattern)
    return sorted(path.glob(pattern)) or sorted(path.glob(f"{INNER}/{pattern}"))


def read_seed(path: Path) -> Labels:
    """BONES-SEED's captions, which hold for a whole clip, and the timed events of its timelines.

    The newest of several versions is read. A clip and its mirror image, whose name ends in `_M`, have lines of their
    own; where they are told by the same words, sides and turns in those of the mirror image are swapped. LabelError
    when a file is not so.
    """
    found, clips = Collection(), dict[str, Clip]()
    for file in files_of(path, METADATA)[-1:]:
        clips |= {name: clip for name, clip in clips_of(file)}
    for file in files_of(path, TIMELINES)[-1:]:
        for name, spans in timelines_of(file, found):
            clips.setdefault(name, Clip(sequence_key(name))).spans.extend(spans)
    for name, clip in clips.items():
        twin = clips.get(name.removesuffix(TWIN)) if name.endswith(TWIN) else None
        for span in mirrored(clip, twin, found) if twin else clip.spans:
            found.add_span(clip.key, span)
    return found.labels()


def clips_of(file: Path) -> Iterator[tuple[str, Clip]]:
    """(name, clip) of the lines of the metadata; LabelError naming the line that is not so."""
    for line, row in rows_of(file):
        if not set(row) & set(CAPTIONS) or not row.get(NAME):
            raise LabelError(f"{file}: line {line} has no {NAME} or none of {', '.join(CAPTIONS)}")
        name, category = path_in(row[NAME], f"{file}: line {line}"), words(row, CATEGORY)
        texts = dict.fromkeys(text for column in CAPTIONS if (text := words(row, column)))
        spans = [Span(text, categories=(category,) if category else (), source="seed") for text in texts]
        yield name, Clip(key_of(row, name), spans)


def key_of(row: Row, name: str) -> str:
    """What a clip is called: its folder, which is a date, and its name; the same for both sets of skeletons."""
    path = next((str(row[column]) for column in PATHS if row.get(column)), "")
    folder = PurePosixPath(path.replace("\\", "/")).parent.name or str(row.get(DATE) or "")
    return sequence_key(f"{folder}/{name}")


def words(row: Row, column: str) -> str:
    """The text of a column, as one line; empty where there is none."""
    value = row.get(column)
    return clean(str(value)) if is_text(value) else ""


def timelines_of(file: Path, found: Collection) -> Iterator[tuple[str, list[Span]]]:
    """(name, timed spans) of the lines of a timeline file: `filename`, `events` of start_time, end_time, description.

    LabelError naming the line that is not so; an event that is not so is counted.
    """
    for line, row in rows_of(file):
        events = row.get(EVENTS)
        if not row.get(NAME) or not isinstance(events, list):
            raise LabelError(f"{file}: line {line} has no {NAME} or no list of {EVENTS}")
        spans = []
        for event in events:
            text = words(event, "description") if isinstance(event, dict) else ""
            if text:
                start, end = (number(event.get(each), float("nan")) for each in ("start_time", "end_time"))
                spans.append(Span(text, start, end, source="seed"))
            else:
                found.passed_over[f"{file.name}: event without a description"] += 1
        yield path_in(row[NAME], f"{file}: line {line}").removesuffix(".bvh"), spans


def mirrored(clip: Clip, twin: Clip, found: Collection) -> Iterator[Span]:
    """Labels of a mirror image: its own, but for words that are its twin's too, whose sides are swapped.

    A clip without labels, or without timed ones, has its twin's.
    """
    own = [*clip.spans]
    for whole in (True, False):
        if not any(span.is_whole is whole for span in own):
            own += [span for span in twin.spans if span.is_whole is whole]
    theirs = {span.text for span in twin.spans}
    for span in own:
        text = mirror_text(span.text) if span.text in theirs else span.text
        if text is None:
            found.passed_over["label whose mirror image is not sure"] += 1
        else:
            yield replace(span, text=text)
