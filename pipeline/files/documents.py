"""Small files of text and JSON, read so that an error names the file and the remedy."""

import json
from pathlib import Path
from typing import Any


def read_text(file: Path) -> str:
    """A file's text, without a byte order mark; ValueError naming the file when it is not UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise no_text(file, error) from error


def no_text(file: Path | str, error: UnicodeDecodeError) -> ValueError:
    """What to say of a file that is not UTF-8."""
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
