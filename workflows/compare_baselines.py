"""A run on validation clips, beside what costs nothing: a nearest neighbour, random weights, blind choice.

    python workflows/compare_baselines.py RUN STORE

Nearest neighbour: a crop's joints, pelvis at the origin and facing front in its first frame, are pooled over time to
mean and standard deviation, and standardised over every crop of the training split. Its reconstruction is the nearest
training crop, turned as the crop faces; a label or category scores minus the distance to the nearest crop that has it.
`closest training crop` is chosen by the error itself: no motion that was seen is nearer. `mean pose` does not move.
Random weights go the run's own way. They and blind choice are means over seeds.
"""

# B batch, Q validation crops (one a window), N training crops, T frames, J joints, P pooled numbers, L names, W windows

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mclip.pipeline.draw.camera import facing
from mclip.pipeline.embed.vectors import vectors_by_text
from mclip.pipeline.files.atomic import write_aside
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.skeleton import forward_kinematics
from mclip.pipeline.prepare.prepare import matches
from mclip.pipeline.store.store import Store, open_store
from mclip.training.data.crops import Batch, Crops, crops_of, default_split
from mclip.training.evaluate.recognition import recognition_by
from mclip.training.measure.metrics import best_of_groups, cosines, movement_mm
from mclip.training.measure.reconstruction import BATCH, middle_batches, reconstruct, rotmats
from mclip.training.measure.retrieval import Gallery, gallery_of, label_sets, recalls, retrieval_by
from mclip.training.measure.statistics import figures_of, interval
from mclip.training.model.network import MotionClip
from mclip.training.model.run import Run, load_run

SEEDS, RANKINGS = 5, 200  # of random weights, and of blind choice
COLUMNS = {
    "MPJPE mm": "mpjpe_mm",
    "95 %": "mpjpe_ci95",
    "moves": "movement_ratio",
    "text -> motion R@1": "t2m_R@1",
    "R@3": "t2m_R@3",
    "MedR": "t2m_MedR",
    "motion -> text R@1": "m2t_R@1",
    "R@3 ": "m2t_R@3",
    "MedR ": "m2t_MedR",
    "category top-1": "top1",
    "top-5": "top5",
    "mean over categories": "top1_norm",
}

Figures = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """Validation windows, and the labels and categories that a method has to rank for each."""

    crops: Crops
    gallery: Gallery  # its vectors are not used
    categories: list[str]  # all of the store, whether or not a validation window has them

    def measure(self, score_LW: np.ndarray, score_KW: np.ndarray) -> Figures:
        """Retrieval by the scores of labels with windows, recognition by those of categories."""
        score_LS = best_of_groups(score_LW, self.gallery.sequence_W, len(self.gallery.names))
        found = {way: figures_of(recalls(ranks)) for way, ranks in retrieval_by(self.gallery, score_LS).items()}
        figures = {f"t2m_{name}": value for name, value in found["text_to_motion"].items()}
        figures |= {f"m2t_{name}": value for name, value in found["motion_to_text"].items()}
        return figures | figures_of(recognition_by(score_KW.T, self.categories, self.gallery.categories_W))


def asked_of(run: Run, store: Store, split: str, only: Sequence[str]) -> Asked:
    """The windows of a split, or those whose file `only` names. ValueError when there is none."""
    crops = crops_of(run, store, split)
    names, sequence = store.strings("sequences/name"), store.read("windows/sequence")
    if only:
        mine = [names[sequence[window]] for window in crops.window.tolist()]
        crops = part(crops, torch.tensor([any(matches(name, word) for word in only) for name in mine]))
    if not len(crops):
        raise ValueError(f"{store.url}: no window of split {split} in a file called {' or '.join(only)}")
    categories = sorted(set().union(*label_sets(store, "categories", store.strings("texts"))))
    return Asked(crops, gallery_of(store, crops, np.zeros((len(crops), 1))), categories)


def part(crops: Crops, keep_W: Bool[Tensor, " W"]) -> Crops:
    """Some of the windows."""
    columns = ("window", "row", "frames", "own_frames", "labelset", "image", "has_image")
    return replace(crops, **{name: getattr(crops, name)[keep_W] for name in columns})


