"""Motion files in other formats, as `mclip export` writes them."""

from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from mclip.pipeline.files.atomic import by_rename
from mclip.training.show.motion import Motion, pictures, read
from mclip.training.show.page import write_page
from mclip.training.show.writers import DATA, DRAWN

PAGE = "html"
FORMATS = (*DATA, *DRAWN, PAGE)
MOST_DRAWN = 3000  # frames of a video or page: a minute and a half at 30 fps, half a gigabyte of pictures


def write(path: Path | str, motion: Motion, *, frames_TSS3: UInt8[Tensor, "T height width 3"] | None = None) -> None:
    """Write a motion as its file ending says, one of FORMATS. The file appears whole or not at all.

    `frames_TSS3` saves drawing it again. ValueError for another ending.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(f"{path}: cannot write .{kind}; expected one of {', '.join(FORMATS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with by_rename(path) as aside:
        if kind in DATA:
            DATA[kind](aside, motion)
            return
        if len(motion.trans_T3) > MOST_DRAWN:
            raise ValueError(f"{path}: {len(motion.trans_T3):,} frames, at most {MOST_DRAWN:,} are drawn: lower --fps")
        if kind == PAGE:
            write_page(aside, motion, title=path.stem)
            return
        drawn = (pictures(motion) if frames_TSS3 is None else frames_TSS3).numpy()
        DRAWN[kind](aside, drawn, motion.fps)


def export(
    motion_file: Path, kinds: tuple[str, ...], out: Path, *, fps: float | None = None, fps_in: float | None = None
) -> list[Path]:
    """Write a motion file in other formats into a folder, under its own name; ValueError where one exists."""
    motion = read(motion_file, fps=fps, fps_in=fps_in)
    paths = [out / f"{motion_file.stem}.{kind}" for kind in kinds]
    if taken := [path for path in paths if path.exists()]:
        raise ValueError(f"{', '.join(map(str, taken))}: there already; name another --out, or delete it first")
    for path in paths:
        write(path, motion)
    return paths
