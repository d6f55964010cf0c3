"""glTF 2.0 as a file has it: its JSON, and the arrays in its buffers. GLB, .gltf, and what stands on it: VRM, VRMA.

pygltflib writes mclip's own GLB. Here the JSON stays a dict: classes drop what they do not know, and a character must
come out with all that it came with.
"""

import base64
import binascii
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from mclip.pipeline.files.npz import LARGEST
from mclip.pipeline.geometry.recording import MotionError

GLTF = (".glb", ".gltf", ".vrm", ".vrma")
HEAD, CHUNK = struct.Struct("<4sII"), struct.Struct("<I4s")  # magic, version, length; length and kind of a chunk
MOST_JSON = 64 << 20  # bytes; the largest VRM's have some 5 MB
COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
FLOAT = 5126
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")

Beside = Callable[[str], bytes]  # the bytes of a file that lies beside the .gltf, by its URI


@dataclass(frozen=True)
class Gltf:
    """A glTF file: its JSON, the binary chunk of a GLB, and how files beside it are read (None: they cannot be)."""

    document: dict[str, Any]
    binary: bytes | memoryview = b""
    beside: Beside | None = None

    def items(self, kind: str) -> list[dict[str, Any]]:
        """What it has of a kind: nodes, skins, ...; MotionError where that is no list of objects."""
        found = self.document.get(kind, [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise MotionError(f"its {kind} are no list of objects: expected glTF 2.0")
        return found

    def item(self, kind: str, number: Any) -> dict[str, Any]:
        """One of a kind by its number; MotionError where there is none."""
        found = self.items(kind)
        if not is_index(number, len(found)):
            raise MotionError(f"names number {str(number)[:40]!r} of its {len(found)} {kind}")
        return found[number]

    def array(self, number: Any) -> np.ndarray:
        """The array (count, width) of an accessor: float64, or its integers where it is not normalized. MotionError."""
        accessor = self.item("accessors", number)
        if "sparse" in accessor or "bufferView" not in accessor:
            raise MotionError(f"accessor {number} is sparse: export it without sparse accessors")
        view = self.item("bufferViews", accessor["bufferView"])
        if packed := [name for name in MESHOPT if name in view.get("extensions", {})]:
            raise MotionError(f"its motion is packed by {packed[0]}: unpack it, as by `gltf-transform copy`")
        dtype, width = np.dtype(COMPONENTS[accessor["componentType"]]), WIDTHS[accessor["type"]]
        begin, length, stride = (view.get(key, 0) for key in ("byteOffset", "byteLength", "byteStride"))
        offset, count, row = accessor.get("byteOffset", 0), accessor["count"], width * dtype.itemsize
        content, stride = self.buffer(view.get("buffer")), stride or row
        if not all(isinstance(each, int) and each >= 0 for each in (begin, length, stride, offset, count)):
            raise MotionError(f"accessor {number} has no place in its buffer")
        if not count or offset + (count - 1) * stride + row > length or begin + length > len(content):
            raise MotionError(f"accessor {number} of {count:,} rows reaches beyond its {length:,} bytes")
        rows = np.ndarray((count, width), dtype, content, begin + offset, (stride, dtype.itemsize))
        if dtype.kind == "f":
            return rows.astype(float)
        most = np.iinfo(dtype).max
        return np.maximum(rows / most, -1.0) if accessor.get("normalized") else rows.astype(int)

    def buffer(self, number: Any) -> bytes | memoryview:
        """The bytes of a buffer: the GLB's own, in the JSON itself, or in a file beside it. MotionError."""
        uri = self.item("buffers", number).get("uri")
        if uri is None:
            return self.binary
        if not isinstance(uri, str):
            raise MotionError(f"buffer {number} has a uri that is no text")
        if uri.startswith("data:"):
            try:
                return base64.b64decode(uri.partition(",")[2], validate=True)
            except binascii.Error as error:
                raise MotionError(f"buffer {number} is no base64 ({error})") from error
        if self.beside is None:
            raise MotionError(f"its numbers lie in {uri[:60]!r}, a file of its own: unpack it, or save it as .glb")
        return self.beside(uri)


def is_index(number: Any, count: int) -> bool:
    """Whether a value is one of the first `count` numbers."""
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < count


def is_gltf(name: str) -> bool:
    """Whether a name is that of a glTF file, or of what stands on it."""
    return name.lower().endswith(GLTF)


def beside(folder: Path) -> Beside:
    """Reads the files of a folder, and of no other: MotionError for URLs, and for paths that lead out of it."""

    def read(uri: str) -> bytes:
        path, name = folder / unquote(uri), uri[:60]
        if ":" in uri or "\\" in uri or not path.resolve().is_relative_to(folder.resolve()):
            raise MotionError(f"its buffer {name!r} does not lie beside it: only files of its own folder are read")
        try:
            if not path.is_file() or path.stat().st_size > LARGEST:
                raise MotionError(f"its buffer {name!r} is not beside it, or no file of numbers")
            return path.read_bytes()
        except (OSError, ValueError) as error:
            raise MotionError(f"its buffer {name!r} cannot be read ({error})") from error

    return read


def read_gltf(content: bytes | memoryview, beside: Beside | None = None) -> Gltf:
    """A glTF file of either kind, its arrays unread. MotionError saying what was found and expected."""
    text, binary = chunks_of(content) if bytes(content[:4]) == b"glTF" else (content, memoryview(b""))
    if len(text) > MOST_JSON:
        raise MotionError(f"{len(text) >> 20} MB of JSON, at most {MOST_JSON >> 20}: not a character's motion")
    try:
        document = json.loads(bytes(text))
    except (ValueError, RecursionError) as error:
        raise MotionError(f"its JSON cannot be read ({str(error)[:100]}): expected glTF 2.0") from error
    asset = document.get("asset") if isinstance(document, dict) else None
    version = asset.get("version") if isinstance(asset, dict) else None
    if not str(version).startswith("2."):
        raise MotionError(f"its asset's version is {str(version)[:40]!r}: expected glTF 2.0")
    return Gltf(document, binary, beside)


def chunks_of(content: bytes | memoryview) -> tuple[memoryview, memoryview]:
    """The JSON and the binary chunk of a GLB; the second may be empty. MotionError where it ends early."""
    view, at = memoryview(content), HEAD.size
    found: dict[bytes, memoryview] = {}
    _, version, length = HEAD.unpack(view[: HEAD.size]) if len(view) >= HEAD.size else (b"", 0, 0)
    if version != 2 or length > len(view):
        raise MotionError(f"a GLB of version {version} that says {length:,} bytes and has {len(view):,}: copy it again")
    while at + CHUNK.size <= length:
        size, kind = CHUNK.unpack(view[at : at + CHUNK.size])
        at += CHUNK.size
        if at + size > length:
            raise MotionError(f"a GLB whose chunk {kind!r} ends early: copy or download it again")
        found.setdefault(kind, view[at : at + size])
        at += size
    if b"JSON" not in found:
        raise MotionError("a GLB without JSON in it: expected glTF 2.0")
    return found[b"JSON"], found.get(b"BIN\0", memoryview(b""))


def glb_bytes(document: dict[str, Any], binary: bytes | bytearray) -> bytes:
    """A GLB of a JSON and its first buffer."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    padded = bytes(binary) + bytes(-len(binary) % 4)
    parts = [CHUNK.pack(len(text), b"JSON"), text]
    if padded:
        parts += [CHUNK.pack(len(padded), b"BIN\0"), padded]
    return HEAD.pack(b"glTF", 2, HEAD.size + sum(map(len, parts))) + b"".join(parts)
