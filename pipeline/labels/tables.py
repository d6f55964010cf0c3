"""Tables of one's own: labels and splits as .csv or .jsonl, in the forms that spreadsheets write them."""

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

from mclip.pipeline.files.documents import read_text
from mclip.pipeline.labels.names import sequence_key
from mclip.pipeline.labels.spans import Collection, LabelError, Labels, Span, clean, is_text, path_in

SEPARATORS = ",;\t"  # the last two are a spreadsheet's where the comma is in numbers, and its UTF-16
Row = dict[str, object]


def rows_of(path: Path) -> Iterator[tuple[int, Row]]:
    """(line, row) of a .csv with a header or of a .jsonl; LabelError naming the line that is neither."""
    kind = path.suffix.lower()
    try:
        text = read_text(path)
        if "\0" in text:
            raise ValueError("has NUL characters, as UTF-16 without its mark: save it as UTF-8")
        yield from csv_rows(path, text) if kind == ".csv" else json_rows(path, text)
    except LabelError:
        raise
    except RecursionError as error:
        raise LabelError(f"{path}: cannot be read as {kind[1:]} (nested too deep)") from error
    except (OSError, ValueError, csv.Error) as error:
        raise LabelError(f"{path}: cannot be read as {kind[1:]} ({error})") from error


def csv_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    """Rows of a table whose header names its columns, and by the way its separator."""
    lines = io.StringIO(text, newline="")  # as they end: a cell may hold ends of its own
    before, first = 1, lines.readline()
    if first.lower().startswith("sep="):  # a spreadsheet's own line
        before, first = 2, lines.readline()
    separator = max(SEPARATORS, key=first.count)
    header = [name.strip().lower() for name in next(csv.reader([first], delimiter=separator), [])]
    reader = csv.reader(lines, delimiter=separator)
    for cells in reader:
        line = before + reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(header):
            raise LabelError(
                f"{path}: line {line} has {len(cells)} cells, its header {len(header)}: put quotes around a text with "
                f"{separator!r} in it"
            )
        row: Row = {"separator": separator}
        yield line, row | dict(zip(header, cells, strict=False))


def json_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    """Objects, one a line."""
    for line, each in enumerate(text.split("\n"), 1):
        if not each.strip():
            continue
        try:
            row = json.loads(each)
        except ValueError as error:
            raise LabelError(f"{path}: line {line}: cannot be read as jsonl ({error})") from error
        if not isinstance(row, dict):
            raise LabelError(f"{path}: line {line}: a JSON {type(row).__name__}, expected an object")
        yield line, row


def read_table(path: Path) -> Labels:
    """One's own labels: a .csv or .jsonl with `path`, `text` and maybe `start`, `end` (seconds), `category`, `split`.

    `category` may be several, `|` between them. A row that says no times holds for the whole sequence.
    """
    found = Collection()
    for line, row in rows_of(path):
        where = f"{path}: line {line}"
        if not row.get("path") or row.get("text") is None:
            raise LabelError(f"{where} has no `path` or no `text`: expected path,start,end,text,category")
        key, text = sequence_key(path_in(row["path"], where)), row["text"]
        if not isinstance(text, str) or not is_text(text):
            raise LabelError(f"{where}: text {text!r:.80} is no text")
        start, end = (seconds_in(row, name, none, where) for name, none in (("start", 0.0), ("end", math.inf)))
        if clean(text):
            written = text if text != clean(text) else ""
            found.add_span(key, Span(clean(text), start, end, categories_in(row, where), path.name, written))
        else:
            found.passed_over[f"{path.name}: label without a text"] += 1
        if row.get("split"):
            found.add_split(key, split_in(row), where)
    return found.labels()


def seconds_in(row: Row, name: str, none: float, where: str) -> float:
    """A time of a row, `none` where it says none. With `;` between cells the comma may be in numbers."""
    value = row.get(name)
    if value is None or str(value).strip() == "":
        return none
    text = str(value).replace(",", ".") if row.get("separator") in (";", "\t") else str(value)
    try:
        return float(text)
    except ValueError as error:
        raise LabelError(f"{where}: {str(error)[:120]}: expected seconds") from error


def categories_in(row: Row, where: str) -> tuple[str, ...]:
    """The categories of a row, each once."""
    value = row.get("category") or ""
    parts = value if isinstance(value, list) else str(value).split("|")
    if not all(isinstance(each, str) and is_text(each) for each in parts):
        raise LabelError(f"{where}: category {value!r:.80}: expected a text, `|` between several")
    return tuple(dict.fromkeys(clean(each) for each in parts if each.strip()))


def split_in(row: Row) -> str:
    """The split of a row."""
    return str(row.get("split")).strip().lower()


def read_split(path: Path) -> dict[str, str]:
    """Split by sequence key, or by a folder of them: a .csv or .jsonl with `path` and `split`. LabelError."""
    found = Collection()
    for line, row in rows_of(path):
        where = f"{path}: line {line}"
        if not row.get("path"):
            raise LabelError(f"{where} has no `path`: expected path,split")
        found.add_split(sequence_key(path_in(row["path"], where)), split_in(row), where)
    return found.split
