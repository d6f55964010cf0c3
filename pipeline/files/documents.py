"""The one reader of documents: JSON, lines of JSON and TOML against a schema, and text in UTF-8.

A schema is a type: a dataclass, a TypedDict, `dict[str, float]`. What does not fit is a ValueError that names the file,
the place in it, what was found, what was expected, and the way out. Nothing is converted: "3" is no number.
"""

import codecs
import difflib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError
from typing_extensions import get_type_hints

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

KINDS = ("str", "int", "float", "bool")  # how pydantic ends a place where a value may be of several
# How pydantic begins to say what it expected, and how we do.
EXPECTED = {
    "Input should be ": "",
    "String should match ": "a text that matches ",
    "String should have ": "a text with ",
    "List should have ": "a list with ",
    "Dictionary should have ": "an object with ",
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
        raise ValueError(f"{file}: damaged ({told(error, schema)}): {remedy}") from None


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
        raise ValueError(f"{file}: damaged ({told(error, schema)}): {remedy}") from None


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
        raise ValueError(told(error, schema)) from None
    if SEAL in whole and not is_sealed(whole):
        raise ValueError(f"it does not fit its {SEAL}")
    return found


@functools.cache
def adapter(schema: Any) -> Any:
    """pydantic's TypeAdapter of a schema; made once, which takes longer than reading."""
    return TypeAdapter(schema)


def told(error: ValidationError, schema: Any) -> str:
    """Place, what was found and what was expected of the first fault; and how many more there are."""
    first, *more = error.errors(include_url=False, include_context=False)
    place, expected = first["loc"], plain(first["msg"])
    if place and place[-1] in KINDS:  # one fault for each kind that the value might have been of
        place, alike = place[:-1], [each for each in (first, *more) if each["loc"][: len(place) - 1] == place[:-1]]
        expected = " or ".join(dict.fromkeys(plain(each["msg"]) for each in alike))
        more = [each for each in more if each not in alike]
    where = f"at {'.'.join(map(printable, place))}: " if place else ""
    if first["type"] == "missing":
        what = "found nothing, expected a value"
    elif first["type"] == "extra_forbidden":
        what = f"found a key that nobody knows, expected {likely(str(place[-1]), known_keys(schema, place))}"
    elif first["type"] == "json_invalid":
        where, what = "", f"no JSON: {expected.removeprefix('Invalid JSON: ')}"
    else:
        what = f"found {short(first['input'])}, expected {expected}"
    return f"{where}{what}{f', and {len(more)} more' if more else ''}"


def plain(message: str) -> str:
    """What pydantic expected, as the end of a sentence."""
    begins = (begin for begin in EXPECTED if message.startswith(begin))
    return next((EXPECTED[begin] + message.removeprefix(begin) for begin in begins), message)


def likely(key: str, known: Sequence[str]) -> str:
    """The known key that is most like another, else all of them."""
    near = difflib.get_close_matches(key, known, 1)
    return repr(near[0]) if near else f"one of {', '.join(known)}" if known else "no such key"


def known_keys(schema: Any, place: Sequence[int | str]) -> list[str]:
    """The keys that a schema has where the last of a place's parts stands."""
    hints = hints_of(schema)
    for part in place[:-1]:
        hints = hints_of(hints.get(str(part)))
    return list(hints)


def hints_of(kind: Any) -> dict[str, Any]:
    """The fields of a TypedDict or dataclass, or of one among several kinds; {} of any other."""
    if isinstance(kind, type) and hasattr(kind, "__annotations__"):
        return dict(get_type_hints(kind))
    return {name: each for one in get_args(kind) for name, each in hints_of(one).items()}


def printable(part: int | str) -> str:
    """A part of a place, as one can write it."""
    return str(part) if str(part).isprintable() else repr(part)


def short(value: Any) -> str:
    """A value in at most 60 letters."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
