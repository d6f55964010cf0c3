"""Motion files in other formats, as `mclip export` writes them."""

from dataclasses import asdict
from pathlib import Path

from mclip.pipeline.characters.character import Character, Worn
from mclip.pipeline.files.atomic import by_rename
from mclip.pipeline.forms.asked import NOTHING, Asked
from mclip.pipeline.prepare.sources import file_of
from mclip.pipeline.render.options import RenderOptions, VideoOptions
from mclip.training.show.footlock import Lock, locked
from mclip.training.show.motion import Motion, read
from mclip.training.show.page import write_page
from mclip.training.show.writers import DATA, DRAWN, HUMANML3D_FOLDERS, write_humanml3d, write_vrma

PAGE = "html"
FILES = DATA | {"vrma": write_vrma}  # a page hands out DATA
FORMATS = (*FILES, *DRAWN, PAGE)
HUMANML3D = "humanml3d"  # two files, in the folders that the data set has
MOST_DRAWN = 3000  # frames of a video or page: a minute and a half at 30 fps, forty seconds of drawing on two cores
LOOKS = RenderOptions(**asdict(VideoOptions()))


def write(path: Path | str, motion: Motion, looks: RenderOptions = LOOKS) -> None:
    """Write a motion as its file ending says, one of FORMATS. The file appears whole or not at all.

    ValueError for another ending, and for a motion that is too long to be drawn.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(f"{path}: cannot write .{kind}; expected one of {', '.join(FORMATS)}")
    require_drawable(kind, len(motion.trans_T3), name=f"{path}: ", remedy="lower --fps")
    path.parent.mkdir(parents=True, exist_ok=True)
    with by_rename(path) as aside:
        if kind in FILES:
            FILES[kind](aside, motion)
        elif kind == PAGE:
            write_page(aside, motion, title=path.stem)
        else:
            DRAWN[kind](aside, motion, looks)


def require_drawable(kind: str, frames: int, *, name: str = "", remedy: str = "pass --format npz") -> None:
    """ValueError where a file of this ending is a picture, and its motion too long for one."""
    if kind not in FILES and frames > MOST_DRAWN:
        raise ValueError(f"{name}{frames:,} frames, at most {MOST_DRAWN:,} are drawn as {kind}: {remedy}")


def export(
    motion_file: Path,
    kinds: tuple[str, ...],
    out: Path,
    *,
    fps: float | None = None,
    asked: Asked = NOTHING,
    looks: RenderOptions = LOOKS,
    foot_lock: bool = False,
) -> tuple[list[Path], Lock | None]:
    """Write a motion file in other formats into a folder, under its own name; ValueError where one exists.

    `asked` is what its reader is told that it does not say itself.

    Returns the files, and what the foot lock did where one is asked for.
    """
    motion, lock = read(motion_file, fps=fps, asked=asked), None
    name = named(motion_file)
    paths = [out / f"{name}.{kind}" for kind in kinds if kind != HUMANML3D]
    rows = [out / folder / f"{name}.npy" for folder in HUMANML3D_FOLDERS if HUMANML3D in kinds]
    require_free([*paths, *rows])
    if foot_lock:
        motion, lock = locked(motion)
    for path in paths:
        write(path, motion, looks)
    if rows:
        write_humanml3d(rows, motion)
    return [*paths, *rows], lock


def named(motion_file: Path) -> str:
    """What the files of a motion are called: as its own, and which of several it is there."""
    file, member = file_of(motion_file.as_posix())
    return f"{Path(file).stem}_{member}" if member else motion_file.stem


def require_free(paths: list[Path]) -> None:
    """ValueError naming the files that are there already."""
    if taken := [path for path in paths if path.exists()]:
        raise ValueError(f"{', '.join(map(str, taken))}: there already; name another --out, or delete it first")


def export_worn(
    motion_file: Path,
    character: Path,
    out: Path,
    *,
    fps: float | None = None,
    foot_lock: bool = False,
    asked: Asked = NOTHING,
    joint_map: str = "",
) -> tuple[Path, Worn]:
    """Write a character's file with a motion on it into a folder, as MOTION-CHARACTER; ValueError where one exists.

    `joint_map` says what SMPL's joints are called in the character.
    """
    path = out / f"{named(motion_file)}-{character.name}"
    require_free([path])
    rig = Character.read(character, joint_map)
    motion = read(motion_file, fps=fps, asked=asked)
    if foot_lock:
        motion, _ = locked(motion)
    return path, write_worn(path, motion, rig, name=named(motion_file))


def write_worn(path: Path, motion: Motion, character: Character, *, name: str) -> Worn:
    """Write a character's file with a motion on it, as an animation called `name`. The file appears whole or not."""
    rotmat, trans = motion.rotmat_TJ33.double().numpy(), motion.trans_T3.double().numpy()
    worn = character.wear(rotmat, trans, fps=motion.fps, name=name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with by_rename(path) as aside:
        aside.write_bytes(worn.content)
    return worn
