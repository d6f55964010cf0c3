"""Where recordings lie: folders, single files, and tar archives as AMASS ships them; and what reads each.

A recording's name is its path below the source, '/' between folders; for one in an archive, the archive's path, '!/',
and its path in there. Names alone find the bytes again, so a worker needs only them.
"""

import errno
import functools
import io
import os
import re
import tarfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mclip.pipeline.files.npz import LARGEST
from mclip.pipeline.geometry.recording import MotionError, NoMotion, Recording, require_finite, require_length
from mclip.pipeline.prepare import amass, bvh
from mclip.pipeline.skeletons.joints import read_map

MOTIONS = (".npz", ".npy", ".bvh", ".smpl", ".pkl", ".pt")
NO_MOTIONS = re.compile(r"(.*_)?(shape|stagei|settings)\.npz")  # of AMASS: a subject's shape, and what it is from
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
INSIDE = "!/"


@dataclass(frozen=True)
class SourceFile:
    """One recording's name, and size and time of the file that holds it (of the archive, for one inside)."""

    name: str
    size: int = 0
    modified: int = 0  # nanoseconds since 1970
    content: bytes | None = None  # at hand where an archive is streaming by
    reason: str = ""  # why it cannot be read, known already


def is_motion(path: str) -> bool:
    """Whether a file's name says that it may be a motion."""
    name = path.rpartition("/")[2]
    return name.lower().endswith(MOTIONS) and not name.startswith(".")


def require_source(source: Path) -> None:
    """ValueError when a source is neither a folder nor a motion or archive file."""
    if source.is_file() and not (is_motion(source.name) or source.name.lower().endswith(ARCHIVES)):
        raise ValueError(f"{source}: expected a folder, an archive ({', '.join(ARCHIVES)}) or {', '.join(MOTIONS)}")
    if not source.exists():
        raise ValueError(f"{source}: no such folder or file; expected one that holds AMASS's data sets")


def recordings(source: Path) -> Iterator[SourceFile]:
    """Every recording of a source in the order of its path; those of an archive in the archive's order."""
    require_source(source)
    root = root_of(source)
    for name in [source.name] if source.is_file() else names_below(source):
        try:
            stat = os.stat(root / name)
            if not os.access(
                root / name, os.R_OK
            ):  # known by no size and time, so that a run notices when it can be read
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            yield SourceFile(name, reason=amass.plain(error))
            continue
        if name.lower().endswith(ARCHIVES):
            yield from archived(root / name, name, stat)
        else:
            yield SourceFile(name, stat.st_size, stat.st_mtime_ns)


def root_of(source: Path) -> Path:
    """The folder that names of recordings begin in."""
    return source.parent if source.is_file() else source


def names_below(folder: Path) -> list[str]:
    """Names of motion and archive files below a folder, in the order of their parts.

    Links are followed, but no folder is entered twice. A folder that cannot be listed is named too, and fails by name.
    """
    found: list[str] = []
    entered: set[tuple[int, int]] = set()
    walk = os.walk(folder, followlinks=True, onerror=lambda error: found.append(error.filename))
    for where, folders, files in walk:
        stat = os.stat(where)
        if (stat.st_dev, stat.st_ino) in entered:
            folders.clear()
            continue
        entered.add((stat.st_dev, stat.st_ino))
        folders.sort()
        found += [os.path.join(where, name) for name in files if is_motion(name) or name.lower().endswith(ARCHIVES)]
    begin = len(os.path.join(folder, ""))
    return sorted((path[begin:].replace(os.sep, "/") for path in found), key=lambda name: name.split("/"))


def archived(path: Path, name: str, stat: os.stat_result) -> Iterator[SourceFile]:
    """The recordings in an archive as they stream by, and the archive itself as one that fails where it ends early."""
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                if member.isfile() and is_motion(member.name):
                    yield archived_member(tar, member, f"{name}{INSIDE}{member.name}", stat)
    except Exception as error:  # tarfile, bz2, lzma and zlib each have their own
        yield SourceFile(name, reason=f"archive cannot be read to its end ({error}): copy or download it again")


