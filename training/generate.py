"""Vectors of CLIP space -> motions: from texts, by editing, by interpolation."""

# N motions, T frames, C latent width

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.amass import resample
from mclip.pipeline.atomic import by_rename, write_aside
from mclip.pipeline.documents import read_object, read_text
from mclip.pipeline.encoder import Encoder
from mclip.pipeline.prepare import facing_front
from mclip.pipeline.render import tile
from mclip.pipeline.stage import tracked
from mclip.pipeline.store import Store
from mclip.training.clips import CLIP, clip_rows
from mclip.training.continuation import continued
from mclip.training.export import DRAWN, write
from mclip.training.motion import (
    MOTION_FILES,
    Motion,
    motion_of_rows,
    pictures,
    read_recording,
    rows_of_motion,
)
from mclip.training.run import ROOT, Run

BATCH = 64
MANIFEST = "motions.json"
REQUEST = ".request.json"  # what a folder is being made for, until its manifest is there
LONGEST_TEXT = 2000  # characters of a prompt
VARY = 0.5  # how far a seed leads away from a text, as a share of the vector's length
MOST_ROWS = 64  # motions that a sheet shows
# Columns of the release's paper_edits.csv and paper_interps.csv; `motion_source`, text or data, may be another.
EDIT = ("base", "v_start", "v_end")
INTERPOLATION = ("start", "end")


@dataclass(frozen=True)
class Prompt:
    """What to decode: a title for people, and the vector."""

    title: str
    vector_C: np.ndarray


