"""Where recordings lie: folders, single files, and tar archives as AMASS ships them; and what reads each.

A recording's name is its path below the source, '/' between folders; for one in an archive, the archive's path, '!/',
and its path in there. One of several motions in a file is called FILE/NAME, as in `people.pkl/person_1` or
`dances.glb/waltz`. Names alone
find the bytes again, so a worker needs only them.
"""

import errno
import functools
import hashlib
import io
import os
import re
import tarfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mclip.pipeline.characters import gltf_clips
from mclip.pipeline.characters.gltf_file import GLTF, Beside, beside, is_gltf, read_gltf
from mclip.pipeline.files.npz import LARGEST, Read
from mclip.pipeline.forms import c3d_points
from mclip.pipeline.forms.asked import NOTHING, Asked
from mclip.pipeline.geometry.recording import (
    MotionError,
    NoMotion,
    Recording,
    file_and_member,
    require_finite,
    require_length,
)
from mclip.pipeline.prepare import amass, bvh
from mclip.pipeline.skeletons.asf_text import count_frames, read_amc
from mclip.pipeline.skeletons.joints import UP, read_map

AMC = ".amc"
MOTIONS = (".npz", ".npy", ".bvh", AMC, c3d_points.ENDING, ".smpl", ".pkl", ".pt", *GLTF)
NO_MOTIONS = re.compile(r"(.*_)?(shape|stagei|settings)\.npz")  # of AMASS: a subject's shape, and what it is from
# What is not read, and how it becomes what is.
ROUTES = {
    ".fbx": "FBX is not read: import it in Blender, and export it as BVH",
    ".trc": "TRC has markers, no joints: export the solved skeleton as BVH",
    ".asf": "a skeleton without a motion: it is read with the .amc beside it",
    ".vmd": "VMD is not read: export it as BVH",
}
PACKS = (".pkl", ".pt", ".npy", ".smpl", *GLTF)  # that may hold several motions
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


def is_told(name: str) -> bool:
    """Whether a file of a folder is read, or passed over by name."""
    return is_motion(name) or name.lower().endswith(ARCHIVES) or bool(route_of(name))


def route_of(name: str) -> str:
    """Why a file of another motion format is not read, and the way to what is; nothing for any other file."""
    return ROUTES.get(os.path.splitext(name)[1].lower(), "")


def require_source(source: Path) -> None:
    """ValueError when a source is neither a folder nor a motion or archive file."""
    if source.is_file() and (route := route_of(source.name)):
        raise ValueError(f"{source}: {route}")
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
            yield from each_motion(root, SourceFile(name, stat.st_size, stat.st_mtime_ns))


def each_motion(root: Path, file: SourceFile) -> Iterator[SourceFile]:
    """The motions of a file, as one each where it holds several."""
    if not file.name.lower().endswith(PACKS) or file.reason:
        yield file
        return
    try:
        with open_recording(root, file) as opened:
            members = members_of(file.name, opened)
            content = file.content or (opened.seek(0), opened.read())[1] if members != [""] else file.content
    except (MotionError, OSError):  # told when it is read
        members, content = [""], file.content
    for member in members:
        yield replace(file, name=f"{file.name}/{member}" if member else file.name, content=content)


def members_of(name: str, file: io.BufferedIOBase | io.FileIO) -> list[str]:
    """Names of the motions in an open file, one that is empty where it holds a single one."""
    if not is_gltf(name):
        return amass.members_of(reader_of(file), file.seek(0, os.SEEK_END))
    clips = gltf_clips.clip_names(read_gltf(file.read()))
    return [*clips] if len(clips) > 1 else [""]


def reader_of(file: io.BufferedIOBase | io.FileIO) -> Read:
    """What reads the bytes of an open file at an offset."""

    def read(at: int, length: int) -> bytes:
        file.seek(at)
        return file.read(length)

    return read


