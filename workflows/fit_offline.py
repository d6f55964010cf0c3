"""Fit the image tower of the encoder `offline` to the text space of all-MiniLM-L6-v2, on this project's own pictures.

    python workflows/fit_offline.py --unseen MOTIONS

writes pipeline/data/offline_image_tower.safetensors and workflows/records/offline_encoder.md, which holds what was
measured. It is LiT (Zhai et al. 2022, "LiT: Zero-shot transfer with locked-image text tuning") with the towers the other
way round: texts stay where they are, and the image tower learns to put a picture where the labels of its clip are. Run
it again when the body, the motions, their labels, the camera or the shading change.
"""

# B pictures, F frames of all clips, T frames of a clip, J joints, C width of the CLIP space, N texts, S picture side

import hashlib
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import click
import numpy as np
import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from mclip.pipeline import amass, labels
from mclip.pipeline.body import load_body
from mclip.pipeline.encoder import OFFLINE, OFFLINE_IMAGE_TOWER, OFFLINE_VISION, Encoder, new_offline, quiet
from mclip.pipeline.prepare import PrepareOptions, windows_of
from mclip.pipeline.render import BATCH, RenderOptions, draw, picture_frames
from mclip.pipeline.rotations import axis_angle_to_matrix, rot6d_to_matrix

MOTIONS = OFFLINE_IMAGE_TOWER.parent / "motions"
RECORD = Path(__file__).parent / "records" / "offline_encoder.md"
PREPARE = PrepareOptions()
TRAINING_YAWS = tuple(range(0, 360, 60))  # degrees around the body, each under its own jitter
HELD_OUT_YAWS = tuple(range(30, 360, 60))


@dataclass(frozen=True)
class Recipe:
    """How the tower is fitted."""

    seed: int = 0
    rounds: int = 2  # draws of every frame from every training view
    yaw_jitter: float = 15.0  # degrees either way; a held-out view is at least as far again
    pose_jitter: float = 4.0  # degrees: standard deviation of a turn of every joint but the root
    mirror: bool = True  # half of the pictures in a mirror, with left and right exchanged in their labels
    shift: float = 0.04  # share of the side that a picture is moved by, at most
    scale: float = 0.08  # share that it is enlarged or shrunk by, at most
    steps: int = 1200
    batch: int = 64
    rate: float = 1e-3
    decay: float = 0.1
    temperature: float = 0.05
    cosine: float = 1.0  # weight of the distance to the mean of the right texts, beside the contrast with all others
    ridge: float = 1e-4  # of the other variant: share of the features' mean square


@dataclass(frozen=True)
class Clips:
    """Frames of all clips one after the other, and what is right to say of each frame."""

    name: list[str]
    rotmat_FJ33: Tensor
    clip_F: Tensor
    middle_F: Tensor  # whether it is the middle of a window, which is what the pipeline draws by default
    texts: list[str]  # each of them also with left and right exchanged
    label_FN: Tensor  # labels that hold at this very moment
    joined_FN: Tensor  # joined text of the crop around it
    categories: list[str]
    category_FN: Tensor

    @property
    def right_FN(self) -> Tensor:
        """Texts that a picture of a frame belongs to."""
        return self.label_FN | self.joined_FN

    @cached_property
    def mirrored_N(self) -> Tensor:
        """Number of the text that each becomes in a mirror."""
        index = {text: number for number, text in enumerate(self.texts)}
        return torch.tensor([index[exchange_sides(text)] for text in self.texts])


@dataclass(frozen=True)
class Pictures:
    """Pictures (B, 3, S, S), RGB 0..255, at the tower's own size, and the frame that each shows."""

    rgb_B3SS: Tensor
    frame_B: Tensor


