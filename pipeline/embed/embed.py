"""Pictures and texts -> CLIP vectors in the store, each picture and each distinct text once."""

# W windows, C width of the CLIP space

import collections
import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from mclip.pipeline.embed.encoder import Encoder
from mclip.pipeline.embed.vectors import blocks, cut_texts
from mclip.pipeline.store.schema import DONE, FAILED, PENDING, StoreError
from mclip.pipeline.store.stage import Result, Summary, run_stage
from mclip.pipeline.store.store import Store

BLOCK = 256  # items between two marks; a shard of pictures
Drawn = tuple[np.ndarray, np.ndarray]  # pictures (B, size, size, 3), and whether each was drawn


def embed(
    store: Store,
    encoder: Encoder,
    *,
    beside: Sequence[Encoder] = (),
    dtype: str = "float32",
    limit: int | None = None,
    without: Sequence[str] = (),
) -> list[Summary]:
    """Fill embeddings/<encoder>/ with a vector per picture and per text; those that are there are skipped.

    `beside` is the same encoder on other devices, which take their share of the pictures; `dtype` is float32 or
    float16. StoreError when the store's vectors of this name came from other weights or
    preprocessing, and when there are no pictures or no texts, unless `without` says so.
    """
    group = f"embeddings/{encoder.name}"
    is_drawn = "pictures/done" in store
    drawn, texts = store.read("pictures/done") if is_drawn else np.zeros(0, np.uint8), store.strings("texts")
    if not (drawn == DONE).any() and "pictures" not in without:
        raise StoreError(
            f"{store.url}: no picture in this store; run `mclip render {store.url}` first, or pass --without pictures"
        )
    if not texts and "texts" not in without:
        raise StoreError(f"{store.url}: no text in this store; give `mclip prepare` --labels, or pass --without texts")
    check_provenance(store, encoder, dtype)  # not before: a refused embed leaves nothing
    for kind, count in (("image", len(drawn)), ("text", len(texts))):
        store.grow(f"{group}/{kind}", count, dtype=dtype, width=encoder.width)
        store.grow(f"{group}/{kind}_done", count)
    store.grow(f"{group}/text_cut", len(texts))
    forget_other_texts(store, encoder.name, texts)
    # A picture that was missing when its block was embedded, and has been drawn since, is no failure any more.
    marks = store.array(f"{group}/image_done")
    state = np.asarray(marks[...])
    marks[...] = np.where((state == FAILED) & (drawn == DONE), PENDING, state)
    borrow_pictures(store, encoder.name)
    state = np.asarray(marks[...])
    everywhere = [encoder, *beside]
    shards = blocks(len(drawn), BLOCK * len(everywhere))
    pending = [block for block in shards if (state[block.start : block.stop] == PENDING).any()]
    stage = functools.partial(run_stage, store, f"embed {encoder.name}", limit=limit)
    with contextlib.closing(read_ahead(store, pending)) as pictures:
        compute = functools.partial(embed_pictures, store, everywhere, pictures)
        images = stage(marks=f"{group}/image_done", blocks=pending, compute=compute, unit="images")
    compute = functools.partial(embed_texts, store, encoder, texts)
    done = stage(marks=f"{group}/text_done", blocks=blocks(len(texts), BLOCK), compute=compute, unit="texts")
    known = store.attributes("embed")["texts"]
    known[encoder.name]["cut"] = cut_texts(store, encoder.name)
    store.set_attributes("embed", texts=known)
    return [images, done]


def forget(store: Store, name: str) -> None:
    """Delete an encoder's vectors and what is recorded of them."""
    described = store.attributes("embed")
    kept = {key: {k: v for k, v in described.get(key, {}).items() if k != name} for key in ("encoders", "texts")}
    store.delete([f"embeddings/{name}"], {**store.root.attrs, "embed": described | kept})


def check_provenance(store: Store, encoder: Encoder, dtype: str) -> None:
    """Record what the encoder is, or refuse vectors of the same name that another one made."""
    described = store.encoders
    made_with, now = described.get(encoder.name), encoder.describe() | {"dtype": dtype}
    if made_with is None:
        store.set_attributes("embed", encoders=described | {encoder.name: now})
        return
    differ = differences(made_with, now)
    if differ:
        raise StoreError(
            f"{store.url}: embeddings/{encoder.name} was made with other {', '.join(differ)}: "
            f"was {[made_with.get(key) for key in differ]}, is {[now[key] for key in differ]}; pass --replace"
        )


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """In what two descriptions of encoders differ; weights may have been moved, their fingerprint tells."""
    return sorted(key for key in one | other if key != "pretrained" and one.get(key) != other.get(key))