def file_of(name: str) -> tuple[str, str]:
    """The file that a recording lies in, and which of several motions it is there: empty where it is the only one."""
    return file_and_member(name, (*MOTIONS, *ARCHIVES, *ROUTES))


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
        found += [os.path.join(where, name) for name in files if is_told(name)]
    begin = len(os.path.join(folder, ""))
    return sorted((path[begin:].replace(os.sep, "/") for path in found), key=lambda name: name.split("/"))


def archived(path: Path, name: str, stat: os.stat_result) -> Iterator[SourceFile]:
    """The recordings in an archive as they stream by, and the archive itself as one that fails where it ends early."""
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                if member.isfile() and is_motion(member.name):
                    yield from each_motion(path, archived_member(tar, member, f"{name}{INSIDE}{member.name}", stat))
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
    last, pack = "", b""  # a file of several motions is read once for those that follow each other
    for name in names:
        file, member = file_of(name)
        archive, inside, packed = file.partition(INSIDE)
        try:
            if member and file == last:
                yield name, pack
                continue
            if inside:
                last, pack = file, open_archive(root / archive).read(packed)
                yield name, pack
                continue
            with open(os.path.join(root, file), "rb", buffering=0) as opened:
                if member:
                    last, pack = file, opened.read()
                    yield name, pack
                    continue
                if (size := os.fstat(opened.fileno()).st_size) > len(buffer):
                    buffer = bytearray(size)
                yield name, memoryview(buffer)[: opened.readinto(memoryview(buffer)[:size])]
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
    name: str,
    content: bytes | memoryview,
    asked: Asked = NOTHING,
    *,
    root: Path | None = None,
    fps: float | None = None,
) -> Recording:
    """The motion in a recording's bytes; MotionError naming what was found and expected.

    `root` is the folder that its name begins in: a .gltf has its numbers in a file beside it. `fps` is how many frames
    a second the caller keeps: the others may be left out.
    """
    file, member = file_of(name)
    if is_gltf(file):
        joint_map = read_map(asked.joint_map)
        return require_finite(gltf_clips.parse_motion(content, member, beside_of(root, file), joint_map))
    if not (kind := text_kind(file)):
        return amass.parse_motion(content, asked, member=member)
    try:
        joint_map = read_map(asked.joint_map) | ({UP: asked.up} if asked.up else {})
        if kind == c3d_points.ENDING:
            return require_finite(c3d_points.parse_motion(content, joint_map))
        if kind == AMC:
            skeleton, sha256 = skeleton_of(root, file), hashlib.sha256(content).digest()
            moved = read_amc(content, skeleton, amc_rate(asked))
            return require_finite(bvh.motion_of(moved, joint_map, fps=fps, sha256=sha256))
        return require_finite(bvh.parse_motion(content, joint_map, fps=fps))
    except MotionError:
        raise
    except Exception as error:  # a damaged file makes its parser raise nearly anything
        raise MotionError(f"cannot be read as {kind[1:].upper()} ({type(error).__name__}: {error})") from error


def text_kind(name: str) -> str:
    """The ending of a file of joints that move, .bvh, .amc or .c3d; empty of any other."""
    return next((kind for kind in (".bvh", AMC, c3d_points.ENDING) if name.lower().endswith(kind)), "")


def amc_rate(asked: Asked) -> float:
    """Frames per second of an AMC, which never says it; MotionError where nobody does."""
    if asked.fps is None:
        raise MotionError("no frame rate in an AMC: pass --fps-in (CMU's have 120)")
    return asked.fps


def skeleton_of(root: Path | None, file: str) -> bytes:
    """The .asf of an .amc: of its own name, of its subject's (07.asf of 07_01.amc), or the only one beside it."""
    if not root or INSIDE in file:
        raise MotionError("its skeleton, the .asf beside it, is not read from an archive: unpack it")
    beside = {path.stem.lower(): path for path in (root / file).parent.iterdir() if path.suffix.lower() == ".asf"}
    stem = Path(file).stem.lower()
    found = next((beside[name] for name in (stem, stem.rpartition("_")[0]) if name in beside), None)
    if found is None and len(beside) != 1:
        raise MotionError(f"none of {len(beside)} .asf files beside it is its skeleton: expected {stem}.asf")
    path = found or next(iter(beside.values()))
    if path.stat().st_size > LARGEST:
        raise MotionError(f"{path.name} is {path.stat().st_size >> 30} GB: no skeleton")
    return path.read_bytes()


