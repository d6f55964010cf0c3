"""Vectors of CLIP space -> motions: from texts, by editing, by interpolation."""

# N motions, T frames, C latent width

import csv
import hashlib
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
from mclip.pipeline.encoder import Encoder
from mclip.pipeline.render import tile
from mclip.pipeline.store import Store
from mclip.training.clips import CLIP, clip_rows
from mclip.training.continuation import continued
from mclip.training.export import write
from mclip.training.motion import MOTION_FILES, motion_of_rows, pictures, read_recording, rows_of_motion
from mclip.training.run import ROOT, Run, write_aside

BATCH = 64
MANIFEST = "motions.json"
LONGEST_TEXT = 2000  # characters of a prompt
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


def vectors_of(
    run: Run, sources: Sequence[str], encoder: Encoder | None = None, *, store: Store | None = None
) -> Float[Tensor, "N C"]:
    """Latent vectors (N, C) of texts, motion files (what ends in .npz or .bvh), and clips of a store (store:LABEL)."""
    texts = list(dict.fromkeys(source for source in sources if not is_file(source) and not is_clip(source)))
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


def edited(
    base_C: Float[Tensor, " C"], from_C: Float[Tensor, " C"], to_C: Float[Tensor, " C"], scales: Sequence[float]
) -> Float[Tensor, "N C"]:
    """base + scale (to - from) for every scale (paper, section 4.2)."""
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


def table_in(file: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a csv with these columns, whose cells are texts, motion files or clips; ValueError naming what lacks.

    A row whose `motion_source` is `data` means clips of the store by their labels, as the release reads it.
    """
    with file.open(encoding="utf-8-sig", newline="") as opened:
        reader = csv.DictReader(opened, skipinitialspace=True)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{file}: no column {', '.join(missing)}; expected the columns {', '.join(columns)}")
        rows = []
        for row in reader:
            mark = CLIP if row.get("motion_source") == "data" else ""
            rows.append({name: mark + (row[name] or "").strip() for name in columns})
    for number, row in enumerate(rows, 1):
        if empty := [name for name in columns if not row[name].removeprefix(CLIP)]:
            raise ValueError(f"{file}: row {number} has no {', '.join(empty)}: write a text or a motion file")
    if not rows:
        raise ValueError(f"{file}: no row in it; expected one an edit or interpolation")
    return rows


def prompts_of(titles: Sequence[str], vectors_NC: Float[Tensor, "N C"]) -> list[Prompt]:
    """A prompt for every title and vector."""
    return [Prompt(title, vector.numpy()) for title, vector in zip(titles, vectors_NC, strict=True)]


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
    formats: list[str]
    model: str  # of run.fingerprint
    vectors: str  # sha256


def request_of(run: Run, kind: str, prompts: Sequence[Prompt], *, frames: int, formats: Sequence[str]) -> Request:
    """The request that these prompts make of a run."""
    stacked = np.stack([prompt.vector_C for prompt in prompts]).astype(np.float32).round(5)
    vectors = hashlib.sha256(stacked.tobytes()).hexdigest()
    return Request(kind, [prompt.title for prompt in prompts], frames, list(formats), run.fingerprint, vectors)


def write_motions(
    run: Run, kind: str, prompts: Sequence[Prompt], out: Path, *, frames: int | None = None, formats: Sequence[str]
) -> str:
    """Decode the prompts into a folder: a file a format each, a sheet of them all, and motions.json, which is last.

    Returns the summary line. The same request again writes nothing.
    """
    request = request_of(run, kind, prompts, frames=frames or run.crop, formats=formats)
    if is_written(out, request):
        return f"{kind}: 0 of {len(prompts)} motions to do in {out}"
    out.mkdir(parents=True, exist_ok=True)
    decoded = decode(run, torch.from_numpy(np.stack([prompt.vector_C for prompt in prompts])), request.frames)
    strips, entries = [], []
    for number, (prompt, rows) in enumerate(zip(prompts, decoded, strict=True)):
        motion = motion_of_rows(rows, run.fps)
        drawn = pictures(motion)
        name = file_name(number, prompt.title)
        for suffix in formats:
            write(out / f"{name}.{suffix}", motion, frames_TSS3=drawn)
        strips.append(drawn[np.linspace(0, len(drawn) - 1, 8).astype(int)].numpy())
        entries.append({"title": prompt.title, "files": [f"{name}.{suffix}" for suffix in formats]})
    tile(np.concatenate(strips), columns=8).save(out / "sheet.png")
    write_aside(out / MANIFEST, json.dumps({"request": asdict(request), "motions": entries}, indent=2) + "\n")
    return f"{kind}: {len(prompts)} motions of {request.frames} frames done in {out}, sheet {out / 'sheet.png'}"


def is_written(out: Path, request: Request) -> bool:
    """Whether the folder holds exactly what is asked for."""
    file = out / MANIFEST
    if not file.exists():
        return False
    made = json.loads(file.read_text(encoding="utf-8"))
    files = [out / name for entry in made["motions"] for name in entry["files"]]
    return made["request"] == asdict(request) and all(path.exists() for path in files)
