"""The arrays of an .npz, from bytes in memory or a file: plain numbers and text, never Python objects.

zipfile and numpy's own reader take as long as the checksum of a motion, and hold the interpreter's lock meanwhile; this
reads the same directory, for the two ways in which numpy packs.
"""

import functools
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

LARGEST = 2 << 30  # bytes of one array: ten hours of SMPL+H at 120 Hz; more is a damaged or hostile file
HEAD = 4096  # bytes that hold a .npy's header: numpy's own writes 128

Read = Callable[[int, int], bytes | memoryview]  # the bytes at an offset, so many or what there is of them

STORED, DEFLATED = 0, 8
DENSEST = 1040  # times smaller than it was, at most, is what deflate packs
END = struct.Struct("<4s4x2H2L2x")  # of the directory: signature, members here and in all, size, offset
ENTRY = struct.Struct("<4s4x2H4x3L3H8xL")  # of a member: signature, flags, method, crc, sizes, three lengths, offset
LOCAL = struct.Struct("<4s22x2H")  # of a member where its bytes are: signature, two lengths


class NpzError(ValueError):
    """An .npz that is refused, and why."""


class Member(NamedTuple):
    """One file in a zip archive, as its directory tells."""

    name: str
    method: int
    crc32: int
    packed: int
    size: int
    offset: int


def directory_of(read: Read, size: int) -> Iterator[Member]:
    """The members of a zip archive of `size` bytes. BadZipFile or struct.error where there is no whole directory."""
    near, far = (max(0, size - END.size - comment) for comment in (1000, 0xFFFF))
    start, tail = near, bytes(read(near, size - near))
    if b"PK\5\6" not in tail:  # behind a long comment
        start, tail = far, bytes(read(far, size - far))
    magic, count, _, length, offset = END.unpack_from(tail, max(tail.rfind(b"PK\5\6"), 0))
    if magic != b"PK\5\6":
        raise zipfile.BadZipFile("no directory at its end")
    directory = tail[offset - start :] if offset >= start else bytes(read(offset, length))
    at = 0
    for _ in range(count):
        magic, flags, method, crc32, packed, unpacked, name, extra, note, where = ENTRY.unpack_from(directory, at)
        if magic != b"PK\1\2" or flags & 1:
            raise zipfile.BadZipFile("its directory is damaged, or it is encrypted")
        at += ENTRY.size
        yield Member(directory[at : at + name].decode("utf-8"), method, crc32, packed, unpacked, where)
        at += name + extra + note


class Npz:
    """The arrays of an .npz by name, plain numbers and text only, each refused before it is unpacked when too large.

    An array that is stored uncompressed is a view of the bytes that `read` gives.
    """

    def __init__(self, read: Read, size: int):
        self.read, self.size = read, size
        self.members = {member.name.removesuffix(".npy"): member for member in directory_of(read, size)}
        self.shapes: dict[str, tuple[int, ...]] = {}  # that were asked for

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __contains__(self, key: str) -> bool:
        return key in self.members

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of an array from its header alone; NpzError where the file cannot hold so many numbers."""
        if key not in self.shapes:
            member = self.members[key]
            shape, _, dtype, length = header_of(bytes(self.unpacked(member, HEAD)), key)
            if length + math.prod(shape) * dtype.itemsize > member.size:
                raise NpzError(f"{key} claims shape {shape}, and has {member.size:,} bytes: damaged, copy it again")
            self.shapes[key] = shape
        return self.shapes[key]

    def __getitem__(self, key: str) -> np.ndarray:
        member = self.members[key]
        if member.size > LARGEST:
            raise NpzError(f"{key} claims {member.size >> 30} GB, more than {LARGEST >> 30}: not a motion")
        data = self.unpacked(member, member.size)
        if zlib.crc32(data) != member.crc32:
            raise zipfile.BadZipFile(f"checksum of {member.name} is wrong")
        return array_of(data, key)

    def unpacked(self, member: Member, most: int) -> bytes | memoryview:
        """The first bytes of a member, at most so many."""
        magic, name, extra = LOCAL.unpack(self.read(member.offset, LOCAL.size))
        if magic != b"PK\3\4" or member.method not in (STORED, DEFLATED):
            raise zipfile.BadZipFile(f"{member.name} is not where its directory says, or packed as numpy never does")
        begin = member.offset + LOCAL.size + name + extra
        room = max(0, min(self.size - begin, member.packed))
        if member.size > (room if member.method == STORED else room * DENSEST):
            raise NpzError(f"{member.name} claims {member.size:,} bytes, packed in {room:,}: damaged, copy it again")
        if member.method == STORED:
            return self.read(begin, min(most, member.size))
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(self.read(begin, member.packed), max(most, 1))


def header_of(head: bytes, key: str, *, objects: bool = False) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, Fortran order, type and header length of a .npy that begins so; NpzError for no motion.

    And for Python objects, but where they are allowed: they are not read here.
    """
    wide = head[6:7] != b"\x01"
    length = 12 + struct.unpack_from("<I", head, 8)[0] if wide else 10 + struct.unpack_from("<H", head, 8)[0]
    shape, fortran, dtype = parsed_header(head[:length])
    if dtype.hasobject and not objects:
        raise NpzError(f"{key} holds Python objects, which are never read: expected plain number arrays")
    if math.prod(shape) * dtype.itemsize > LARGEST:
        raise NpzError(f"{key} claims shape {shape}, more than {LARGEST >> 30} GB: not a motion")
    return tuple(shape), fortran, dtype, length


@functools.lru_cache(maxsize=4096)  # numpy parses it as Python, which takes longer than reading a short motion
def parsed_header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and type that a .npy's header says."""
    file = io.BytesIO(head)
    read = np.lib.format.read_array_header_1_0
    if np.lib.format.read_magic(file)[0] > 1:
        read = np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def array_of(data: bytes | memoryview, key: str) -> np.ndarray:
    """The array in the bytes of a .npy, as a view of them."""
    shape, fortran, dtype, length = header_of(bytes(data[:HEAD]), key)
    flat = np.frombuffer(data, dtype, math.prod(shape), length)
    return flat.reshape(shape, order="F" if fortran else "C")
