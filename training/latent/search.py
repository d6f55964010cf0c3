"""Nearest motions of a store, and nearest classes of a motion, by the cosine of vectors."""

# W windows, T frames, C latent width, K classes, N chunks of a motion

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mclip.pipeline.embed.encoder import Encoder
from mclip.pipeline.embed.vectors import unit
from mclip.pipeline.forms.asked import NOTHING, Asked
from mclip.pipeline.machine.terminal import table, tracked
from mclip.pipeline.store.lock import one_writer
from mclip.pipeline.store.middle import middle_shift, middle_texts
from mclip.pipeline.store.schema import StoreError
from mclip.pipeline.store.store import Store
from mclip.training.data.clips import seconds_of
from mclip.training.data.rows import from_origin, rows_as_trained, rows_of_motion
from mclip.training.latent.space import continued_rows, vectors_of
from mclip.training.model.run import Run

BATCH = 64


@dataclass(frozen=True)
class Hit:
    """A place in a store that answers a query: the middle crop of a window, which is what was compared."""

    score: float  # cosine
    clip: str
    from_s: float  # seconds into the clip
    to_s: float
    text: str  # what the store says those seconds show
    window: int  # its number in the store


@dataclass(frozen=True)
class Index:
    """Unit vectors of all windows of a store, in its order, where the model is; and where each sequence's begin."""

    unit_WC: Float[Tensor, "W C"]
    first: np.ndarray  # number of each sequence's first window

    def best(self, query_C: Float[Tensor, " C"], top: int) -> tuple[np.ndarray, np.ndarray]:
        """Windows and cosines of the `top` sequences, best first, each by its best window."""
        score_W = (self.unit_WC @ F.normalize(query_C.to(self.unit_WC.device).float(), dim=0)).cpu().numpy()
        best = np.maximum.reduceat(score_W, self.first)
        top = min(top, len(best))
        chosen = np.argpartition(-best, top - 1)[:top]
        chosen = chosen[np.argsort(-best[chosen], kind="stable")]
        end = np.append(self.first[1:], len(score_W))
        windows = np.array([self.first[s] + score_W[self.first[s] : end[s]].argmax() for s in chosen])
        return windows, score_W[windows]


@dataclass(frozen=True)
class Contents:
    """What a store says of the middle crops of all its windows."""

    names: list[str]  # of sequences
    sequence_W: np.ndarray  # of which each window is a piece
    from_W: np.ndarray  # seconds into it
    to_W: np.ndarray
    texts: list[str]

    @classmethod
    def of(cls, store: Store) -> "Contents":
        """Those of a store."""
        sequence_W, frames_W = store.columns("windows", "sequence", "frames")
        from_W, to_W = seconds_of(store, np.arange(len(frames_W)), middle_shift(frames_W, store.crop))
        return cls(store.sequences, sequence_W, from_W, to_W, middle_texts(store))

    def hits(self, windows: np.ndarray, scores: np.ndarray) -> list[Hit]:
        """Windows and their cosines as hits."""
        return [
            Hit(
                float(score),
                self.names[self.sequence_W[window]],
                float(self.from_W[window]),
                float(self.to_W[window]),
                self.texts[window],
                int(window),
            )
            for window, score in zip(windows, scores, strict=True)
        ]


class Searcher:
    """A store searched by a run's vectors: what a search reads is kept, and read again where the store has changed.

    Where it is just being prepared, what was read of it before stays good. Its Store's attributes are brought up to
    date.
    """

    def __init__(self, run: Run, store: Store) -> None:
        self.run, self.store, self.read_at = run, store, store.stamp()
        self.index, self.contents = index_of(run, store), Contents.of(store)

    def nearest(self, query_C: Float[Tensor, " C"], *, top: int) -> list[Hit]:
        """The `top` sequences that are nearest to a vector, best first."""
        self.catch_up()
        return self.contents.hits(*self.index.best(query_C, top))

    def catch_up(self) -> None:
        """Read the store again if it was written to."""
        if (stamp := self.store.stamp()) == self.read_at:
            return
        self.store.refresh()
        if self.store.is_indexed:
            self.index, self.contents = index_of(self.run, self.store), Contents.of(self.store)
            self.read_at = stamp


