"""The one reader of documents: JSON against a schema, and text in UTF-8.

A schema is a type: a dataclass, a TypedDict, `dict[str, float]`. What does not fit is a ValueError that names the file,
the place in it, what was found, what was expected, and the way out. Nothing is converted: "3" is no number.
"""

import functools
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

MARK = b"\xef\xbb\xbf"  # that some editors put before UTF-8


def read_text(file: Path) -> str:
    """A file's text, without a byte order mark; ValueError naming the file when it is not UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise no_text(file, error) from error


def no_text(file: Path | str, error: UnicodeDecodeError) -> ValueError:
    """What to say of a file that is not UTF-8."""
    return ValueError(f"{file}: is no text in UTF-8 ({error}): name another file, or save it as UTF-8")


def read_document(file: Path, schema: Any, *, remedy: str) -> Any:
    """A file's JSON as the schema says; ValueError naming file, place and `remedy` when it is anything else."""
    try:
        return adapter(schema).validate_json(file.read_bytes().removeprefix(MARK), strict=True)
    except ValidationError as error:
        raise ValueError(f"{file}: damaged ({told(error)}): {remedy}") from None


def read_object(file: Path, *, remedy: str) -> dict[str, Any]:
    """A file's JSON object by its keys, whatever they hold; else as `read_document`."""
    found: dict[str, Any] = read_document(file, dict[str, Any], remedy=remedy)
    return found


@functools.cache
def adapter(schema: Any) -> Any:
    """pydantic's TypeAdapter of a schema; made once, which takes longer than reading."""
    return TypeAdapter(schema)


def told(error: ValidationError) -> str:
    """Place, what was found and what was expected of the first fault; and how many more there are."""
    first, *more = error.errors(include_url=False, include_context=False)
    place, expected = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Input should be ")
    if first["type"] == "missing":
        where, what = f"at {place}: ", "found nothing, expected a value"
    elif first["type"] == "json_invalid":
        where, what = "", f"no JSON: {expected.removeprefix('Invalid JSON: ')}"
    else:
        where, what = f"at {place}: " if place else "", f"found {short(first['input'])}, expected {expected}"
    return f"{where}{what}{f', and {len(more)} more' if more else ''}"


def short(value: Any) -> str:
    """A value in at most 60 letters."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
