"""What a trained model is worth on a store: reconstruction, alignment with CLIP, retrieval, recognition, generation."""

# W windows, T frames, J joints, C CLIP width, Q queries

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mclip.pipeline.embed import unit
from mclip.pipeline.encoder import Encoder
from mclip.pipeline.store import SPLITS, Store
from mclip.training.crops import Crops, load_crops
from mclip.training.distribution import diversity, frechet_distance, interval, linear_cka
from mclip.training.generate import latent
from mclip.training.metrics import cosines
from mclip.training.reconstruction import (
    BATCH,
    Quality,
    Reconstruction,
    known_mean,
    middle_batches,
    quality,
    reconstruct,
    reconstructed,
    z_length,
)
from mclip.training.retrieval import (
    Gallery,
    gallery_of,
    hit_rate,
    label_sets,
    protocols,
    recognition,
    recognition_among,
    retrieval,
)
from mclip.training.run import EVALUATION, Run, write_aside
from mclip.training.search import classes_of

# What the trainer, the gallery and the tests take from here.
__all__ = [
    "Gallery", "crops_of", "default_split", "evaluate", "evaluate_once", "hit_rate", "label_sets", "recognition",
    "reconstruct", "reconstructed", "retrieval", "z_length",
]  # fmt: skip


def text_vectors(store: Store, encoder: str) -> dict[str, np.ndarray]:
    """Vector of every text of the store."""
    vectors = store.read(f"embeddings/{encoder}/text")
    return dict(zip(store.strings("texts"), vectors, strict=True))


@torch.inference_mode()
def decoded_back(run: Run, text_QC: np.ndarray) -> np.ndarray:
    """Vectors (Q, C) of the motions, a crop long, that the run decodes from texts' vectors (Q, C)."""
    device = next(run.model.parameters()).device
    parts = latent(run, torch.from_numpy(text_QC)).to(device).split(BATCH)
    return torch.cat([run.model.encode(run.model.decode(part, run.crop)) for part in parts]).cpu().numpy()


def middle_texts(crops: Crops) -> tuple[np.ndarray, np.ndarray]:
    """Text vector (W, C) of the middle crop of every window, and whether it has one (W,)."""
    pairs = [(batch.text_BC, batch.has_text_B) for batch, _ in middle_batches(crops)]
    text_WC, has_W = (torch.cat(column).cpu().numpy() for column in zip(*pairs, strict=True))
    return text_WC, has_W


def told_quality(found: Quality) -> dict[str, float]:
    """Means over the windows."""
    return {each.name: known_mean(getattr(found, each.name)) for each in fields(found)}


def intervals(result: Reconstruction, found: Quality) -> dict[str, list[float]]:
    """95 % confidence intervals of the means over windows."""
    columns = {
        "mpjpe_mm": result.mpjpe_W, "geodesic_deg": result.geodesic_W, "text_cosine": result.text_cosine_W,
        "image_cosine": result.image_cosine_W,
    }  # fmt: skip
    columns |= {each.name: getattr(found, each.name) for each in fields(found)}
    return {name: interval(values) for name, values in columns.items()}


def with_texts(run: Run, z_WC: np.ndarray, text_WC: np.ndarray) -> dict[str, Any]:
    """Figures over windows that have a text: TMR's protocols, alignment, and motions decoded from the texts."""
    if len(text_WC) < 2:
        return {}
    back_WC = decoded_back(run, text_WC)
    real, made = unit(z_WC), unit(back_WC)
    return {
        "protocols": protocols(z_WC, text_WC),
        "alignment": {"cka_text": linear_cka(z_WC, text_WC)},
        # In the space of the model's own encoder, vectors of length one.
        "generation": {
            "fid": frechet_distance(real, made),
            "diversity": diversity(made),
            "source_diversity": diversity(real),
            "text_cosine": float(cosines(back_WC, text_WC).diagonal().mean()),
        },
    }