def forget_other_texts(store: Store, name: str, texts: list[str]) -> None:
    """Mark every text pending when the store's list of texts is no longer a continuation of the embedded one."""
    lists = store.attributes("embed").get("texts", {})
    known = lists.get(name, {"count": 0, "sha256": digest([])})
    if digest(texts[: known["count"]]) != known["sha256"]:
        store.array(f"embeddings/{name}/text_done")[...] = PENDING
    now = {"count": len(texts), "sha256": digest(texts)}
    store.set_attributes("embed", texts=lists | {name: now})


def digest(texts: list[str]) -> str:
    """sha256 over a list of texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def borrow_pictures(store: Store, name: str) -> None:
    """Copy the image vectors of another encoder of the store that differs from this one in its templates alone."""
    described = store.attributes("embed")["encoders"]
    for other in described:
        if differences(described[name], described[other]) != ["templates"]:
            continue
        there, here = (store.array(f"embeddings/{each}/image") for each in (other, name))
        marks = store.array(f"embeddings/{name}/image_done")
        state = np.asarray(marks[...])
        done = store.read(f"embeddings/{other}/image_done")[: len(state)] == DONE
        taken = np.pad(done, (0, len(state) - len(done))) & (state == PENDING)
        for block in blocks(len(done), there.chunks[0]):
            at = slice(block.start, block.stop)
            if taken[at].any():
                here[at] = np.where(taken[at, None], there[at], here[at])
        marks[...] = np.where(taken, DONE, state)


def cosine_to_float32(store: Store, encoder: Encoder, *, most: int = 32) -> float:
    """The least cosine between the encoder's vectors in its precision and in float32: first pictures, first texts."""
    exact, texts = dataclasses.replace(encoder, precision="float32"), store.strings("texts")[:most]
    pairs = [[each.encode_texts(texts) for each in (encoder, exact)]] if texts else []
    if "pictures/done" in store:
        rgb, drawn = read_pictures(store, range(min(most, len(store.read("pictures/done")))))
        pairs.append([each.encode_pictures(torch.from_numpy(rgb[drawn])) for each in (encoder, exact)])
    return min(float(F.cosine_similarity(ours, theirs).min()) for ours, theirs in pairs if len(ours))


def read_ahead(store: Store, pending: Sequence[range]) -> Generator[Drawn, None, None]:
    """The pictures of each block, read while those of the block before are encoded."""
    with ThreadPoolExecutor(1) as pool:
        read = functools.partial(read_pictures, store)
        ahead = collections.deque(pool.submit(read, block) for block in pending[:1])
        for following in range(1, len(pending) + 1):
            ahead.extend(pool.submit(read, block) for block in pending[following : following + 1])
            yield ahead.popleft().result()


def read_pictures(store: Store, block: range) -> Drawn:
    """A block's pictures and whether each was drawn."""
    at = slice(block.start, block.stop)
    return store.read("pictures/rgb", at), store.read("pictures/done", at) == DONE


def embed_pictures(store: Store, encoders: Sequence[Encoder], pictures: Iterator[Drawn], block: range) -> Result:
    """Vectors of the block that comes next; a picture that is not drawn yet, or failed, is named."""
    rgb, drawn = next(pictures)
    shares = torch.from_numpy(rgb).split(-(-len(rgb) // len(encoders)))
    # A GPU is not waited for before all of them have their share.
    found = [encoder.vectors_there(share) for encoder, share in zip(encoders, shares, strict=False)]
    vectors = torch.cat([each.cpu() for each in found]).numpy()
    vectors[~drawn] = 0
    store.array(f"embeddings/{encoders[0].name}/image")[block.start : block.stop] = vectors
    return Result({block.start + int(item): "not drawn" for item in np.flatnonzero(~drawn)})


def embed_texts(store: Store, encoder: Encoder, texts: list[str], block: range) -> Result:
    """Vectors of a block of texts, and which of them were cut."""
    own = texts[block.start : block.stop]
    store.array(f"embeddings/{encoder.name}/text")[block.start : block.stop] = encoder.encode_texts(own).numpy()
    return Result(columns={f"embeddings/{encoder.name}/text_cut": np.array(encoder.cut(own), np.uint8)})
