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
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.amass import read_motion, resample
from mclip.pipeline.encoder import Encoder
from mclip.pipeline.render import tile
from mclip.training.motion import motion_of_rows, pictures, write
from mclip.training.run import Run, write_aside

BATCH = 64
MANIFEST = "motions.json"
LONGEST_TEXT = 2000  # characters of a prompt


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


def vectors_of(run: Run, sources: Sequence[str], encoder: Encoder | None = None) -> Float[Tensor, "N C"]:
    """Latent vectors (N, C) of texts and of motion files (anything that ends in .npz)."""
    texts = [source for source in sources if not source.endswith(".npz")]
    for text in texts:
        check_text(text)
    vectors = {}
    if texts:
        encoder = encoder or run.load_encoder()
        vectors = dict(zip(texts, latent(run, encoder.encode_texts(texts)), strict=True))
    return torch.stack([vectors[s] if s in vectors else motion_vector(run, Path(s)) for s in sources])


def check_text(text: str) -> None:
    """ValueError for a prompt that says nothing or is a whole book."""
    if not text.strip():
        raise ValueError("an empty text: write what the person does")
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"a text of {len(text):,} characters, expected at most {LONGEST_TEXT:,}: {text[:40]}...")


@torch.inference_mode()
def motion_vector(run: Run, path: Path) -> Float[Tensor, " C"]:
    """Latent vector (C,) of the middle of a motion file, at most a training crop of it."""
    rot6d, trans = resample(read_motion(path), run.fps)
    start = max(0, (len(rot6d) - run.crop) // 2)
    rot6d, trans = rot6d[start : start + run.crop], trans[start : start + run.crop]
    displacement = F.pad(trans - trans[:1], (0, 3))
    z_1C = run.model.encode(torch.cat((rot6d, displacement[:, None]), dim=1)[None])
    return (latent(run, z_1C) if run.model.config.unit_latent else z_1C)[0]


@torch.inference_mode()
def decode(run: Run, vectors_NC: Float[Tensor, "N C"], frames: int) -> Float[Tensor, "N T 25 6"]:
    """Decoded motions (N, frames, 25, 6), in batches."""
    return torch.cat([run.model.decode(part, frames) for part in vectors_NC.split(BATCH)])


def edited(
    base_C: Float[Tensor, " C"], from_C: Float[Tensor, " C"], to_C: Float[Tensor, " C"], scales: Sequence[float]
) -> Float[Tensor, "N C"]:
    """base + scale (to - from) for every scale (paper, section 4.2)."""
    return torch.stack([base_C + scale * (to_C - from_C) for scale in scales])


def between(a_C: Float[Tensor, " C"], b_C: Float[Tensor, " C"], steps: int) -> Float[Tensor, "N C"]:
    """`steps` vectors on the straight line from a to b, both included (paper, section 4.2)."""
    if steps < 2:
        raise ValueError(f"--steps is {steps}: expected at least 2, the two ends")
    return torch.stack([a_C + (b_C - a_C) * step / (steps - 1) for step in range(steps)])


def prompts_of(titles: Sequence[str], vectors_NC: Float[Tensor, "N C"]) -> list[Prompt]:
    """A prompt for every title and vector."""
    return [Prompt(title, vector.numpy()) for title, vector in zip(titles, vectors_NC, strict=True)]


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
