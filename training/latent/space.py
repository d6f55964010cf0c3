"""Texts and motions to vectors of the latent space, and vectors to motions: on the device where the run's model is."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.embed.encoder import Encoder, check_text
from mclip.pipeline.forms.asked import NOTHING, Asked
from mclip.pipeline.geometry.changes import face_front
from mclip.pipeline.geometry.continuation import continue_motion
from mclip.pipeline.geometry.recording import Recording
from mclip.pipeline.geometry.resample import resample
from mclip.pipeline.machine.words import warn
from mclip.pipeline.prepare.sources import MOTION_FILES, read_recording
from mclip.pipeline.store.middle import middle_shift
from mclip.pipeline.store.store import Store
from mclip.training.data.clips import CLIP, clip_rows, described, find_clip
from mclip.training.data.rows import from_origin, joints_of, root_of, rows_as_trained, rows_of_motion
from mclip.training.latent.span import Chance, carried
from mclip.training.model.run import Run
from mclip.training.model.run_documents import ROOT_PATH

BATCH = 64


def latent(run: Run, vectors_NC: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """CLIP vectors (N, C) at the length that the decoder knows.

    The cosine losses leave the length of z free, so a text's vector has a length of its own: it is given the mean
    length of z over the training windows. A run that does not know it (an imported one) takes the vectors as they are.
    """
    if run.z_length is None:
        return vectors_NC
    return F.normalize(vectors_NC, dim=-1) * run.z_length


def text_latent(
    run: Run, text_NC: Float[Tensor, "N C"], *, plain: bool = False, chance: Chance | None = None
) -> Float[Tensor, "N C"]:
    """Vectors (N, C) to decode for texts' vectors: carried to where the training motions lie, at the length of z.

    `plain` is the paper's way, and that of a run that keeps no training z: the text's own direction.
    """
    if plain or run.z_NC is None:
        return latent(run, text_NC)
    return latent(run, carried(text_NC, run.z_NC, run.told_NC, chance=chance))


def is_file(source: str) -> bool:
    """Whether a source is a motion file and not a text."""
    return source.lower().endswith(MOTION_FILES) and not is_clip(source)


def require_readable(source: str) -> None:
    """ValueError for a motion file that cannot be read, a clip without its store, or a text that is none."""
    if is_clip(source):
        raise ValueError(f"{source}: a clip of a store: pass --store")
    if is_file(source):
        read_recording(Path(source))
    else:
        check_text(source)


def is_clip(source: str) -> bool:
    """Whether a source is a clip of a store."""
    return source.startswith(CLIP)


def is_motion(source: str) -> bool:
    """Whether a source is a motion, in a file or in a store, and not a text."""
    return is_file(source) or is_clip(source)


def vectors_of(
    run: Run,
    sources: Sequence[str],
    encoder: Encoder | None = None,
    *,
    store: Store | None = None,
    say: Callable[[str], None] = warn,
    plain: bool = False,
    asked: Asked = NOTHING,
) -> Float[Tensor, "N C"]:
    """Latent vectors (N, C) of texts, motion files (what ends in .npz or .bvh), and clips of a store (store:LABEL).

    `say` is told which clip was taken where several carry a label; `asked` is what files do not say themselves.
    """
    texts = list(dict.fromkeys(source for source in sources if not is_motion(source)))
    for text in texts:
        check_text(text)
    vectors = {each: motion_vector(run, Path(each), asked) for each in dict.fromkeys(sources) if is_file(each)}
    for source in dict.fromkeys(filter(is_clip, sources)):
        if store is None:
            raise ValueError(f"{source}: a clip of a store: pass --store")
        vectors[source] = clip_vector(run, store, source.removeprefix(CLIP), say)
    if texts:
        text_NC = text_vectors(run, texts, encoder)
        vectors |= dict(zip(texts, text_latent(run, text_NC, plain=plain), strict=True))
    return torch.stack([vectors[source] for source in sources])


def clip_vector(run: Run, store: Store, wanted: str, say: Callable[[str], None]) -> Float[Tensor, " C"]:
    """Latent vector (C,) of the first clip that is labelled or called so; which one is said where several are."""
    clip = find_clip(store, wanted)
    if clip.among > 1:
        say(described(store, wanted, clip))
    return encode(run, clip_rows(store, clip.window, clip.shift))


def text_vectors(run: Run, texts: Sequence[str], encoder: Encoder | None = None) -> Float[Tensor, "N C"]:
    """The run's encoder's vectors (N, C) of texts."""
    encoder = encoder or run.load_encoder()
    parts = [encoder.encode_texts(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    return torch.cat(parts).to(run.device)


def motion_vector(run: Run, path: Path, asked: Asked = NOTHING) -> Float[Tensor, " C"]:
    """Latent vector (C,) of the middle of a motion file, at most a training crop of it."""
    return middle_vector(run, motion_rows(run, path, asked))


def middle_vector(run: Run, rows_TRD: Float[Tensor, "T 25 6"]) -> Float[Tensor, " C"]:
    """Latent vector (C,) of the middle of a motion, at most a training crop of it."""
    start = middle_shift(len(rows_TRD), run.crop)
    return encode(run, rows_TRD[start : start + run.crop])


def motion_rows(run: Run, path: Path, asked: Asked = NOTHING) -> Float[Tensor, "T 25 6"]:
    """A motion file in the model's rows at the run's frame rate: 24 joints, and where the root is."""
    return recording_rows(run, read_recording(path, asked))


def recording_rows(run: Run, recording: Recording) -> Float[Tensor, "T 25 6"]:
    """A recording in the model's rows at the run's frame rate."""
    rot6d, trans = resample(recording, run.fps)
    return rows_of_motion(rot6d, trans)


@torch.inference_mode()
def encode(run: Run, rows_TRD: Float[Tensor, "T 25 6"]) -> Float[Tensor, " C"]:
    """Latent vector (C,) of a motion of at most a training crop's frames; its path begins where it does."""
    rows = rows_as_trained(run, continued_rows(run, rows_TRD))
    z_1C = run.model.encode(from_origin(rows)[None].to(run.device))
    return (latent(run, z_1C) if run.model.config.unit_latent else z_1C)[0]


