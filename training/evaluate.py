"""What a trained model is worth on a store: reconstruction, alignment with CLIP, retrieval, recognition."""

# W windows, T frames, J joints, C CLIP width, Q queries

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from mclip.pipeline.body import load_body
from mclip.pipeline.embed import unit
from mclip.pipeline.encoder import Encoder
from mclip.pipeline.rotations import rot6d_to_matrix
from mclip.pipeline.skeleton import forward_kinematics
from mclip.pipeline.store import SPLITS, Store
from mclip.training.crops import Batch, Crops, load_crops
from mclip.training.metrics import (
    best_of_groups,
    best_ranks,
    cosines,
    geodesic_deg,
    movement_mm,
    mpjpe_mm,
    recall,
)
from mclip.training.model import MotionClip
from mclip.training.run import Run, write_aside

BATCH = 64


@dataclass(frozen=True)
class Reconstruction:
    """Windows through the auto-encoder: their vectors and how well they came back."""

    z_WC: np.ndarray
    mpjpe_W: np.ndarray
    geodesic_W: np.ndarray
    text_cosine_W: np.ndarray  # NaN where there is no text
    image_cosine_W: np.ndarray  # NaN where there is no picture
    moved: float  # decoded movement over the source's: near zero is the "static motion" failure

    def summary(self) -> dict[str, float]:
        """Means over the windows."""
        return {
            "mpjpe_mm": float(self.mpjpe_W.mean()),
            "geodesic_deg": float(self.geodesic_W.mean()),
            "text_cosine": float(np.nanmean(self.text_cosine_W)) if len(self.text_cosine_W) else float("nan"),
            "image_cosine": float(np.nanmean(self.image_cosine_W)) if len(self.image_cosine_W) else float("nan"),
            "movement_ratio": self.moved,
            "z_spread": float(unit(self.z_WC).std(0).mean() * self.z_WC.shape[1] ** 0.5),
        }


def middle_batches(crops: Crops) -> Iterator[Batch]:
    """The middle crop of every window, in order."""
    for item_B in torch.arange(len(crops), device=crops.row.device).split(BATCH):
        yield crops.middle(item_B)


@torch.inference_mode()
def reconstruct(model: MotionClip, crops: Crops) -> Reconstruction:
    """Encode and decode the middle crop of every window."""
    was_training = model.training
    model.eval()
    joints_J3 = load_body().joints_J3.to(crops.row.device)
    columns: list[tuple[torch.Tensor, ...]] = []
    moved = torch.zeros(2, device=crops.row.device)
    for batch in middle_batches(crops):
        z_BC = model.encode(batch.motion_BTRD, batch.mask_BT)
        decoded = model.decode(z_BC, crops.crop, batch.mask_BT)
        pair = [rotmats(motion, batch) for motion in (decoded, batch.motion_BTRD)]
        frames = batch.mask_BT.sum(1)
        mpjpe = (mpjpe_mm(*pair, joints_J3) * batch.mask_BT).sum(1) / frames
        angle = (geodesic_deg(*pair) * batch.mask_BT).sum(1) / frames
        text = F.cosine_similarity(z_BC, batch.text_BC).where(batch.has_text_B, torch.nan)
        image = F.cosine_similarity(z_BC, batch.image_BC).where(batch.has_image_B, torch.nan)
        moved += torch.stack([movement_mm(forward_kinematics(each, joints_J3)[1]).sum() for each in pair])
        columns.append((z_BC, mpjpe, angle, text, image))
    model.train(was_training)
    stacked = [torch.cat(column).float().cpu().numpy() for column in zip(*columns, strict=True)]
    return Reconstruction(*stacked, moved=float(moved[0] / moved[1].clamp_min(1e-9)))


