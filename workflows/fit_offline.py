"""Fit the image tower of the encoder `offline` to the text space of all-MiniLM-L6-v2, on this project's own pictures.

    python workflows/fit_offline.py --unseen MOTIONS

writes pipeline/assets/offline_image_tower.safetensors and workflows/records/offline_encoder.md, which holds what was
measured. It is LiT (Zhai et al. 2022, "LiT: Zero-shot transfer with locked-image text tuning") with the towers
the other way round: texts stay where they are, and the image tower learns to put a picture where the labels of its clip
are. Run it again when the body, the motions, their labels, the camera or the shading change. About six minutes.
"""

# B pictures, F frames of all clips, T frames of a clip, J joints, C width of the CLIP space, N texts, S picture side

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import click
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from mclip.pipeline.draw.backends import render_bodies
from mclip.pipeline.draw.camera import front_camera
from mclip.pipeline.embed.encoder import Encoder, quiet
from mclip.pipeline.embed.offline import OFFLINE, OFFLINE_IMAGE_TOWER, OFFLINE_VISION, new_offline
from mclip.pipeline.files.assets import SHIPPED
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.resample import resample
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix, rot6d_to_matrix
from mclip.pipeline.labels.babel import read_babel
from mclip.pipeline.labels.crop_texts import crop_members, frame_range
from mclip.pipeline.labels.crop_texts import joined as joined_text
from mclip.pipeline.labels.mirror import mirror_text
from mclip.pipeline.labels.names import sequence_key
from mclip.pipeline.labels.spans import Span
from mclip.pipeline.prepare import amass
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.windows import windows_of
from mclip.pipeline.render.render import picture_frames
from mclip.pipeline.render.scene import BATCH

RECORD = Path(__file__).parent / "records" / "offline_encoder.md"
PREPARE = PrepareOptions()
MEASURED = "## Measured by the script"
TRAINING_YAWS = tuple(range(0, 360, 60))  # degrees around the body, each under its own jitter
HELD_OUT_YAWS = tuple(range(30, 360, 60))


@dataclass(frozen=True)
class Recipe:
    """How the tower is fitted. What was tried and measured worse: workflows/records/offline_encoder.md."""

    seed: int = 0
    rounds: int = 2  # draws of every frame from every training view
    yaw_jitter: float = 22.0  # degrees either way; a held-out view is 8 degrees or more from any training view
    pose_jitter: float = 4.0  # degrees: standard deviation of a turn of every joint but the root
    shift: float = 0.04  # share of the side that a picture is moved by, at most
    scale: float = 0.08  # share that it is enlarged or shrunk by, at most
    steps: int = 8000
    batch: int = 64
    rate: float = 5e-4
    decay: float = 0.05
    temperature: float = 0.1
    cosine: float = 1.0  # weight of the distance to the mean of the right texts, beside the contrast with all others
    ridge: float = 1e-6  # of the other variant: share of the features' mean square


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
        return torch.tensor([index[mirror_text(text) or text] for text in self.texts])


@dataclass(frozen=True)
class Pictures:
    """Pictures (B, 3, S, S), RGB 0..255, at the tower's own size, and the frame that each shows."""

    rgb_B3SS: Tensor
    frame_B: Tensor


def read_clips(*folders: Path) -> Clips:
    """The motions of folders at the pipeline's frame rate, with the labels in `babel` of each."""
    names, parts, spans = [], [], []
    for folder in folders:
        found = read_babel(folder / "babel")
        for path in sorted(folder.rglob("*_poses.npz")):
            key = sequence_key(path.relative_to(folder).as_posix())
            names.append(key)
            parts.append(rot6d_to_matrix(resample(amass.read_motion(path), PREPARE.fps)[0]))
            spans.append(found.spans[key])
    said = [say(len(part), own) for part, own in zip(parts, spans, strict=True)]
    once = {text for clip in said for kind in clip[:2] for frame in kind for text in frame}
    texts = sorted(once | {mirror_text(text) or text for text in once})
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