def continued_rows(run: Run, rows_TRD: Float[Tensor, "T 25 6"]) -> Float[Tensor, "N 25 6"]:
    """A motion that is shorter than a training crop, continued to one if the run was trained so; any other as it is."""
    if run.config["train"].get("short") != "continue" or len(rows_TRD) >= run.crop:
        return rows_TRD
    rot6d, trans = continue_motion(joints_of(rows_TRD), root_of(rows_TRD), run.crop)
    return rows_of_motion(rot6d, trans)


@torch.inference_mode()
def decode(run: Run, vectors_NC: Float[Tensor, "N C"], frames: int) -> Float[Tensor, "N T 25 6"]:
    """Decoded motions (N, frames, 25, 6), in batches, where the model is."""
    parts = vectors_NC.to(run.device).split(BATCH)
    return in_place(run, torch.cat([run.model.decode(part, frames) for part in parts]))


def in_place(run: Run, rows: Float[Tensor, "*batch 25 6"]) -> Float[Tensor, "*batch 25 6"]:
    """Decoded rows whose last one is the root's path: zero where the model's is not, as the release's ankle."""
    return rows if run.row25 == ROOT_PATH else rows_of_motion(joints_of(rows), torch.zeros_like(root_of(rows)))


def facing_viewer(rows_TRD: Float[Tensor, "T 25 6"]) -> Float[Tensor, "T 25 6"]:
    """The decoded rows turned about the vertical as a whole, so that the first frame faces -y, where a viewer stands.

    The release overwrites the root's rotation in every frame instead, and with it every turn, roll and fall.
    """
    return rows_of_motion(*face_front(joints_of(rows_TRD), root_of(rows_TRD)))