def archived_member(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, stat: os.stat_result) -> SourceFile:
    """One recording of an archive. Nothing is ever written to disk, yet a path that leads outside is refused."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        return SourceFile(name, reason=f"its path {member.name!r} leads out of the archive")
    if member.size > LARGEST:
        return SourceFile(name, reason=f"{member.size >> 30} GB, more than {LARGEST >> 30}: not a motion")
    file = tar.extractfile(member)
    assert file is not None
    return SourceFile(name, stat.st_size, stat.st_mtime_ns, content=file.read())


def contents(source: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes | memoryview | MotionError]]:
    """Pairs of name and bytes, or the reason why there are none. The bytes are good until the next are asked for."""
    root = root_of(source)
    buffer = bytearray()  # one for all: fresh memory for every file costs as much as reading it
    for name in names:
        archive, inside, member = name.partition(INSIDE)
        try:
            if inside:
                yield name, open_archive(root / archive).read(member)
                continue
            with open(os.path.join(root, name), "rb", buffering=0) as file:
                if (size := os.fstat(file.fileno()).st_size) > len(buffer):
                    buffer = bytearray(size)
                yield name, memoryview(buffer)[: file.readinto(memoryview(buffer)[:size])]
        except (OSError, MotionError, tarfile.TarError, EOFError) as error:
            yield name, MotionError(amass.plain(error))


class Archive:
    """A tar archive that is read forward; a member that has passed already makes it begin again."""

    def __init__(self, path: Path):
        self.path, self.lock = path, threading.Lock()
        self.members = self.begin()

    def begin(self) -> Iterator[tuple[str, bytes]]:
        """Names and bytes of the motions from the beginning."""
        with tarfile.open(self.path, "r|*") as tar:
            for member in tar:
                if member.isfile() and is_motion(member.name) and member.size <= LARGEST:
                    file = tar.extractfile(member)
                    assert file is not None
                    yield member.name, file.read()

    def read(self, wanted: str) -> bytes:
        """Bytes of a member; MotionError when there is none of this name."""
        with self.lock:
            for _ in range(2):
                for name, content in self.members:
                    if name == wanted:
                        return content
                self.members = self.begin()
        raise MotionError(f"{self.path}: no {wanted} in this archive any more")


@functools.lru_cache(maxsize=4)
def open_archive(path: Path) -> Archive:
    """The archive at a path, kept open where it was left."""
    return Archive(path)


def parse(
    name: str, content: bytes | memoryview, fps_in: float | None, joint_map: str = "", *, fps: float | None = None
) -> Recording:
    """The motion in a recording's bytes; MotionError naming what was found and expected.

    `fps` is how many frames a second the caller keeps: the others may be left out.
    """
    if not is_bvh(name):
        return amass.parse_motion(content, fps_in=fps_in)
    try:
        return require_finite(bvh.parse_motion(content, read_map(joint_map), fps=fps))
    except MotionError:
        raise
    except Exception as error:  # a damaged file makes its parser raise nearly anything
        raise MotionError(f"cannot be read as BVH ({type(error).__name__}: {error})") from error


def probe(root: Path, recording: SourceFile, fps_in: float | None) -> tuple[int, float]:
    """Number of frames and frames per second of a recording, from its headers; MotionError as `parse`.

    No more frames than its bytes can hold: rows of the store are planned by them.
    """
    if is_beside(recording.name):
        raise NoMotion("a subject's shape or markers, no motion")
    if recording.reason:
        raise MotionError(recording.reason)
    with open_recording(root, recording) as file:
        if is_bvh(recording.name):
            return probe_bvh(file)

        def read(at: int, length: int) -> bytes:
            file.seek(at)
            return file.read(length)

        return amass.probe_motion(read, file.seek(0, os.SEEK_END), fps_in=fps_in)


def probe_bvh(file: io.BufferedIOBase | io.FileIO) -> tuple[int, float]:
    """`probe` of an open BVH, whose lines of frames have a number and a blank for each channel at least."""
    try:
        frames, fps = bvh.probe_motion(file)
    except MotionError:
        raise
    except Exception as error:
        raise MotionError(f"cannot be read as BVH ({type(error).__name__}: {error})") from error
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    channels = sum(int(count) for count in re.findall(rb"CHANNELS\s+(\d{1,2})\b", file.read(1 << 20)))
    if frames * 2 * max(channels, 1) > size:
        raise MotionError(f"`Frames:` says {frames:,} frames of {channels} channels, its {size:,} bytes hold fewer")
    require_length(frames, fps)
    return frames, fps


def is_bvh(name: str) -> bool:
    """Whether a name is a BVH file's."""
    return name.lower().endswith(".bvh")


def is_beside(name: str) -> bool:
    """Whether a name is that of a file that AMASS has beside its motions."""
    return NO_MOTIONS.fullmatch(name.lower().rpartition("/")[2]) is not None


def open_recording(root: Path, recording: SourceFile) -> io.BufferedIOBase | io.FileIO:
    """The recording's file, or its bytes where they are at hand; MotionError when it cannot be opened."""
    if recording.content is not None:
        return io.BytesIO(recording.content)
    try:
        return open(os.path.join(root, recording.name), "rb", buffering=0)
    except OSError as error:
        raise MotionError(amass.plain(error)) from error


MOTION_FILES = MOTIONS


def clip_name(path: str) -> str:
    """What people call a recording: its file's name without folders, and without the endings that every file has."""
    name = path.rsplit("/", 1)[-1]
    for ending in (*MOTION_FILES, ".npy", "_poses", "_stageii"):
        name = name.removesuffix(ending)
    return name


def read_recording(path: Path, *, fps_in: float | None = None) -> Recording:
    """The recording in a file of arrays or a .bvh; MotionError naming the file and what it lacks."""
    if path.suffix.lower() not in MOTION_FILES:
        kinds = ", ".join(MOTION_FILES)
        raise MotionError(f"{path}: cannot read {path.suffix or 'this'}; expected a motion: {kinds}")
    try:
        return parse(path.name, path.read_bytes(), fps_in)
    except OSError as error:
        raise MotionError(f"{path}: {error.strerror or error}") from error
    except MotionError as error:
        raise MotionError(f"{path}: {error}") from error