@torch.inference_mode()
def reconstructed(model: MotionClip, crops: Crops, item: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The middle crop of one window and its reconstruction, both (T, 25, 6) without padding."""
    batch = crops.middle(torch.tensor([item]))
    decoded = model.decode(model.encode(batch.motion_BTRD, batch.mask_BT), crops.crop, batch.mask_BT)
    return batch.motion_BTRD[0][batch.mask_BT[0]], decoded[0][batch.mask_BT[0]]


@torch.inference_mode()
def z_length(model: MotionClip, crops: Crops, most: int = 512) -> float:
    """Mean length of z over the middle crops of up to `most` windows, evenly chosen."""
    was_training = model.training
    model.eval()
    items = torch.linspace(0, len(crops) - 1, min(most, len(crops)), device=crops.row.device).long()
    batches = (crops.middle(item_B) for item_B in items.split(BATCH))
    length = torch.cat([model.encode(batch.motion_BTRD, batch.mask_BT).norm(dim=-1) for batch in batches])
    model.train(was_training)
    return float(length.mean())


def rotmats(motion: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Joint rotations (B, T, 24, 3, 3) of a motion; padding repeats the first frame, so that it neither moves nor is NaN."""
    joints = torch.where(batch.mask_BT[..., None, None], motion, motion[:, :1])[:, :, :24]
    return rot6d_to_matrix(joints.float())


@dataclass(frozen=True)
class Gallery:
    """The motions that a query may find: windows with the sequence each belongs to, and what is known of sequences."""

    z_WC: np.ndarray
    sequence_W: np.ndarray  # numbered 0.. among the sequences here
    names: list[str]
    labels: list[set[str]]  # of each sequence
    categories_W: list[set[str]]  # of each window's middle crop

    def score(self, query_QC: np.ndarray) -> np.ndarray:
        """(Q, sequences): the cosine of each query with the best window of every sequence."""
        return best_of_groups(cosines(query_QC, self.z_WC), self.sequence_W, len(self.names))


def gallery_of(store: Store, crops: Crops, z_WC: np.ndarray) -> Gallery:
    """The store's side of a retrieval, for the windows of `crops`."""
    texts, all_names = store.strings("texts"), store.strings("sequences/name")
    window = crops.window.cpu().numpy()
    sequences, number = np.unique(store.read("windows/sequence")[window], return_inverse=True)
    sets = {name: label_sets(store, name, texts) for name in ("labels", "categories")}
    labels: list[set[str]] = [set() for _ in sequences]
    for item, found in zip(number, crops.labelset.cpu().numpy(), strict=True):
        labels[item].update(*(sets["labels"][which] for which in np.unique(found)))
    middle = ((crops.frames - crops.crop).clamp_min(0) // 2).cpu().numpy()
    at_middle = crops.labelset.cpu().numpy()[np.arange(len(window)), middle]
    categories = [sets["categories"][which] for which in at_middle]
    return Gallery(z_WC, number, [all_names[s] for s in sequences], labels, categories)


def label_sets(store: Store, name: str, texts: Sequence[str]) -> list[set[str]]:
    """The labels or categories of every label set, as strings."""
    flat, offset = store.read(f"labelsets/{name}"), store.read(f"labelsets/{name}_offset")
    return [{texts[i] for i in flat[a:b]} for a, b in zip(offset[:-1], offset[1:], strict=True)]


def text_vectors(store: Store, encoder: str) -> dict[str, np.ndarray]:
    """Vector of every text of the store."""
    vectors = store.read(f"embeddings/{encoder}/text")
    return dict(zip(store.strings("texts"), vectors, strict=True))


def retrieval(gallery: Gallery, vectors: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Text -> motion and motion -> text recall over the labels. A text is right for every sequence that carries it."""
    labels = sorted(set().union(*gallery.labels) - {""})
    if not labels:
        return {}
    similarity = gallery.score(np.stack([vectors[label] for label in labels]))
    relevant = np.array([[label in carried for carried in gallery.labels] for label in labels])
    return {
        "text_to_motion": recall(best_ranks(similarity, relevant)) | {"queries": len(labels)},
        "motion_to_text": recall(best_ranks(similarity.T, relevant.T)) | {"queries": len(gallery.names)},
    }


def recognition(gallery: Gallery, vectors: dict[str, np.ndarray]) -> dict[str, float]:
    """Top-1 and top-5 over the bare names of the store's categories; any true category of the crop counts (paper, 4.3)."""
    classes = sorted(set().union(*gallery.categories_W))
    if not classes:
        return {}
    similarity = cosines(gallery.z_WC, np.stack([vectors[name] for name in classes]))
    relevant = np.array([[name in true for name in classes] for true in gallery.categories_W])
    found = recall(best_ranks(similarity, relevant), among=(1, 5))
    return {"top1": found["R@1"], "top5": found["R@5"], "classes": len(classes), "chance": float(relevant.mean())}


@torch.inference_mode()
def decoded_back(model: MotionClip, vectors_QC: np.ndarray, frames: int) -> np.ndarray:
    """Vectors (Q, C) of the motions that the model decodes from vectors (Q, C)."""
    device = next(model.parameters()).device
    motion = model.decode(torch.from_numpy(vectors_QC).to(device), frames)
    return model.encode(motion).cpu().numpy()


def hit_rate(gallery: Gallery, query_QC: np.ndarray, expected: Sequence[Sequence[str]]) -> dict[str, float]:
    """Recall of queries whose right sequences are known by a part of their name."""
    relevant = np.array(
        [[any(f"/{clip}/" in f"/{name}" for clip in clips) for name in gallery.names] for clips in expected]
    )
    return recall(best_ranks(gallery.score(query_QC), relevant), among=(1, 3))


def evaluate(
    run: Run, store: Store, *, split: str | None, queries: Path | None, encoder: Encoder | None
) -> dict[str, Any]:
    """All figures of a run on a split of a store (default: val where it has one, else train).

    `queries` is a JSON list of {"text", "clip"} or {"text", "clips"}: phrases with the sequences they should find,
    through the motion encoder and through decoding and encoding back; it needs the `encoder`.
    """
    split = split or default_split(store)
    options = run.config["train"]
    crops = load_crops(
        store, split=split, encoder=run.config["encoder"]["name"], target=options["target"],
        device=next(run.model.parameters()).device,
    )  # fmt: skip
    result = reconstruct(run.model, crops)
    gallery = gallery_of(store, crops, result.z_WC)
    vectors = text_vectors(store, run.config["encoder"]["name"])
    figures: dict[str, Any] = {"split": split, "windows": len(crops), "sequences": len(gallery.names), "step": run.step}
    figures |= {"reconstruction": result.summary(), **retrieval(gallery, vectors)}
    figures["recognition"] = recognition(gallery, vectors)
    if queries is not None and encoder is not None:
        asked = json.loads(queries.read_text(encoding="utf-8"))
        expected = [entry.get("clips") or [entry["clip"]] for entry in asked]
        query = encoder.encode_texts([entry["text"] for entry in asked]).numpy()
        figures["phrases"] = {
            "queries": len(asked),
            "through_encoder": hit_rate(gallery, query, expected),
            "decoded_back": hit_rate(gallery, decoded_back(run.model, query, run.crop), expected),
        }
    return figures


def evaluate_once(
    run: Run, store: Store, *, split: str | None, queries: Path | None, replace: bool
) -> tuple[dict[str, Any], str]:
    """`evaluate` into RUN/evaluation.json, or what lies there already for this run, store and queries; and a line."""
    file = run.folder / "evaluation.json"
    asked = queries.read_text(encoding="utf-8") if queries else None
    identity = json.dumps([run.fingerprint, store.fingerprint(), split, asked])
    made_of = hashlib.sha256(identity.encode()).hexdigest()[:16]
    if file.exists() and not replace:
        figures = json.loads(file.read_text(encoding="utf-8"))
        if figures["made_of"] == made_of:
            return figures, f"evaluate: nothing to do, {file} is there"
    encoder = run.load_encoder() if queries else None
    figures = evaluate(run, store, split=split, queries=queries, encoder=encoder) | {"made_of": made_of}
    write_aside(file, json.dumps(figures, indent=2) + "\n")
    return figures, f"evaluate: {figures['windows']} windows of split {figures['split']} done, in {file}"


def default_split(store: Store) -> str:
    """`val` where the store has validation windows, else `train`."""
    return "val" if (store.read("windows/split") == SPLITS.index("val")).any() else "train"