def beside_of(root: Path | None, file: str) -> Beside | None:
    """What reads the files beside a .gltf; None of one in an archive."""
    return beside((root / file).parent) if root and INSIDE not in file else None


def probe(root: Path, recording: SourceFile, asked: Asked = NOTHING) -> tuple[int, float]:
    """Number of frames and frames per second of a recording, from its headers; MotionError as `parse`.

    No more frames than its bytes can hold: rows of the store are planned by them.
    """
    if is_beside(recording.name):
        raise NoMotion(route_of(recording.name) or "a subject's shape or markers, no motion")
    if recording.reason:
        raise MotionError(recording.reason)
    (name, member), content = file_of(recording.name), recording.content
    if (
        member and content is not None and not is_gltf(name)
    ):  # the same bytes for all of its motions, which are looked up by them
        return amass.probe_motion(lambda at, length: content[at : at + length], len(content), asked, member=member)
    with open_recording(root, recording) as file:
        if is_gltf(name):
            return gltf_clips.probe_motion(file.read(), member, beside_of(root, name))
        if kind := text_kind(name):
            return probe_text(kind, file, asked)
        return amass.probe_motion(reader_of(file), file.seek(0, os.SEEK_END), asked, member=member)


def probe_text(kind: str, file: io.BufferedIOBase | io.FileIO, asked: Asked) -> tuple[int, float]:
    """`probe` of an open file of joints that move."""
    if kind == c3d_points.ENDING:
        return c3d_points.probe_motion(file.read())
    if kind == AMC:
        frames, fps = count_frames(file.read()), amc_rate(asked)
        require_length(frames, fps)
        return frames, fps
    return probe_bvh(file)


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


def is_beside(name: str) -> bool:
    """Whether a name is that of a file that AMASS has beside its motions, or of a format that is not read."""
    return NO_MOTIONS.fullmatch(name.lower().rpartition("/")[2]) is not None or bool(route_of(name))


def open_recording(root: Path, recording: SourceFile) -> io.BufferedIOBase | io.FileIO:
    """The recording's file, or its bytes where they are at hand; MotionError when it cannot be opened."""
    if recording.content is not None:
        return io.BytesIO(recording.content)
    try:
        return open(os.path.join(root, file_of(recording.name)[0]), "rb", buffering=0)
    except OSError as error:
        raise MotionError(amass.plain(error)) from error


MOTION_FILES = MOTIONS


def clip_name(path: str) -> str:
    """What people call a recording: its file's name without folders, and without the endings that every file has."""
    path, member = file_of(path)
    name = path.rsplit("/", 1)[-1]
    for ending in (*MOTION_FILES, "_poses", "_stageii"):
        name = name.removesuffix(ending)
    return f"{name}/{member}" if member else name


def read_recording(path: Path, asked: Asked = NOTHING) -> Recording:
    """The recording in a file of arrays, a .bvh or a glTF file; FILE/NAME is one of several.

    MotionError naming the file and what it lacks.
    """
    file, member = file_of(path.as_posix())
    if not file.lower().endswith(MOTION_FILES) or (member and not Path(file).is_file()):
        why = route_of(file) or f"cannot read {path.suffix or 'this'}; expected a motion: {', '.join(MOTION_FILES)}"
        raise MotionError(f"{path}: {why}")
    try:
        name = f"{Path(file).name}/{member}" if member else Path(file).name
        return parse(name, Path(file).read_bytes(), asked, root=Path(file).parent)
    except OSError as error:
        raise MotionError(f"{path}: {error.strerror or error}") from error
    except MotionError as error:
        raise MotionError(f"{path}: {error}") from error
