"""Checksums of small documents, kept inside them: a bit that rotted on a disk is seen, whoever wrote the file last."""

import json
import zlib
from typing import Any

SEAL = "crc32"


def seal_of(document: dict[str, Any]) -> str:
    """CRC-32 of what a JSON object says without its seal, eight hex digits; order of keys and spaces do not count."""
    said = json.dumps({key: value for key, value in document.items() if key != SEAL}, sort_keys=True)
    return f"{zlib.crc32(said.encode()):08x}"


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """The object with its seal."""
    return document | {SEAL: seal_of(document)}


def is_sealed(document: dict[str, Any]) -> bool:
    """Whether the object has the seal that fits it."""
    return document.get(SEAL) == seal_of(document)


def sealed_line(document: dict[str, Any]) -> str:
    """The object as a line of a journal."""
    return json.dumps(sealed(document)) + "\n"