def latent(run: Run, vectors_NC: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """CLIP vectors (N, C) at the length that the decoder knows.

    The cosine losses leave the length of z free, so a text's vector has a length of its own: it is given the mean
    length of z over the training windows. A run that does not know it (an imported one) takes the vectors as they are.
    """
    if run.z_length is None:
        return vectors_NC
    return F.normalize(vectors_NC, dim=-1) * run.z_length


def is_file(source: str) -> bool:
    """Whether a source is a motion file and not a text."""
    return source.lower().endswith(MOTION_FILES) and not is_clip(source)


def is_clip(source: str) -> bool:
    """Whether a source is a clip of a store."""
    return source.startswith(CLIP)


def is_motion(source: str) -> bool:
    """Whether a source is a motion, in a file or in a store, and not a text."""
    return is_file(source) or is_clip(source)


def vectors_of(
    run: Run, sources: Sequence[str], encoder: Encoder | None = None, *, store: Store | None = None
) -> Float[Tensor, "N C"]:
    """Latent vectors (N, C) of texts, motion files (what ends in .npz or .bvh), and clips of a store (store:LABEL)."""
    texts = list(dict.fromkeys(source for source in sources if not is_motion(source)))
    for text in texts:
        check_text(text)
    vectors = {source: motion_vector(run, Path(source)) for source in dict.fromkeys(sources) if is_file(source)}
    for source in dict.fromkeys(filter(is_clip, sources)):
        if store is None:
            raise ValueError(f"{source}: a clip of a store: pass --store")
        vectors[source] = encode(run, clip_rows(store, source.removeprefix(CLIP), run.crop))
    if texts:
        encoder = encoder or run.load_encoder()
        parts = [encoder.encode_texts(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        vectors |= dict(zip(texts, latent(run, torch.cat(parts)), strict=True))
    return torch.stack([vectors[source] for source in sources])


def check_text(text: str) -> None:
    """ValueError for a prompt that says nothing or is a whole book."""
    if not text.strip():
        raise ValueError("an empty text: write what the person does")
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"a text of {len(text):,} characters, expected at most {LONGEST_TEXT:,}: {text[:40]}...")


def motion_vector(run: Run, path: Path) -> Float[Tensor, " C"]:
    """Latent vector (C,) of the middle of a motion file, at most a training crop of it."""
    rows = motion_rows(run, path)
    start = max(0, (len(rows) - run.crop) // 2)
    return encode(run, rows[start : start + run.crop])


def motion_rows(run: Run, path: Path) -> Float[Tensor, "T 25 6"]:
    """A motion file in the model's rows at the run's frame rate: 24 joints, and where the root is."""
    rot6d, trans = resample(read_recording(path), run.fps)
    return rows_of_motion(rot6d, trans)


@torch.inference_mode()
def encode(run: Run, rows_TRD: Float[Tensor, "T 25 6"]) -> Float[Tensor, " C"]:
    """Latent vector (C,) of a motion of at most a training crop's frames; its path begins where it does."""
    rows = continued_rows(run, rows_TRD)
    displacement = rows[:, 24:] - rows[:1, 24:]
    z_1C = run.model.encode(torch.cat((rows[:, :24], displacement), dim=1)[None])
    return (latent(run, z_1C) if run.model.config.unit_latent else z_1C)[0]


def continued_rows(run: Run, rows_TRD: Float[Tensor, "T 25 6"]) -> Float[Tensor, "N 25 6"]:
    """A motion that is shorter than a training crop, continued to one if the run was trained so; any other as it is."""
    if run.config["train"].get("short") != "continue" or len(rows_TRD) >= run.crop:
        return rows_TRD
    rot6d, trans = continued(rows_TRD[:, :24], rows_TRD[:, 24, :3], run.crop)
    return rows_of_motion(rot6d, trans)


@torch.inference_mode()
def decode(run: Run, vectors_NC: Float[Tensor, "N C"], frames: int) -> Float[Tensor, "N T 25 6"]:
    """Decoded motions (N, frames, 25, 6), in batches."""
    return in_place(run, torch.cat([run.model.decode(part, frames) for part in vectors_NC.split(BATCH)]))


def in_place(run: Run, rows: Float[Tensor, "*batch 25 6"]) -> Float[Tensor, "*batch 25 6"]:
    """Decoded rows whose last one is the root's path: zero where the model's is not, as the release's ankle."""
    return rows if run.row25 == ROOT else torch.cat((rows[..., :24, :], torch.zeros_like(rows[..., 24:, :])), dim=-2)


def facing_viewer(rows_TRD: Float[Tensor, "T 25 6"]) -> Float[Tensor, "T 25 6"]:
    """The decoded rows turned about the vertical as a whole, so that the first frame faces -y, where a viewer stands.

    The release overwrites the root's rotation in every frame instead, and with it every turn, roll and fall.
    """
    return rows_of_motion(*facing_front(rows_TRD[:, :24], rows_TRD[:, 24, :3]))


def varied(vector_C: Float[Tensor, " C"], text: str, *, seed: int, share: float) -> Float[Tensor, " C"]:
    """The vector led away in a random direction by `share` of its length: another motion of the same text.

    The direction comes from the seed and the text alone, so it is the same whatever else is asked for beside it.
    """
    drawn = int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:7])
    noise_C = torch.randn(len(vector_C), generator=torch.Generator().manual_seed(drawn))
    return vector_C + share * vector_C.norm() * F.normalize(noise_C, dim=0)


def styled(
    content_C: Float[Tensor, " C"], style_C: Float[Tensor, " C"], scales: Sequence[float]
) -> Float[Tensor, "N C"]:
    """content + scale * style for every scale, at the length of `content` (paper, section 4.2: a style is added).

    The length is given back because two vectors of a narrow cone add up to one of twice the length.
    """
    return torch.stack([F.normalize(content_C + scale * style_C, dim=0) * content_C.norm() for scale in scales])


def edited(
    base_C: Float[Tensor, " C"], from_C: Float[Tensor, " C"], to_C: Float[Tensor, " C"], scales: Sequence[float]
) -> Float[Tensor, "N C"]:
    """base + scale (to - from) for every scale (paper, section 4.2: editing by arithmetic in the latent space)."""
    return torch.stack([base_C + scale * (to_C - from_C) for scale in scales])


def between(
    a_C: Float[Tensor, " C"], b_C: Float[Tensor, " C"], steps: int, *, path: str = "line"
) -> Float[Tensor, "N C"]:
    """`steps` vectors from a to b, both included: on the straight line (paper, section 4.2), or on the great circle.

    On the circle the direction turns evenly and the length changes evenly. ValueError where a and b are opposite: then
    every great circle leads from one to the other.
    """
    if steps < 2:
        raise ValueError(f"--steps is {steps}: expected at least 2, the two ends")
    share_N1 = torch.linspace(0, 1, steps)[:, None]
    if path == "line":
        return a_C + (b_C - a_C) * share_N1
    a, b = F.normalize(a_C, dim=0), F.normalize(b_C, dim=0)
    angle = 2 * torch.atan2((b - a).norm(), (b + a).norm())
    if angle > math.pi - 1e-3:
        raise ValueError("the two ends are opposite vectors, and no great circle is the shortest: pass --path line")
    # Shoemake 1985; by sinc, which is smooth where the ends are one.
    parts = [share * torch.sinc(share * angle / math.pi) for share in (1 - share_N1, share_N1)]
    direction = (parts[0] * a + parts[1] * b) / torch.sinc(angle / math.pi)
    return direction * (a_C.norm() + (b_C.norm() - a_C.norm()) * share_N1)


def prompts_in(lines: Iterable[str]) -> list[str]:
    """The prompts of a file: one a line; # begins a comment where it begins a line or follows a space."""
    found = (re.split(r"(?:^|\s)#", line.removeprefix("\ufeff"), maxsplit=1)[0].strip() for line in lines)
    return [line for line in found if line]


def table_in(file: Path, columns: Sequence[str], *, source: str = "text") -> list[dict[str, str]]:
    """The rows of a csv with these columns, whose cells are texts, motion files or clips; ValueError naming what lacks.

    A row whose `motion_source` is `data` means clips of the store by their labels, as the release reads it; `source` is
    that of a table without the column.
    """
    with io.StringIO(read_text(file), newline="") as opened:
        reader = csv.DictReader(opened, skipinitialspace=True)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{file}: no column {', '.join(missing)}; expected the columns {', '.join(columns)}")
        rows = []
        for row in reader:
            of_store = (row.get("motion_source") or source) == "data"
            cells = {name: (row[name] or "").strip() for name in columns}
            rows.append(
                {name: CLIP + cell if of_store and not is_motion(cell) else cell for name, cell in cells.items()}
            )
    for number, row in enumerate(rows, 1):
        if empty := [name for name in columns if not row[name].removeprefix(CLIP)]:
            raise ValueError(f"{file}: row {number} has no {', '.join(empty)}: write a text or a motion file")
    if not rows:
        raise ValueError(f"{file}: no row in it; expected one an edit or interpolation")
    return rows


def prompts_of(titles: Sequence[str], vectors_NC: Float[Tensor, "N C"]) -> list[Prompt]:
    """A prompt for every title and vector."""
    return [Prompt(title, vector.numpy()) for title, vector in zip(titles, vectors_NC, strict=True)]


def variations(
    texts: Sequence[str], vectors_NC: Float[Tensor, "N C"], seeds: Sequence[int], *, share: float = VARY
) -> list[Prompt]:
    """The prompts of every text, each as it is where no seed is given, else one a seed."""
    if not seeds:
        return prompts_of(texts, vectors_NC)
    return [
        Prompt(f"{text} (seed {seed})", varied(vector_C, text, seed=seed, share=share).numpy())
        for text, vector_C in zip(texts, vectors_NC, strict=True)
        for seed in seeds
    ]


def named(source: str) -> str:
    """A source as a title has it: a text, or a file's name without its folder and ending."""
    return Path(source).stem.removesuffix("_poses") if is_file(source) else source.removeprefix(CLIP)


def edits(
    run: Run, rows: Sequence[Mapping[str, str]], scales: Sequence[float], *, store: Store | None = None,
    encoder: Encoder | None = None,
) -> list[Prompt]:  # fmt: skip
    """The prompts of base + scale (v_end - v_start), for every row of the three, and every scale."""
    vectors_NC = vectors_of(run, [row[name] for row in rows for name in EDIT], encoder, store=store)
    made = []
    for row, (base_C, from_C, to_C) in zip(rows, vectors_NC.unflatten(0, (-1, 3)), strict=True):
        base, away, goal = (named(row[name]) for name in EDIT)
        titles = [f"{base} + {scale:g} ({goal} - {away})" for scale in scales]
        made += prompts_of(titles, edited(base_C, from_C, to_C, scales))
    return made


def styles(
    run: Run, content: str, style: str, scales: Sequence[float], *, neutral: str | None = None,
    store: Store | None = None, encoder: Encoder | None = None,
) -> list[Prompt]:  # fmt: skip
    """The prompts of a content in a style, each a text, a motion file or a clip, at every scale.

    The paper adds the vector of the style's name. A clip shows an action beside its style: with `neutral`, the same
    action without the style, what is added is only style - neutral, an edit.
    """
    words = [content, style] if neutral is None else [content, style, neutral]
    content_C, style_C, *neutral_C = vectors_of(run, words, encoder, store=store)
    what, how, *without = map(named, words)
    if neutral_C:
        vectors_NC, added = edited(content_C, neutral_C[0], style_C, scales), f"({how} - {without[0]})"
    else:
        vectors_NC, added = styled(content_C, style_C, scales), how
    return prompts_of([f"{what} + {scale:g} {added}" for scale in scales], vectors_NC)


def interpolations(
    run: Run, rows: Sequence[Mapping[str, str]], steps: int, *, path: str, store: Store | None = None,
    encoder: Encoder | None = None,
) -> list[Prompt]:  # fmt: skip
    """The prompts on the way from start to end, for every row of both."""
    vectors_NC = vectors_of(run, [row[name] for row in rows for name in INTERPOLATION], encoder, store=store)
    made = []
    for row, (start_C, end_C) in zip(rows, vectors_NC.unflatten(0, (-1, 2)), strict=True):
        start, end = (named(row[name]) for name in INTERPOLATION)
        titles = [f"{start} to {end}: {step}/{steps - 1}" for step in range(steps)]
        made += prompts_of(titles, between(start_C, end_C, steps, path=path))
    return made


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
        return f"{kind}: 0 of {len(prompts)} motions to do in {out}"
    begin(out, request)
    decoded = decode(run, torch.from_numpy(np.stack([prompt.vector_C for prompt in prompts])), request.frames)
    strips = []
    for number in tracked(range(len(prompts)), kind, "motions"):
        rows = facing_viewer(decoded[number]) if root == "front" else decoded[number]
        strips += write_motion_files(out, request, number, motion_of_rows(rows, run.fps))
    with by_rename(out / "sheet.png") as aside:
        tile(np.concatenate(strips), columns=8).save(aside)
    entries = [{"title": title, "files": request.files(number)} for number, title in enumerate(request.titles)]
    write_aside(out / MANIFEST, json.dumps({"request": asdict(request), "motions": entries}, indent=2) + "\n")
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