def evaluate(
    run: Run, store: Store, *, split: str | None, queries: Path | None, encoder: Encoder | None,
    classes: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """All figures of a run on a split of a store (default: val where it has one, else train).

    `queries` is a JSON list of {"text", "clip"} or {"text", "clips"}: phrases with the sequences they should find,
    through the motion encoder and through decoding and encoding back. `classes` as `mclip recognise` takes them. Both
    need the `encoder`.
    """
    split = split or default_split(store)
    crops = crops_of(run, store, split)
    result, found = reconstruct(run.model, crops), quality(run.model, crops, fps=run.fps)
    gallery = gallery_of(store, crops, result.z_WC)
    vectors = text_vectors(store, run.config["encoder"]["name"])
    text_WC, has_W = middle_texts(crops)
    figures: dict[str, Any] = {"split": split, "windows": len(crops), "sequences": len(gallery.names), "step": run.step}
    figures |= {"reconstruction": result.summary(), "quality": told_quality(found)}
    figures |= {"ci95": intervals(result, found), **retrieval(gallery, vectors)}
    figures |= {"recognition": recognition(gallery, vectors), **with_texts(run, result.z_WC[has_W], text_WC[has_W])}
    if classes is not None and encoder is not None:
        names = classes_of(classes)
        class_KC = encoder.encode_texts(names).numpy()
        figures["recognition_classes"] = recognition_among(result.z_WC, class_KC, names, gallery.categories_W)
    if queries is not None and encoder is not None:
        figures["phrases"] = phrases(run, gallery, queries, encoder)
    return figures


def phrases(run: Run, gallery: Gallery, queries: Path, encoder: Encoder) -> dict[str, Any]:
    """How often phrases find the sequences they should, through the motion encoder and decoded and encoded back."""
    asked = json.loads(queries.read_text(encoding="utf-8"))
    expected = [entry.get("clips") or [entry["clip"]] for entry in asked]
    query = encoder.encode_texts([entry["text"] for entry in asked]).numpy()
    return {
        "queries": len(asked),
        "through_encoder": hit_rate(gallery, query, expected),
        "decoded_back": hit_rate(gallery, decoded_back(run, query), expected),
    }


def evaluate_once(
    run: Run, store: Store, *, split: str | None, queries: Path | None, replace: bool, classes: str | None = None
) -> tuple[dict[str, Any], str]:
    """`evaluate` into RUN/evaluation.json, or what lies there already for this run, store and questions; and a line."""
    file = run.folder / EVALUATION
    asked = queries.read_text(encoding="utf-8") if queries else None
    names = classes_of(classes) if classes else None
    identity = json.dumps([run.fingerprint, store.fingerprint(), split, asked, names])
    made_of = hashlib.sha256(identity.encode()).hexdigest()[:16]
    if file.exists() and not replace:
        figures = json.loads(file.read_text(encoding="utf-8"))
        if figures["made_of"] == made_of:
            return figures, f"evaluate: nothing to do, {file} is there"
    encoder = run.load_encoder() if queries or classes else None
    figures = evaluate(run, store, split=split, queries=queries, encoder=encoder, classes=classes)
    figures |= {"made_of": made_of}
    write_aside(file, json.dumps(figures, indent=2) + "\n")
    return figures, f"evaluate: {figures['windows']} windows of split {figures['split']} done, in {file}"


def default_split(store: Store) -> str:
    """`val` where the store has validation windows, else `train`."""
    return "val" if (store.read("windows/split") == SPLITS.index("val")).any() else "train"


def crops_of(run: Run, store: Store, split: str) -> Crops:
    """The crops of a split as the run was trained on them."""
    options = run.config["train"]
    return load_crops(
        store, split=split, encoder=run.config["encoder"]["name"], target=options["target"], short=options["short"],
        device=next(run.model.parameters()).device,
    )  # fmt: skip
