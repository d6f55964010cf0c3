"""The cached CLIP vectors of windows and texts, read back."""

import numpy as np
import torch

from mclip.pipeline.store.middle import middle_labelsets
from mclip.pipeline.store.schema import DONE, StoreError
from mclip.pipeline.store.store import Store

PART = 256  # texts that are compared at once
MOST_TEXTS = 2000  # that the zero-shot check asks for


def blocks(count: int, size: int) -> list[range]:
    """Ranges of `size` items."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def window_vectors(store: Store, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Image vector of every window (W, C), the mean over its pictures, and whether it has one (W,)."""
    group = f"embeddings/{name}"
    if group not in store:
        have = sorted(each for each in store.encoders if f"embeddings/{each}" in store)
        raise StoreError(
            f"{store.url}: no vectors of encoder {name}, only of {have}; run `mclip embed {store.url} --clip ...`"
        )
    done, vectors = store.read(f"{group}/image_done") == DONE, store.array(f"{group}/image")
    window = store.read("pictures/window")[: len(done)] if len(done) else np.zeros(0, np.int64)
    count = np.bincount(window[done], minlength=store.array("windows/row").shape[0])
    total = np.zeros((len(count), vectors.shape[1]), np.float32)
    for block in blocks(len(done), vectors.chunks[0]):
        at = slice(block.start, block.stop)
        np.add.at(total, window[at][done[at]], np.asarray(vectors[at], np.float32)[done[at]])
    return total / np.maximum(count, 1).astype(np.float32)[:, None], count > 0


def text_vectors(store: Store, name: str) -> np.ndarray:
    """Text vector of every text (N, C), in float32."""
    return store.read(f"embeddings/{name}/text").astype(np.float32)


def cut_texts(store: Store, name: str) -> int:
    """How many texts are longer than the encoder reads."""
    return int(store.read(f"embeddings/{name}/text_cut").sum())


def zero_shot(store: Store, name: str) -> dict[str, float]:
    """How often the joined text of windows' middles finds a picture of theirs first, and among three; and by chance.

    Of many texts, `MOST_TEXTS` are asked, evenly spaced.
    """
    image_WC, has_image = window_vectors(store, name)
    text_W = store.read("labelsets/text")[middle_labelsets(store)]
    keep = has_image & (text_W >= 0)
    image_WC, text_W = unit(image_WC[keep]), text_W[keep]
    texts, windows = np.unique(text_W, return_counts=True)
    asked = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), MOST_TEXTS)).astype(int))
    if not len(asked):
        return {}
    query_NC = unit(text_vectors(store, name)[texts[asked]])
    parts = np.array_split(query_NC, -(-len(asked) // PART))  # of thousands of windows, so that the product is small
    right = text_W[np.concatenate([nearest(part, image_WC, count=3) for part in parts])] == texts[asked, None]
    return {
        "R@1": float(right[:, 0].mean()),
        "R@3": float(right.any(1).mean()),
        "chance": float(windows[asked].mean() / len(text_W)),
    }


def nearest(query_NC: np.ndarray, among_WC: np.ndarray, *, count: int) -> np.ndarray:
    """Numbers (N, count) of the nearest unit vectors, best first."""
    best = torch.from_numpy(query_NC) @ torch.from_numpy(among_WC).T
    return best.topk(min(count, len(among_WC)), dim=1).indices.numpy()


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length one."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def vectors_by_text(store: Store, encoder: str) -> dict[str, np.ndarray]:
    """Vector of every text of the store."""
    vectors = store.read(f"embeddings/{encoder}/text").astype(np.float32)
    return dict(zip(store.strings("texts"), vectors, strict=True))