def say(frames: int, spans: Sequence[Span]) -> tuple[list[set[str]], list[set[str]], list[set[str]]]:
    """Of every frame of a clip: its labels, the joined text of the crop around it, and its categories."""
    ranges = [frame_range(span, frames, PREPARE.fps) for span in spans]
    now, joined, categories = [], [], []
    for frame in range(frames):
        start = min(max(frame - PREPARE.crop // 2, 0), max(frames - PREPARE.crop, 0))
        inside = [span for span, (first, last) in zip(spans, ranges, strict=True) if first <= frame < last]
        members = crop_members(spans, first_frame=start, shifts=1, crop=PREPARE.crop, frames=frames, fps=PREPARE.fps)[0]
        now.append({span.text for span in inside})
        joined.append({joined_text(span.text for span, member in zip(spans, members, strict=True) if member)})
        categories.append({category for span in inside for category in span.categories})
    return now, joined, categories


def is_middle(frames: int) -> Tensor:
    """Which frames (T) of a clip the pipeline draws by default."""
    middle = torch.zeros(frames, dtype=torch.bool)
    for start, valid in windows_of(frames, window=PREPARE.window, crop=PREPARE.crop, short=PREPARE.short):
        middle[start + picture_frames(valid, 1)[0]] = True
    return middle


def membership(sets: Sequence[set[str]], names: Sequence[str]) -> Tensor:
    """Booleans (F, N): whether set F holds name N."""
    index = {name: number for number, name in enumerate(names)}
    member = torch.zeros(len(sets), len(names), dtype=torch.bool)
    for row, held in enumerate(sets):
        member[row, [index[name] for name in held]] = True
    return member


def draw_all(clips: Clips, encoder: Encoder, frame_B: Tensor, yaw_B: Tensor, *, jitter: Tensor | None = None) -> Tensor:
    """Pictures (B, 3, S, S) of frames from `yaw_B` degrees, as the pipeline draws and the encoder shrinks them.

    `jitter` (B, J, 3) turns joints by axis-angle radians.
    """
    body = load_body()
    parts = []
    for part in torch.arange(len(frame_B)).split(BATCH):
        rotmat = clips.rotmat_FJ33[frame_B[part]]
        if jitter is not None:
            rotmat = rotmat @ axis_angle_to_matrix(jitter[part])
        vertices = body.pose(rotmat)
        camera = front_camera(rotmat[:, 0], vertices, yaw_offset=yaw_B[part].deg2rad())
        parts.append(encoder.shrink(render_bodies(vertices, body.faces_F3, camera)))
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
    return torch.cat(
        [functional.normalize(encoder.encode_texts(texts[at : at + 32])) for at in range(0, len(texts), 32)]
    )


@torch.inference_mode()
def picture_vectors(encoder: Encoder, tower: torch.nn.Module, pictures: Pictures) -> Tensor:
    """Unit vectors (B, C)."""
    parts = [tower(encoder.normalise(part)) for part in pictures.rgb_B3SS.split(128)]
    return functional.normalize(torch.cat(parts))


def new_tower(recipe: Recipe) -> torch.nn.Module:
    """An image tower with seeded random weights, of the offline architecture."""
    with quiet():
        return new_offline(seed=recipe.seed)[0].visual.eval()


def ridge_tower(
    clips: Clips, encoder: Encoder, recipe: Recipe, pictures: Pictures, texts_NC: Tensor
) -> torch.nn.Module:
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
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.steps, pct_start=0.08)
    right_FN = clips.right_FN
    for step, chosen in enumerate(batches(len(pictures.frame_B), recipe, generator)):
        rgb_B3SS, right_BN = pictures.rgb_B3SS[chosen], right_FN[pictures.frame_B[chosen]]
        if step % 2:  # every second batch in a mirror
            rgb_B3SS, right_BN = rgb_B3SS.flip(-1), right_BN[:, clips.mirrored_N]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            image_BC = tower(encoder.normalise(moved(rgb_B3SS, recipe, generator)))
        loss = loss_of(functional.normalize(image_BC.float()), right_BN, texts_NC, recipe)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
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


def choices(clips: Clips, frame_B: Tensor, encoder: Encoder) -> list[Choice]:
    """Which clip, by the joined texts that its crops carry; which label; which category, of those in the folder."""
    texts_NC = text_vectors(encoder, clips.texts)
    of_clip = torch.stack([clips.joined_FN[clips.clip_F == clip].any(0) for clip in range(len(clips.name))])
    joined_N, label_N = clips.joined_FN.any(0), clips.label_FN.any(0)
    return [
        Choice("clip, by its joined text", texts_NC[joined_N], of_clip[clips.clip_F[frame_B]][:, joined_N]),
        Choice("label", texts_NC[label_N], clips.label_FN[frame_B][:, label_N]),
        Choice("category", text_vectors(encoder, clips.categories), clips.category_FN[frame_B]),
    ]


def score(image_BC: Tensor, choice: Choice) -> dict[str, float | int]:
    """How often a right answer is first or among five, and what blind choosing and the commonest answer would reach.

    `balanced` is `first` averaged over kinds of picture, those with the same right answers, and not over pictures.
    `cosine` is with the right answers, `others` with the wrong ones.
    """
    # A picture whose moment has no answer at all (a frame label without a category) asks nothing.
    asked_B = choice.right_BN.any(1)
    right_BN, cosine_BN = choice.right_BN[asked_B], image_BC[asked_B] @ choice.texts_NC.T
    ranked_BN = right_BN.gather(1, cosine_BN.argsort(1, descending=True))
    first_B = ranked_BN[:, 0].double()
    _, kind_B = right_BN.unique(dim=0, return_inverse=True)
    kinds = [first_B[kind_B == kind].mean() for kind in range(int(kind_B.max()) + 1)]
    return {
        "pictures": len(first_B),
        "answers": right_BN.shape[1],
        "first": float(first_B.mean()),
        "chance": float(right_BN.double().mean()),
        "commonest": float(right_BN.double().mean(0).max()),
        "balanced": float(torch.stack(kinds).mean()),
        "in five": float(ranked_BN[:, :5].any(1).double().mean()),
        "chance in five": float(blind_five(right_BN).mean()),
        "cosine": float(cosine_BN[right_BN].mean()),
        "others": float(cosine_BN[~right_BN].mean()),
    }


def blind_five(right_BN: Tensor) -> Tensor:
    """Chance (B) that five answers drawn blindly hold a right one."""
    wrong_B, total = (~right_BN).sum(1).double(), right_BN.shape[1]
    miss_B = torch.ones(len(right_BN), dtype=torch.float64)
    for drawn in range(min(5, total)):
        miss_B *= (wrong_B - drawn).clamp_min(0) / (total - drawn)
    return 1 - miss_B


def sets(unseen: Path | None, seen: Clips, encoder: Encoder) -> Iterator[tuple[str, Clips, Pictures]]:
    """What is measured on: views that were held out, the view that the pipeline draws, and clips never seen."""
    middle, every = seen.middle_F.nonzero()[:, 0], torch.arange(0, len(seen.clip_F), 2)
    yield "held-out views, every 2nd frame", seen, plain_pictures(seen, encoder, every, HELD_OUT_YAWS)
    yield "held-out views, middles of windows", seen, plain_pictures(seen, encoder, middle, HELD_OUT_YAWS)
    yield "front, middles of windows", seen, plain_pictures(seen, encoder, middle, (0,))
    if unseen:
        clips = read_clips(unseen)
        middle, every = clips.middle_F.nonzero()[:, 0], torch.arange(0, len(clips.clip_F), 10)
        yield "unseen clips, front, every 10th frame", clips, plain_pictures(clips, encoder, every, (0,))
        yield "unseen clips, front, middles of windows", clips, plain_pictures(clips, encoder, middle, (0,))


def table(towers: dict[str, torch.nn.Module], unseen: Path | None, seen: Clips, encoder: Encoder) -> list[str]:
    """Markdown lines with the scores of every tower on every set."""
    lines: list[str] = []
    for where, clips, pictures in sets(unseen, seen, encoder):
        vectors = {name: picture_vectors(encoder, tower, pictures) for name, tower in towers.items()}
        for choice in choices(clips, pictures.frame_B, encoder):
            for name, image_BC in vectors.items():
                found = score(image_BC, choice)
                cells = [f"{value:.3f}" if isinstance(value, float) else f"{value}" for value in found.values()]
                head = ["set", "which", "tower", *found]
                lines = lines or [row(head), row(["---"] * len(head))]
                lines.append(row([where, choice.name, name, *cells]))
    return lines


def row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def save(tower: torch.nn.Module, path: Path) -> str:
    """Write the weights as float16; returns the file's sha256."""
    aside = path.with_name(f".{path.name}.partial")
    save_file({name: value.half().contiguous() for name, value in tower.state_dict().items()}, aside)
    aside.chmod(0o644)
    aside.replace(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record(recipe: Recipe, times: dict[str, float], sha256: str, lines: Sequence[str]) -> str:
    """The measured part of the record."""
    return "\n".join(
        [
            f"Recipe: `{asdict(recipe)}`",
            "",
            f"Architecture: `{OFFLINE_VISION}`",
            "",
            f"Body {load_body().fingerprint[:16]}; weights sha256 `{sha256}`.",
            "",
            "; ".join(f"{name} {seconds:.0f} s" for name, seconds in times.items()) + " of CPU time.",
            "",
            *lines,
            "",
        ]
    )


@click.command(help=__doc__)
@click.option("--unseen", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Motions with babel/.")
@click.option("--steps", default=Recipe.steps, show_default=True, help="Steps of the fit.")
@click.option("--seed", default=Recipe.seed, show_default=True, help="Seed of weights, order and jitter.")
@click.option("--out", default=OFFLINE_IMAGE_TOWER, show_default=False, type=click.Path(path_type=Path), help="File.")
@click.option("--record", "told", default=RECORD, show_default=False, type=click.Path(path_type=Path), help="Record.")
def main(unseen: Path | None, steps: int, seed: int, out: Path, told: Path) -> None:
    # One thread adds numbers in one order, and a tower this small gains little from a second.
    torch.set_num_threads(1)
    recipe, times = Recipe(steps=steps, seed=seed), {}
    with quiet():
        model, tokenizer = new_offline()
    encoder = Encoder(OFFLINE, OFFLINE, None, model.eval().requires_grad_(False), tokenizer)
    clips = read_clips(*SHIPPED.values())
    texts_NC = text_vectors(encoder, clips.texts)
    started = time.process_time()
    pictures = training_pictures(clips, encoder, recipe)
    times[f"drawing {len(pictures.frame_B):,} pictures"] = time.process_time() - started
    towers = {}
    for name, make in (("ridge", ridge_tower), ("fit", fit_tower)):
        started = time.process_time()
        towers[name] = make(clips, encoder, recipe, pictures, texts_NC)
        times[name] = time.process_time() - started
    sha256 = save(towers["fit"], out)
    measured = record(recipe, times, sha256, table(towers, unseen, clips, encoder))
    click.echo(measured)
    # What is written above the line stays.
    above = told.read_text().split(MEASURED)[0] if told.exists() else "# The image tower of the encoder `offline`\n\n"
    told.write_text(above + MEASURED + "\n\n" + measured)


if __name__ == "__main__":
    main()