def facing_joints(batch: Batch) -> Float[Tensor, "B T 24 3"]:
    """Joints of crops in metres, pelvis at the origin, turned about the vertical so that the first frame faces -y."""
    rotmat = rotmats(batch.motion_BTRD, batch)
    joints = forward_kinematics(rotmat, load_body().joints_J3)[1]
    x, y = facing(rotmat[:, 0, 0]).unbind(-1)
    length = torch.hypot(x, y).clamp_min(1e-9)
    cosine, sine = -y / length, -x / length
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    turn_B33 = torch.stack((cosine, -sine, zero, sine, cosine, zero, zero, zero, one), dim=-1).view(-1, 3, 3)
    return torch.einsum("bxy,btjy->btjx", turn_B33, joints - joints[:, :, :1])


def pooled(joints_BTJ3: Float[Tensor, "B T 24 3"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "B P"]:
    """Mean and standard deviation over the frames that are no padding, side by side."""
    weight = (mask_BT / mask_BT.sum(1, keepdim=True))[..., None, None]
    mean = (joints_BTJ3 * weight).sum(1)
    deviation = ((joints_BTJ3 - mean[:, None]).square() * weight).sum(1).sqrt()
    return torch.cat((mean, deviation), dim=1).flatten(1)


def every_crop(crops: Crops) -> tuple[Int64[Tensor, " N"], Int64[Tensor, " N"]]:
    """Window and shift of every crop that training may see."""
    shifts = (crops.frames - crops.crop).clamp_min(0) + 1
    item_N = torch.repeat_interleave(torch.arange(len(crops)), shifts)
    return item_N, torch.arange(len(item_N)) - (shifts.cumsum(0) - shifts)[item_N]


def batches(crops: Crops, item_N: Int64[Tensor, " N"], shift_N: Int64[Tensor, " N"]) -> Iterator[Batch]:
    """The given crops, in batches."""
    for item_B, shift_B in zip(item_N.split(BATCH), shift_N.split(BATCH), strict=True):
        yield crops.gather(item_B, shift_B, torch.zeros(len(item_B)))


def apart_mm(
    found: Float[Tensor, "*batch T 24 3"], wanted: Float[Tensor, "*batch T 24 3"], mask: Bool[Tensor, "*batch T"]
) -> Float[Tensor, "*batch"]:
    """Mean distance of joints over the frames of the mask, in millimetres."""
    distance_BT = 1000 * (found - wanted).norm(dim=-1).mean(-1)
    return (distance_BT * mask).sum(-1) / mask.sum(-1)


@dataclass(frozen=True)
class Seen:
    """Every training crop as validation crops see it."""

    distance_QN: Float[Tensor, "Q N"]  # of pooled joints
    labelset_N: np.ndarray
    nearest_QTJ3: Float[Tensor, "Q T 24 3"]
    closest_mm_Q: Float[Tensor, " Q"]
    mean_J3: Float[Tensor, "24 3"]

    def scores(self, names: Sequence[str], sets: Sequence[set[str]]) -> np.ndarray:
        """Minus the distance (L, Q) to the nearest training crop that has each name; -inf where none has."""
        score_LQ = np.full((len(names), len(self.distance_QN)), -np.inf)
        for row, name in enumerate(names):
            has_N = np.array([name in each for each in sets])[self.labelset_N]
            if has_N.any():
                score_LQ[row] = -self.distance_QN[:, has_N].amin(1).numpy()
        return score_LQ


def look(
    train: Crops, joints_QTJ3: Float[Tensor, "Q T 24 3"], mask_QT: Bool[Tensor, "Q T"], own_QT: Bool[Tensor, "Q T"]
) -> Seen:
    """Look every training crop up, a batch at a time; errors are over the frames that the asked have of their own."""
    item_N, shift_N = every_crop(train)
    closest, features, total = torch.full((len(joints_QTJ3),), torch.inf), [], torch.zeros(24, 3)
    for batch in batches(train, item_N, shift_N):
        joints = facing_joints(batch)
        features.append(pooled(joints, batch.mask_BT))
        total += features[-1][:, :72].sum(0).view(24, 3)
        for each in joints:
            closest = torch.minimum(closest, apart_mm(each.expand_as(joints_QTJ3), joints_QTJ3, own_QT))
    known_NP = torch.cat(features)
    mean, deviation = known_NP.mean(0), known_NP.std(0).clamp_min(1e-6)
    distance_QN = torch.cdist((pooled(joints_QTJ3, mask_QT) - mean) / deviation, (known_NP - mean) / deviation)
    best_Q = distance_QN.argmin(1)
    nearest = torch.cat([facing_joints(batch) for batch in batches(train, item_N[best_Q], shift_N[best_Q])])
    labelset_N = train.labelset[item_N, shift_N].numpy()
    return Seen(distance_QN, labelset_N, nearest, closest, total / len(known_NP))


def neighbours(train: Crops, asked: Asked, sets: dict[str, list[set[str]]]) -> dict[str, Figures]:
    """Figures of the nearest neighbour, of the closest training crop and of the mean pose."""
    pairs = list(middle_batches(asked.crops))
    joints = torch.cat([facing_joints(batch) for batch, _ in pairs])
    mask, own = torch.cat([batch.mask_BT for batch, _ in pairs]), torch.cat([own for _, own in pairs])
    own = own & mask
    seen = look(train, joints, mask, own)
    ranked = asked.measure(
        seen.scores(asked.gallery.all_labels, sets["labels"]), seen.scores(asked.categories, sets["categories"])
    )
    moves = float(movement_mm(seen.nearest_QTJ3).sum() / movement_mm(joints).sum())
    return {
        "nearest neighbour": errors(apart_mm(seen.nearest_QTJ3, joints, own)) | ranked | {"movement_ratio": moves},
        "closest training crop": errors(seen.closest_mm_Q),
        "mean pose": errors(apart_mm(seen.mean_J3.expand_as(joints), joints, own)) | {"movement_ratio": 0.0},
    }


def errors(mpjpe_mm_Q: Tensor | np.ndarray) -> Figures:
    """Mean error and its 95 % interval over windows."""
    values = np.asarray(mpjpe_mm_Q)
    return {"mpjpe_mm": float(values.mean()), "mpjpe_ci95": interval(values)}


def of_model(model: MotionClip, asked: Asked, vectors: dict[str, np.ndarray]) -> Figures:
    """Figures of an auto-encoder: names are ranked by the cosine of z and their text."""
    result = reconstruct(model, asked.crops)
    scores = [
        cosines(np.stack([vectors[name] for name in names]), result.z_WC)
        for names in (asked.gallery.all_labels, asked.categories)
    ]
    return errors(result.mpjpe_W) | asked.measure(*scores) | {"movement_ratio": result.moved}


def random_weights(run: Run, asked: Asked, vectors: dict[str, np.ndarray]) -> Figures:
    """`of_model` of the run's own architecture before any training, over seeds."""
    found = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        found.append(of_model(MotionClip(run.model.config).eval(), asked, vectors))
    return mean_of(found)


def blind(asked: Asked) -> Figures:
    """Names ranked by random numbers, over many rankings."""
    generator = np.random.default_rng(0)
    shapes = [(len(names), len(asked.crops)) for names in (asked.gallery.all_labels, asked.categories)]
    return mean_of([asked.measure(*(generator.random(shape) for shape in shapes)) for _ in range(RANKINGS)])


def mean_of(found: Sequence[Figures]) -> Figures:
    """Mean of every figure."""
    return {name: np.mean([each[name] for each in found], axis=0).tolist() for name in found[0]}


def compare(run: Run, store: Store, *, split: str | None = None, only: Sequence[str] = ()) -> dict[str, Figures]:
    """Figures by method, the run's first."""
    asked = asked_of(run, store, split or default_split(store), only)
    vectors = vectors_by_text(store, run.config["encoder"]["name"])
    sets = {kind: label_sets(store, kind, store.strings("texts")) for kind in ("labels", "categories")}
    return {
        f"run, step {run.step:,}": of_model(run.model, asked, vectors),
        **neighbours(crops_of(run, store, "train"), asked, sets),
        "random weights": random_weights(run, asked, vectors),
        "blind choice": blind(asked),
    }


def told(value: Any) -> str:
    """A figure in a table's cell."""
    if isinstance(value, list):
        return " to ".join(f"{each:.0f}" for each in value)
    return "" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(found: dict[str, Figures]) -> str:
    """The figures in Markdown."""
    rows = [["", *(name.strip() for name in COLUMNS)], ["---"] * (1 + len(COLUMNS))]
    rows += [[method, *(told(figures.get(key)) for key in COLUMNS.values())] for method, figures in found.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(("train", "val", "test")), help="[default: val if there is one, else train]")
@click.option("--only", multiple=True, help="Only files whose path holds this word, or matches this pattern.")
def main(run: Path, store: Path, split: str | None, only: tuple[str, ...]) -> None:
    """Print the table of RUN on STORE; without --only, write it to RUN/baselines.json too."""
    opened, data = load_run(run), open_store(store)
    found = compare(opened, data, split=split, only=only)
    if not only:
        write_aside(run / "baselines.json", json.dumps(found, indent=1) + "\n")
    click.echo(table(found))


if __name__ == "__main__":
    main()