def read_clips(folder: Path) -> Clips:
    """The motions of a folder at the pipeline's frame rate, with the labels in `folder/babel`."""
    found = labels.read_babel(folder / "babel")
    names, parts, spans = [], [], []
    for path in sorted(folder.rglob("*_poses.npz")):
        key = labels.sequence_key(path.relative_to(folder).as_posix())
        names.append(key)
        parts.append(rot6d_to_matrix(amass.resample(amass.read_motion(path), PREPARE.fps)[0]))
        spans.append(found.spans[key])
    said = [say(len(part), own) for part, own in zip(parts, spans, strict=True)]
    once = {text for clip in said for kind in clip[:2] for frame in kind for text in frame}
    texts = sorted(once | {exchange_sides(text) for text in once})
    categories = sorted({text for clip in said for frame in clip[2] for text in frame})
    columns = [[frame for clip in said for frame in clip[kind]] for kind in range(3)]
    return Clips(
        name=names,
        rotmat_FJ33=torch.cat(parts),
        clip_F=torch.cat([torch.full((len(part),), number) for number, part in enumerate(parts)]),
        middle_F=torch.cat([is_middle(len(part)) for part in parts]),
        texts=texts,
        label_FN=membership(columns[0], texts),
        joined_FN=membership(columns[1], texts),
        categories=categories,
        category_FN=membership(columns[2], categories),
    )


