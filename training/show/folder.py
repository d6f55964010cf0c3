"""Folders of motions that were made of vectors: a file a format each, a sheet of them, and what they were made for."""

# N motions, T frames, C latent width

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from os.path import commonprefix
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mclip.pipeline.characters.character import CHARACTERS, Character
from mclip.pipeline.files.atomic import by_rename, write_aside
from mclip.pipeline.files.documents import read_document
from mclip.pipeline.machine.terminal import tracked
from mclip.pipeline.render.options import RenderOptions
from mclip.pipeline.render.sheets import stack
from mclip.training.latent.prompts import Joined, Prompt
from mclip.training.model.run import Run
from mclip.training.show.export import FORMATS, LOOKS, require_drawable, write, write_worn
from mclip.training.show.motion import Motion
from mclip.training.show.options import Shaping
from mclip.training.show.shaping import made as made_of
from mclip.training.show.writers import DRAWN, strip

MANIFEST, SHEET = "motions.json", "sheet.png"
REQUEST = ".request.json"  # what a folder is being made for, until its manifest is there
MOST_ROWS = 64  # motions that a sheet shows
MADE = {"generate": "generated", "edit": "edited", "interpolate": "interpolated", "style": "styled"}
AS_DECODED = Shaping()
REMEDY = "delete it and run the same command again"


def plain_name(title: str) -> str:
    """A title as a part of a file's name: its letters and digits, of any script, and hyphens."""
    return re.sub(r"[\W_]+", "-", title.lower()).strip("-")[:40].strip("-")


def file_name(number: int, title: str) -> str:
    """A short plain file name for a title: its number and its words."""
    return f"{number:02d}-{plain_name(title)}".strip("-")


def folder_for(kind: str, titles: Sequence[str]) -> Path:
    """The folder that a command makes where none is named: called after what is in it."""
    first, *others = titles
    words = plain_name(commonprefix(titles).rpartition(" ")[0] if others else first)
    if not words:
        words = f"{plain_name(first)}-and-{len(others)}-more" if others else "motion"
    return Path(f"{MADE[kind]}-{words.strip('-')}")


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
    looks: dict[str, Any] = field(default_factory=dict)  # of RenderOptions, where pictures are among the formats
    shaping: list[str] = field(default_factory=list)  # names of Shaping's options that were asked for
    parts: list[int] = field(default_factory=list)  # frames of each part of a sequence
    character: str = ""  # the file's name, of one that the motions are put on
    character_sha256: str = ""

    def files(self, number: int) -> list[str]:
        """Names of the files of a motion."""
        name = file_name(number, self.titles[number])
        return [*(f"{name}.{suffix}" for suffix in self.formats), *self.worn_files(name)]

    def worn_files(self, name: str) -> list[str]:
        """The name of the file of a motion on the character; none without one."""
        character = Path(self.character)
        return [f"{name}-{plain_name(character.stem) or 'character'}{character.suffix}"] if self.character else []

    @property
    def all_files(self) -> list[str]:
        """Names of the files of all motions."""
        return [name for number in range(len(self.titles)) for name in self.files(number)]


@dataclass(frozen=True)
class Entry:
    """A motion of a folder: what it shows, and the names of its files."""

    title: str
    files: list[str]
    told: list[str] = field(default_factory=list)  # of how it was made


@dataclass(frozen=True)
class Manifest:
    """motions.json: what a folder was made for and what lies in it; of an unfinished folder nothing is listed."""

    request: Request
    motions: list[Entry] = field(default_factory=list)


def request_of(
    run: Run,
    kind: str,
    prompts: Sequence[Prompt] | Sequence[Joined],
    *,
    frames: int,
    root: str = "keep",
    formats: Sequence[str],
    looks: RenderOptions = LOOKS,
    shaping: Shaping = AS_DECODED,
    character: Character | None = None,
) -> Request:
    """The request that these prompts make of a run; parts of a sequence are the same in all of them."""
    led = [prompt.lead_T3.ravel() for prompt in prompts if prompt.lead_T3 is not None]
    stacked = np.concatenate([*(prompt.vector_PC.ravel() for prompt in prompts), *led]).astype(np.float32).round(5)
    vectors, titles = hashlib.sha256(stacked.tobytes()).hexdigest(), [prompt.title for prompt in prompts]
    drawn = asdict(looks) if {*formats} & {*DRAWN} else {}
    parts = list(prompts[0].frames_P)
    return Request(
        kind,
        titles,
        sum(parts) or frames,
        root,
        list(formats),
        run.fingerprint,
        vectors,
        drawn,
        shaping=shaping.asked,
        parts=parts,
        character=character.path.name if character else "",
        character_sha256=character.sha256 if character else "",
    )


