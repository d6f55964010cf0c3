"""Small files of text and JSON, read so that an error names the file and the remedy."""

import codecs
import json
from pathlib import Path
from typing import Any

# A text's first bytes where they name its encoding; UTF-32's begin as UTF-16's do, so they are asked first.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(file: Path) -> str:
    """A file's text without its byte order mark: UTF-8, or what the mark names; ValueError naming a file of neither."""
    content = file.read_bytes()
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise no_text(file, error) from error


def no_text(file: Path | str, error: UnicodeDecodeError) -> ValueError:
    """What to say of a file whose bytes are not text in the encoding that it seems to have."""
    return ValueError(f"{file}: is no text in UTF-8 ({error}): name another file, or save it as UTF-8")


def read_object(file: Path, *, remedy: str) -> dict[str, Any]:
    """A file's JSON object by its keys; ValueError naming the file and the remedy when it holds anything else."""
    try:
        found = json.loads(file.read_bytes())
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(f"{file}: damaged ({error}): {remedy}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: damaged (a JSON {type(found).__name__}, expected an object): {remedy}")
    return found
