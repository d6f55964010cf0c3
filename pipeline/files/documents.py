"""The one reader of documents: JSON, lines of JSON and TOML against a schema, and text in UTF-8.

A schema is a type: a dataclass, a TypedDict, `dict[str, float]`. What does not fit is a ValueError that names the file,
the place in it, what was found, what was expected, and the way out. Nothing is converted: "3" is no number.
"""

import codecs
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from mclip.pipeline.files.seal import SEAL, is_sealed

T = TypeVar("T")
Schema = Callable[..., T]  # a type; not `type[T]`, which `dict[str, Any]` is none of
MARK = b"\xef\xbb\xbf"  # that some editors put before UTF-8

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
        raise not_utf8(file, error) from error


def not_utf8(file: Path | str, error: UnicodeDecodeError) -> ValueError:
    """What to say of a file whose bytes are not text in the encoding that it seems to have."""
    return ValueError(f"{file}: is no text in UTF-8 ({error}): name another file, or save it as UTF-8")


def read_document(file: Path, schema: Schema[T], *, remedy: str) -> T:
    """A file's JSON as the schema says; ValueError naming file, place and `remedy` when it is anything else."""
    try:
        return adapter(schema).validate_json(file.read_bytes().removeprefix(MARK), strict=True)
    except ValidationError as error:
        raise ValueError(f"{file}: damaged ({told(error)}): {remedy}") from None


def read_object(file: Path, *, remedy: str) -> dict[str, Any]:
    """A file's JSON object by its keys, whatever they hold; else as `read_document`."""
    return read_document(file, dict[str, Any], remedy=remedy)


def read_sealed(file: Path, *, remedy: str) -> dict[str, Any]:
    """A JSON object that mclip wrote with its seal, without the seal; ValueError when anything in it has changed."""
    found = read_object(file, remedy=remedy)
    if not is_sealed(found):
        raise ValueError(f"{file}: damaged (what it says does not fit its {SEAL}): {remedy}")
    return {key: value for key, value in found.items() if key != SEAL}


def checked(value: Any, schema: Schema[T], *, file: Path, remedy: str) -> T:
    """A value that was read from a file in another way, once it is as the schema says; else as `read_document`."""
    try:
        return adapter(schema).validate_python(value, strict=True)
    except ValidationError as error:
        raise ValueError(f"{file}: damaged ({told(error)}): {remedy}") from None


def read_lines(content: bytes, schema: Schema[T], *, file: Path | str) -> list[T]:
    """What the lines of a journal hold; each line that is broken is told and passed over.

    A last line without an end is not told: a process was killed, or is writing it now.
    """
    found = []
    for number, line in numbered(content):
        try:
            found.append(parsed(line, schema))
        except ValueError as error:
            print(f"{file}: line {number} is broken and passed over ({error})", file=sys.stderr)
    return found


def broken_lines(content: bytes, schema: Schema[T]) -> Iterator[str]:
    """What is wrong with each broken line of a journal whose lines are sealed."""
    for number, line in numbered(content):
        try:
            parsed(line, schema)
            if SEAL not in parsed(line, dict[str, Any]):
                yield f"line {number}: it has no {SEAL}"
        except ValueError as error:
            yield f"line {number}: {error}"


def numbered(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a journal with their numbers from 1."""
    *whole, _ = content.split(b"\n")
    return ((number, line) for number, line in enumerate(whole, 1) if line.strip())


def parsed(line: bytes, schema: Schema[T]) -> T:
    """What a line of JSON holds; ValueError when it does not fit the schema, or its seal does not fit the line."""
    try:
        whole = adapter(dict[str, Any]).validate_json(line)
        found = adapter(schema).validate_json(line, strict=True)
    except ValidationError as error:
        raise ValueError(told(error)) from None
    if SEAL in whole and not is_sealed(whole):
        raise ValueError(f"it does not fit its {SEAL}")
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