def write_motions(
    run: Run,
    kind: str,
    prompts: Sequence[Prompt] | Sequence[Joined],
    out: Path | None,
    *,
    frames: int | None = None,
    root: str = "keep",
    formats: Sequence[str],
    looks: RenderOptions = LOOKS,
    shaping: Shaping = AS_DECODED,
    character: Character | None = None,
    replace: bool = False,
) -> str:
    """Decode the prompts into a folder: a file a format each, a sheet of them, and motions.json, which is last.

    With a `character`, its file with the motion on it is beside them.

    Returns the summary, after what is told of each motion. The same request again writes nothing, and goes on where it
    was killed. ValueError where the folder holds another request's motions, unless `replace`, and for motions that are
    too long to be drawn. Without `out`, a folder is named after the titles.
    """
    request = request_of(
        run,
        kind,
        prompts,
        frames=frames or run.crop,
        root=root,
        formats=formats,
        looks=looks,
        shaping=shaping,
        character=character,
    )
    for suffix in formats:
        require_drawable(suffix, request.frames)
    out = out or folder_for(kind, request.titles)
    if is_written(out, request):
        (out / REQUEST).unlink(missing_ok=True)  # of a run that was killed when all was done
        return f"{kind}: 0 of {len(prompts)} motions to do in {out}"
    begin(out, request, replace=replace)
    strips, entries = list[Image.Image](), list[Entry]()
    for number in tracked(range(len(prompts)), kind, "motions"):
        found = made_of(run, prompts[number], request.frames, shaping, front=root == "front")
        strips += write_motion_files(out, request, number, found.motion, looks)
        worn = write_on(character, out, request, number, found.motion) if character else []
        entries.append(Entry(request.titles[number], request.files(number), [*found.told, *worn]))
    with by_rename(out / SHEET) as aside:
        stack(strips).save(aside)
    write_aside(out / MANIFEST, json.dumps(asdict(Manifest(request, entries)), indent=2) + "\n")
    (out / REQUEST).unlink()
    told = "".join(f"{entry.title}: {line}\n" for entry in entries for line in entry.told)
    return f"{told}{kind}: {len(prompts)} motions of {request.frames} frames done in {out}, sheet {out / SHEET}"


def write_motion_files(
    out: Path, request: Request, number: int, motion: Motion, looks: RenderOptions
) -> list[Image.Image]:
    """Write the files of a motion that are not there yet; returns its row for the sheet, or none."""
    for suffix in request.formats:
        path = out / f"{file_name(number, request.titles[number])}.{suffix}"
        if not path.exists():
            write(path, motion, looks)
    return [strip(motion, looks, title=request.titles[number])] if number < MOST_ROWS else []


def write_on(character: Character, out: Path, request: Request, number: int, motion: Motion) -> list[str]:
    """Write a motion on a character, and how well that went in a line: also where a killed run wrote it."""
    title = file_name(number, request.titles[number])
    (name,) = request.worn_files(title)
    return [f"on {character.path.name}: {write_worn(out / name, motion, character, name=title)}"]


def request_in(file: Path) -> Request | None:
    """What a folder's manifest, or its note of an unfinished request, was made for; None where there is none.

    ValueError naming a file that says something else.
    """
    if not file.exists():
        return None
    request = read_document(file, Manifest, remedy=REMEDY).request
    if not {*request.formats} <= {*FORMATS}:
        raise ValueError(f"{file}: damaged (request.formats: {request.formats}, expected some of {FORMATS}): {REMEDY}")
    if request.character and Path(request.character).suffix.lower() not in CHARACTERS:
        raise ValueError(f"{file}: damaged (request.character: {request.character!r:.60}): {REMEDY}")
    return request


def begin(out: Path, request: Request, *, replace: bool = False) -> None:
    """Make the folder ready for a request: what an earlier, killed run of the same wrote stays.

    Files of another request go where they are to be replaced; ValueError, saying what differs, where they are not.
    """
    made_for = request_in(out / REQUEST) or request_in(out / MANIFEST)
    if made_for and made_for != request:
        if not replace:
            raise ValueError(f"{out}: {difference(made_for, request)}; name another --out, or pass --replace")
        delete_motions(out, made_for)
    names = [*request.all_files, SHEET]
    if made_for is None and (taken := [name for name in names if (out / name).exists()]):
        raise ValueError(f"{out / taken[0]}: there already, and nothing says what made it: name another --out")
    out.mkdir(parents=True, exist_ok=True)
    if not (out / REQUEST).exists():
        (out / MANIFEST).unlink(missing_ok=True)  # first: from here on it would not be true any more
        write_aside(out / REQUEST, json.dumps({"request": asdict(request)}))


def difference(made_for: Request, request: Request) -> str:
    """What a folder holds, and what is asked for instead."""
    if (made_for.kind, made_for.titles) != (request.kind, request.titles):
        return f"holds {listed(made_for)}; this is {listed(request)}"
    was, asked = asdict(made_for), asdict(request)
    hidden = {"model": "another model's weights", "vectors": "other vectors", "character_sha256": "another character"}
    told = [hidden.get(name, f"{name} {was[name]}, not {asked[name]}") for name in asked if was[name] != asked[name]]
    return f"was made with {', '.join(told)}"


def listed(request: Request) -> str:
    """A request in a few words."""
    first = ", ".join(map(repr, request.titles[:2]))
    return f"{len(request.titles)} of {request.kind}: {first}{', ...' if len(request.titles) > 2 else ''}"


def delete_motions(out: Path, made_for: Request) -> None:
    """Delete what a request made in a folder, its manifest first; whatever else lies there stays."""
    for name in (MANIFEST, REQUEST, SHEET, *made_for.all_files):
        (out / name).unlink(missing_ok=True)


def is_written(out: Path, request: Request) -> bool:
    """Whether the folder holds exactly what is asked for."""
    return request_in(out / MANIFEST) == request and all((out / name).exists() for name in request.all_files)