def say(frames: int, spans: Sequence[labels.Span]) -> tuple[list[set[str]], list[set[str]], list[set[str]]]:
    """Of every frame of a clip: its labels, the joined text of the crop around it, and its categories."""
    ranges = [labels.frame_range(span, frames, PREPARE.fps) for span in spans]
    now, joined, categories = [], [], []
    for frame in range(frames):
        start = min(max(frame - PREPARE.crop // 2, 0), max(frames - PREPARE.crop, 0))
        inside = [span for span, (first, last) in zip(spans, ranges, strict=True) if first <= frame < last]
        members = labels.crop_members(
            spans, first_frame=start, shifts=1, crop=PREPARE.crop, frames=frames, fps=PREPARE.fps
        )[0]
        now.append({span.text for span in inside})
        joined.append({labels.joined(span.text for span, member in zip(spans, members, strict=True) if member)})
        categories.append({category for span in inside for category in span.categories})
    return now, joined, categories


def is_middle(frames: int) -> Tensor:
    """Which frames (T) of a clip the pipeline draws by default."""
    middle = torch.zeros(frames, dtype=torch.bool)
    for start, valid in windows_of(frames, PREPARE):
        middle[start + picture_frames(valid, 1)[0]] = True
    return middle


def membership(sets: Sequence[set[str]], names: Sequence[str]) -> Tensor:
    """Booleans (F, N): whether set F holds name N."""
    index = {name: number for number, name in enumerate(names)}
    member = torch.zeros(len(sets), len(names), dtype=torch.bool)
    for row, held in enumerate(sets):
        member[row, [index[name] for name in held]] = True
    return member


def exchange_sides(text: str) -> str:
    """The text with left for right and right for left."""
    sides = {"left": "right", "right": "left"}
    return " ".join(sides.get(word, word) for word in text.split(" "))


def draw_all(clips: Clips, encoder: Encoder, frame_B: Tensor, yaw_B: Tensor, *, jitter: Tensor | None = None) -> Tensor:
    """Pictures (B, 3, S, S) of frames from `yaw_B` degrees, as the pipeline draws and the encoder shrinks them.

    `jitter` (B, J, 3) turns joints by axis-angle radians.
    """
    body, options = load_body(), RenderOptions()
    parts = []
    for part in torch.arange(len(frame_B)).split(BATCH):
        rotmat = clips.rotmat_FJ33[frame_B[part]]
        if jitter is not None:
            rotmat = rotmat @ axis_angle_to_matrix(jitter[part])
        parts.append(encoder.shrink(draw(body, rotmat, yaw_B[part].deg2rad(), options, "auto")))
    return torch.cat(parts)


def training_pictures(clips: Clips, encoder: Encoder, recipe: Recipe) -> Pictures:
    """Every frame from every training view, `recipe.rounds` times, each with its own turn of camera and joints."""
    generator = torch.Generator().manual_seed(recipe.seed)
    frames = torch.arange(len(clips.clip_F))
    frame_B, yaw_B = torch.cartesian_prod(frames, torch.tensor(TRAINING_YAWS)).repeat(recipe.rounds, 1).unbind(1)
    turn_B = (torch.rand(len(frame_B), generator=generator) * 2 - 1) * recipe.yaw_jitter
    jitter = torch.randn(len(frame_B), 24, 3, generator=generator) * math.radians(recipe.pose_jitter)
    jitter[:, 0] = 0
    return Pictures(draw_all(clips, encoder, frame_B, yaw_B + turn_B, jitter=jitter), frame_B)


def plain_pictures(clips: Clips, encoder: Encoder, frames: Tensor, yaws: Sequence[int]) -> Pictures:
    """The given frames from each of the views, as the pipeline draws them."""
    frame_B, yaw_B = torch.cartesian_prod(frames, torch.tensor(yaws)).unbind(1)
    return Pictures(draw_all(clips, encoder, frame_B, yaw_B.float()), frame_B)


def text_vectors(encoder: Encoder, texts: Sequence[str]) -> Tensor:
    """Unit vectors (N, C)."""
    return torch.cat([functional.normalize(encoder.encode_texts(texts[at : at + 32])) for at in range(0, len(texts), 32)])


@torch.inference_mode()
def picture_vectors(encoder: Encoder, tower: torch.nn.Module, pictures: Pictures) -> Tensor:
    """Unit vectors (B, C)."""
    parts = [tower(encoder.normalise(part)) for part in pictures.rgb_B3SS.split(128)]
    return functional.normalize(torch.cat(parts))


def new_tower(recipe: Recipe) -> torch.nn.Module:
    """An image tower with seeded random weights, of the offline architecture."""
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(recipe.seed)
        return new_offline()[0].visual.eval()


def ridge_tower(clips: Clips, encoder: Encoder, recipe: Recipe, pictures: Pictures, texts_NC: Tensor) -> torch.nn.Module:
    """Random features and `proj` solved by ridge regression on the mean of each picture's right texts."""
    tower = new_tower(recipe)
    proj, tower.proj = tower.proj, None
    with torch.inference_mode():
        tower.ln_post.weight[-1], tower.ln_post.bias[-1] = 0, 1  # a feature that is always one: the intercept
        X = torch.cat([tower(encoder.normalise(part)) for part in pictures.rgb_B3SS.split(128)]).double()
        Y = mean_text(clips.right_FN, texts_NC)[pictures.frame_B].double()
        gram = X.T @ X
        damped = gram + recipe.ridge * gram.diagonal().mean() * torch.eye(len(gram))
        proj.copy_(torch.linalg.solve(damped, X.T @ Y))
    tower.proj = proj
    return tower


def mean_text(right_FN: Tensor, texts_NC: Tensor) -> Tensor:
    """Unit vectors (F, C) in the middle of each frame's right texts."""
    return functional.normalize(right_FN.float() @ texts_NC)


def fit_tower(clips: Clips, encoder: Encoder, recipe: Recipe, pictures: Pictures, texts_NC: Tensor) -> torch.nn.Module:
    """A tower trained to point at each picture's right texts and away from all others."""
    tower = new_tower(recipe).requires_grad_(True).train()
    generator = torch.Generator().manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=recipe.rate, weight_decay=recipe.decay, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.steps, pct_start=0.1)
    right_FN = clips.right_FN
    for step, chosen in enumerate(batches(len(pictures.frame_B), recipe, generator)):
        rgb, right_BN = pictures.rgb_B3SS[chosen], right_FN[pictures.frame_B[chosen]]
        if recipe.mirror and step % 2:
            rgb, right_BN = rgb.flip(-1), right_BN[:, clips.mirrored_N]
        image_BC = functional.normalize(tower(encoder.normalise(moved(rgb, recipe, generator))))
        loss = loss_of(image_BC, right_BN, texts_NC, recipe)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            click.echo(f"step {step}: loss {loss.item():.3f}", err=True)
    return tower.eval().requires_grad_(False)


def batches(count: int, recipe: Recipe, generator: torch.Generator) -> list[Tensor]:
    """Numbers of the pictures of each step: all of them in a new order, again and again."""
    whole = -(-recipe.steps * recipe.batch // count)
    order = torch.cat([torch.randperm(count, generator=generator) for _ in range(whole)])
    return list(order[: recipe.steps * recipe.batch].split(recipe.batch))


def loss_of(image_BC: Tensor, right_BN: Tensor, texts_NC: Tensor, recipe: Recipe) -> Tensor:
    """InfoNCE over all texts, where each has several right ones, and the distance to the mean of those."""
    share_BN = right_BN / right_BN.sum(1, keepdim=True)
    contrast = functional.cross_entropy(image_BC @ texts_NC.T / recipe.temperature, share_BN)
    distance = 1 - (image_BC * mean_text(right_BN, texts_NC)).sum(1).mean()
    return contrast + recipe.cosine * distance


def moved(rgb_B3SS: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Pictures moved and scaled a little, each by its own amount, on white."""
    count = len(rgb_B3SS)
    affine = torch.zeros(count, 2, 3)
    scale_B = 1 + (torch.rand(count, generator=generator) * 2 - 1) * recipe.scale
    affine[:, 0, 0] = affine[:, 1, 1] = scale_B
    affine[:, :, 2] = (torch.rand(count, 2, generator=generator) * 2 - 1) * 2 * recipe.shift
    grid = functional.affine_grid(affine, list(rgb_B3SS.shape), align_corners=False)
    return 255 - functional.grid_sample(255 - rgb_B3SS.float(), grid, align_corners=False)


@dataclass(frozen=True)
class Choice:
    """A question with the answers to choose from: which of these texts does the picture show?"""

    name: str
    texts_NC: Tensor
    right_BN: Tensor


def choices(clips: Clips, pictures: Pictures, texts_NC: Tensor) -> list[Choice]:
    """Which clip, by the joined texts that crops carry; which label of any clip."""
    frame_B = pictures.frame_B
    belongs = torch.stack([clips.joined_FN[clips.clip_F == clip].any(0) for clip in range(len(clips.name))])
    joined_N, label_N = clips.joined_FN.any(0), clips.label_FN.any(0)
    return [
        Choice("clip, by joined text", texts_NC[joined_N], belongs[clips.clip_F[frame_B]][:, joined_N]),
        Choice("label", texts_NC[label_N], clips.label_FN[frame_B][:, label_N]),
    ]


def score(image_BC: Tensor, choice: Choice) -> dict[str, float]:
    """How often a right answer is first, among the first five, and what blind choosing and one fixed answer reach.

    `balanced` is the first averaged over kinds of picture (those with the same right answers), not over pictures.
    """
    ranked = (image_BC @ choice.texts_NC.T).argsort(1, descending=True)
    right_BN = choice.right_BN.gather(1, ranked)
    first_B = right_BN[:, 0].double()
    _, kind_B = choice.right_BN.unique(dim=0, return_inverse=True)
    kinds = [first_B[kind_B == kind].mean() for kind in range(int(kind_B.max()) + 1)]
    return {
        "first": float(first_B.mean()),
        "chance": float(right_BN.double().mean()),
        "in five": float(right_BN[:, :5].any(1).double().mean()),
        "chance in five": float(blind_five(choice.right_BN).mean()),
        "balanced": float(torch.stack(kinds).mean()),
        "one answer": float(choice.right_BN.double().mean(0).max()),
        "answers": choice.right_BN.shape[1],
        "pictures": len(first_B),
    }


def blind_five(right_BN: Tensor) -> Tensor:
    """Chance (B) that five answers drawn blindly hold a right one."""
    wrong_B, total = (~right_BN).sum(1).double(), right_BN.shape[1]
    miss_B = torch.ones(len(right_BN), dtype=torch.float64)
    for drawn in range(min(5, total)):
        miss_B *= (wrong_B - drawn).clamp_min(0) / (total - drawn)
    return 1 - miss_B
