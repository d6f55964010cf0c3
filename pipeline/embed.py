"""Pictures and texts -> CLIP vectors in the store, each picture and each distinct text once."""

import functools
import hashlib

import numpy as np
import torch

from mclip.pipeline.encoder import Encoder
from mclip.pipeline.stage import Result, Summary, run_stage
from mclip.pipeline.store import DONE, FAILED, PENDING, Store, StoreError, open_store

BATCH = 32  # pictures or texts a forward pass: fastest on a CPU, small on a GPU
BLOCK = 256  # items between two marks


def embed(store: Store, encoder: Encoder, *, limit: int | None = None) -> list[Summary]:
    """Fill embeddings/<encoder>/ with a vector per picture and per text; those that are there are skipped.

    StoreError when the store's vectors of this name came from other weights, and when there are no pictures.
    """
    group = f"embeddings/{encoder.name}"
    check_provenance(store, encoder)
    drawn = store.read("pictures/done")
    if not (drawn == DONE).any():
        raise StoreError(f"{store.url}: no picture in this store; run `mclip render {store.url}` first")
    texts = store.strings("texts")
    store.grow(f"{group}/image", len(drawn), width=encoder.width)
    store.grow(f"{group}/image_done", len(drawn))
    store.grow(f"{group}/text", len(texts), width=encoder.width)
    store.grow(f"{group}/text_done", len(texts))
    forget_other_texts(store, encoder.name, texts)
    # A picture that was missing when its block was embedded, and has been drawn since, is no failure any more.
    marks = store.array(f"{group}/image_done")
    state = np.asarray(marks[...])
    marks[...] = np.where((state == FAILED) & (drawn == DONE), PENDING, state)
    return [
        run_stage(
            store, f"embed {encoder.name}", marks=f"{group}/{kind}_done", blocks=blocks(count),
            compute=functools.partial(compute, store.url, encoder), unit=f"{kind}s", limit=limit,
        )
        for kind, count, compute in (("image", len(drawn), embed_pictures), ("text", len(texts), embed_texts))
    ]  # fmt: skip


def forget(store: Store, name: str) -> None:
    """Delete an encoder's vectors and what is recorded of them."""
    described = store.attributes("embed")
    kept = {key: {k: v for k, v in described.get(key, {}).items() if k != name} for key in ("encoders", "texts")}
    if f"embeddings/{name}" in store:
        del store.root[f"embeddings/{name}"]
    store.set_attributes("embed", **kept)


def blocks(count: int) -> list[range]:
    """Ranges of `BLOCK` items."""
    return [range(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]


def check_provenance(store: Store, encoder: Encoder) -> None:
    """Record what the encoder is, or refuse vectors of the same name that another one made."""
    described = store.attributes("embed").get("encoders", {})
    made_with, now = described.get(encoder.name), encoder.describe()
    if made_with is None:
        store.set_attributes("embed", encoders=described | {encoder.name: now})
    elif made_with != now:
        differ = sorted(key for key in now if now[key] != made_with.get(key))
        raise StoreError(
            f"{store.url}: embeddings/{encoder.name} was made with other {', '.join(differ)}: "
            f"was {[made_with.get(key) for key in differ]}, is {[now[key] for key in differ]}; pass --replace"
        )


def forget_other_texts(store: Store, name: str, texts: list[str]) -> None:
    """Mark every text pending when the store's list of texts is no longer a continuation of the embedded one."""
    known = store.attributes("embed").get("texts", {}).get(name, {"count": 0, "sha256": digest([])})
    if digest(texts[: known["count"]]) != known["sha256"]:
        store.array(f"embeddings/{name}/text_done")[...] = PENDING
    lists = store.attributes("embed").get("texts", {})
    store.set_attributes("embed", texts=lists | {name: {"count": len(texts), "sha256": digest(texts)}})


def digest(texts: list[str]) -> str:
    """sha256 over a list of texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def embed_pictures(url: str, encoder: Encoder, block: range) -> Result:
    """Vectors of a block of pictures; a picture that is not drawn yet, or failed, is named."""
    store = open_store(url)
    at = slice(block.start, block.stop)
    drawn = np.asarray(store.array("pictures/done")[at]) == DONE
    rgb = torch.from_numpy(np.asarray(store.array("pictures/rgb")[at]))
    vectors = torch.cat([encoder.encode_pictures(batch) for batch in rgb.split(BATCH)]).numpy()
    vectors[~drawn] = 0
    store.array(f"embeddings/{encoder.name}/image")[at] = vectors
    return Result({block.start + int(item): "not drawn" for item in np.flatnonzero(~drawn)})


def embed_texts(url: str, encoder: Encoder, block: range) -> Result:
    """Vectors of a block of texts."""
    store = open_store(url)
    texts = store.strings("texts")[block.start : block.stop]
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    vectors = torch.cat([encoder.encode_texts(batch) for batch in batches]).numpy()
    store.array(f"embeddings/{encoder.name}/text")[block.start : block.stop] = vectors
    return Result()


def window_vectors(store: Store, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Image vector of every window (W, C), the mean over its pictures, and whether it has one (W,)."""
    group = f"embeddings/{name}"
    if group not in store:
        have = sorted(store.attributes("embed").get("encoders", {}))
        raise StoreError(
            f"{store.url}: no vectors of encoder {name}, only of {have}; run `mclip embed {store.url} --clip ...`"
        )
    vectors, done = store.read(f"{group}/image"), store.read(f"{group}/image_done") == DONE
    window = store.read("pictures/window")[: len(done)][done]
    count = np.bincount(window, minlength=store.array("windows/row").shape[0])
    total = np.zeros((len(count), vectors.shape[1]), np.float32)
    np.add.at(total, window, vectors[done])
    return total / np.maximum(count, 1)[:, None], count > 0


def zero_shot(store: Store, name: str) -> dict[str, float]:
    """How often a label set's joined text finds one of its own windows' pictures first, and among three; and chance."""
    image, has_image = window_vectors(store, name)
    text_of_window = store.read("labelsets/text")[store.read("windows/labelset")[:, 0]]
    keep = has_image & (text_of_window >= 0)
    texts = np.unique(text_of_window[keep])
    if not len(texts):
        return {}
    similarity = unit(store.read(f"embeddings/{name}/text")[texts]) @ unit(image[keep]).T
    ranked = text_of_window[keep][np.argsort(-similarity, axis=1)]
    right = ranked == texts[:, None]
    return {
        "R@1": float(right[:, :1].any(1).mean()),
        "R@3": float(right[:, :3].any(1).mean()),
        "chance": float(right.mean()),
    }


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length one."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