def index_of(run: Run, store: Store) -> Index:
    """The index of a store for a run; StoreError where there is nothing to search."""
    sequence = store.read("windows/sequence")
    if not len(sequence):
        raise StoreError(f"{store.url}: no window to search; expected a store that `mclip prepare` filled")
    first = np.flatnonzero(np.diff(sequence, prepend=-1))
    return Index(torch.from_numpy(unit(latents_of(run, store)).astype(np.float32)).to(run.device), first)


def latents_of(run: Run, store: Store) -> np.ndarray:
    """Vector (W, C) of the middle crop of every window: made once, then read from the store, for these weights.

    Where the store cannot be written, or somebody else is writing, they are made every time and a line says so.
    """
    path, made_of = f"latents/{run.fingerprint}/z", store.fingerprint()
    if path in store and store.attributes("latents").get(run.fingerprint) == made_of:
        with contextlib.suppress(StoreError):  # damaged: it is only a copy, and made anew
            return store.read(path)
    z_WC = np.concatenate(list(encoded(run, store)))
    try:
        with one_writer(store.url):
            store.refresh()  # or what others wrote to its attributes meanwhile would be gone
            store.write(path, z_WC, width=z_WC.shape[1])
            store.set_attributes("latents", **{run.fingerprint: made_of})
    except (OSError, StoreError) as error:
        print(f"vectors are not kept in {store.url}: {error}", file=sys.stderr)
    return z_WC


@torch.inference_mode()
def encoded(run: Run, store: Store) -> Iterator[np.ndarray]:
    """Vectors of the middle crops of all windows, a batch at a time: memory does not grow with the store."""
    fps = store.fps
    if fps != run.fps:
        raise StoreError(f"{store.url}: {fps:g} fps, but {run.folder} was trained at {run.fps:g}: prepare it so")
    row, frames, crop = store.read("windows/row"), store.read("windows/frames"), store.crop
    for part in tracked(np.split(np.arange(len(row)), range(BATCH, len(row), BATCH)), "encode", "batches"):
        start = row[part] + middle_shift(frames[part], crop)
        valid = np.minimum(frames[part], crop)
        at = np.concatenate([np.arange(first, first + count) for first, count in zip(start, valid, strict=True)])
        rot6d, trans = (torch.from_numpy(rows_of(store, f"motion/{name}", at)) for name in ("rot6d", "trans"))
        rows = rows_of_motion(rot6d, trans).split(valid.tolist())
        motions = [rows_as_trained(run, continued_rows(run, each)) for each in rows]
        mask_BT = torch.arange(max(map(len, motions))) < torch.tensor([len(each) for each in motions])[:, None]
        motion_BTRD = from_origin(pad_sequence(motions, batch_first=True)) * mask_BT[..., None, None]
        yield run.model.encode(motion_BTRD.to(run.device), mask_BT.to(run.device)).cpu().numpy()


def rows_of(store: Store, path: str, rows: np.ndarray) -> np.ndarray:
    """The given rows of an array, read as one contiguous piece: rows of a block lie close together."""
    first = int(rows.min())
    return store.read(path, slice(first, int(rows.max()) + 1))[rows - first]


def search(
    run: Run, store: Store, query: str, *, top: int, encoder: Encoder | None = None, asked: Asked = NOTHING
) -> list[Hit]:
    """The `top` sequences of a store that are nearest to a text, a motion file or one of its clips, best first."""
    query_C = vectors_of(run, [query], encoder, store=store, plain=True, asked=asked)[0]
    return Searcher(run, store).nearest(query_C, top=top)


def format_hits(query: str, found: Sequence[Hit], *, as_json: bool) -> str:
    """The answer to a search, as a table or as JSON."""
    if as_json:
        return json.dumps({"query": query, "hits": [asdict(hit) for hit in found]}, indent=2, ensure_ascii=False)
    rows = [(f"{hit.score:.3f}", hit.clip, f"{hit.from_s:.1f} to {hit.to_s:.1f}", hit.text) for hit in found]
    return table(query, ("cosine", "clip", "seconds", "what it shows"), rows)
