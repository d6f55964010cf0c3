"""Vectors of CLIP space -> motions: from texts, by editing, by interpolation."""

# N motions, T frames, C latent width

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from mclip.pipeline.files.atomic import by_rename, write_aside
from mclip.pipeline.files.documents import read_object
from mclip.pipeline.machine.terminal import tracked
from mclip.pipeline.render.sheets import tile
from mclip.training.latent.prompts import Prompt
from mclip.training.latent.space import decode, facing_viewer
from mclip.training.model.run import Run
from mclip.training.show.export import write
from mclip.training.show.motion import Motion, motion_of_rows, pictures
from mclip.training.show.writers import DRAWN

MANIFEST = "motions.json"
REQUEST = ".request.json"  # what a folder is being made for, until its manifest is there
MOST_ROWS = 64  # motions that a sheet shows


def file_name(number: int, title: str) -> str:
    """A short plain file name for a title: its number and its words."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40]
    return f"{number:02d}-{words}" if words else f"{number:02d}"


@dataclass(frozen=True)
class Request:
    """What a folder of generated motions was made for; equal requests are not decoded twice."""

    kind: str
    titles: list[str]
    frames: int
    root: str  # keep, or front: as decoded, or turned to face the viewer
    formats: list[str]
    model: str  # of run.fingerprint
    vectors: str  # sha256

    def files(self, number: int) -> list[str]:
        """Names of the files of a motion."""
        name = file_name(number, self.titles[number])
        return [f"{name}.{suffix}" for suffix in self.formats]

    def is_in(self, file: Path) -> bool:
        """Whether a file of the folder says that it was this request."""
        remedy = "delete it and run the same command again"
        return file.exists() and read_object(file, remedy=remedy).get("request") == asdict(self)


@dataclass(frozen=True)
class Entry:
    """A motion of a folder: what it shows, and the names of its files."""

    title: str
    files: list[str]


@dataclass(frozen=True)
class Manifest:
    """motions.json: what a folder was made for and what lies in it."""

    request: Request
    motions: list[Entry]


def request_of(
    run: Run, kind: str, prompts: Sequence[Prompt], *, frames: int, root: str = "keep", formats: Sequence[str]
) -> Request:
    """The request that these prompts make of a run."""
    stacked = np.stack([prompt.vector_C for prompt in prompts]).astype(np.float32).round(5)
    vectors = hashlib.sha256(stacked.tobytes()).hexdigest()
    return Request(kind, [prompt.title for prompt in prompts], frames, root, list(formats), run.fingerprint, vectors)


def write_motions(
    run: Run, kind: str, prompts: Sequence[Prompt], out: Path, *, frames: int | None = None, root: str = "keep",
    formats: Sequence[str],
) -> str:  # fmt: skip
    """Decode the prompts into a folder: a file a format each, a sheet of them, and motions.json, which is last.

    Returns the summary line. The same request again writes nothing, and goes on where it was killed.
    """
    request = request_of(run, kind, prompts, frames=frames or run.crop, root=root, formats=formats)
    if is_written(out, request):
        (out / REQUEST).unlink(missing_ok=True)  # of a run that was killed when all was done
        return f"{kind}: 0 of {len(prompts)} motions to do in {out}"
    begin(out, request)
    decoded = decode(run, torch.from_numpy(np.stack([prompt.vector_C for prompt in prompts])), request.frames)
    strips = []
    for number in tracked(range(len(prompts)), kind, "motions"):
        rows = facing_viewer(decoded[number]) if root == "front" else decoded[number]
        strips += write_motion_files(out, request, number, motion_of_rows(rows, run.fps))
    with by_rename(out / "sheet.png") as aside:
        tile(np.concatenate(strips), columns=8).save(aside)
    made = Manifest(request, [Entry(title, request.files(number)) for number, title in enumerate(request.titles)])
    write_aside(out / MANIFEST, json.dumps(asdict(made), indent=2) + "\n")
    (out / REQUEST).unlink()
    return f"{kind}: {len(prompts)} motions of {request.frames} frames done in {out}, sheet {out / 'sheet.png'}"


def write_motion_files(out: Path, request: Request, number: int, motion: Motion) -> list[np.ndarray]:
    """Write the files of a motion that are not there yet; returns its eight pictures for the sheet, or none."""
    pending = [out / name for name in request.files(number) if not (out / name).exists()]
    is_shown = number < MOST_ROWS
    drawn = pictures(motion) if is_shown or any(path.suffix[1:] in DRAWN for path in pending) else None
    for path in pending:
        write(path, motion, frames_TSS3=drawn)
    if drawn is None or not is_shown:
        return []
    return [drawn[np.linspace(0, len(drawn) - 1, 8).astype(int)].numpy()]


def begin(out: Path, request: Request) -> None:
    """Make the folder ready for a request: what an earlier, killed run of the same wrote stays, files of another go."""
    out.mkdir(parents=True, exist_ok=True)
    if not request.is_in(out / REQUEST):
        (out / MANIFEST).unlink(missing_ok=True)  # first: from here on it would not be true any more
        for number in range(len(request.titles)):
            for name in request.files(number):
                (out / name).unlink(missing_ok=True)
        write_aside(out / REQUEST, json.dumps({"request": asdict(request)}))


def is_written(out: Path, request: Request) -> bool:
    """Whether the folder holds exactly what is asked for."""
    names = (name for number in range(len(request.titles)) for name in request.files(number))
    return request.is_in(out / MANIFEST) and all((out / name).exists() for name in names)
