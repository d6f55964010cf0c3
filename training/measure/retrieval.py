"""Texts that find motions, and motions that find texts."""

# W windows, C CLIP width, Q queries, N pairs of a motion and its text

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mclip.pipeline.embed.vectors import unit
from mclip.pipeline.store.middle import middle_shift
from mclip.pipeline.store.store import Store
from mclip.training.data.crops import Crops
from mclip.training.measure.metrics import best_of_groups, best_ranks, cosines
from mclip.training.measure.statistics import Measured

AMONG = (1, 2, 3, 5, 10)
SMALL = 32  # pairs of a small batch (Guo et al. 2022; protocol d of TMR)
ALIKE = 0.95  # texts of (1 + cosine) / 2 above this count as one (protocol b of TMR)
DISSIMILAR = 100  # pairs of protocol c
BLOCK = 1024  # queries that are ranked at once: memory does not grow with their square


@dataclass(frozen=True)
class Gallery:
    """The motions that a query may find: windows with the sequence each belongs to, and what is known of sequences."""

    z_WC: np.ndarray
    sequence_W: np.ndarray  # numbered 0.. among the sequences here
    names: list[str]
    labels: list[set[str]]  # of each sequence
    categories_W: list[set[str]]  # of each window's middle crop

    @property
    def all_labels(self) -> list[str]:
        """Every label of the sequences, sorted."""
        return sorted(set().union(*self.labels) - {""})

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
    middle = middle_shift(crops.frames, crops.crop).cpu().numpy()
    at_middle = crops.labelset.cpu().numpy()[np.arange(len(window)), middle]
    categories = [sets["categories"][which] for which in at_middle]
    return Gallery(z_WC, number, [all_names[s] for s in sequences], labels, categories)


def label_sets(store: Store, name: str, texts: Sequence[str]) -> list[set[str]]:
    """The labels or categories of every label set, as strings."""
    flat, offset = store.read(f"labelsets/{name}"), store.read(f"labelsets/{name}_offset")
    return [{texts[i] for i in flat[a:b]} for a, b in zip(offset[:-1], offset[1:], strict=True)]


def retrieval(gallery: Gallery, vectors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Ranks of labels among motions, and back. A label is right for every sequence that carries it."""
    labels = gallery.all_labels
    return retrieval_by(gallery, gallery.score(np.stack([vectors[label] for label in labels]))) if labels else {}


def retrieval_by(gallery: Gallery, score_LS: np.ndarray) -> dict[str, np.ndarray]:
    """`retrieval` where the score of every label (rows, as `all_labels`) with every sequence is known already."""
    relevant = np.array([[label in carried for carried in gallery.labels] for label in gallery.all_labels])
    return {"text_to_motion": best_ranks(score_LS, relevant), "motion_to_text": best_ranks(score_LS.T, relevant.T)}


def recalls(ranks: np.ndarray, among: Sequence[int] = AMONG) -> dict[str, Any]:
    """R@k and MedR with their items, and how many queries there were; empty where there was none.

    A rank between k and k + 1, which averaged ties have, is within k, as in TMR's code.
    """
    if not len(ranks):
        return {}
    columns: dict[str, Any] = {f"R@{k}": Measured((ranks < k + 1).astype(float)) for k in among}
    return columns | {"MedR": Measured(ranks.astype(float), median=True), "queries": len(ranks)}


def batch_recalls(ranks_BN: np.ndarray) -> dict[str, Any]:
    """As `recalls`, of ranks within batches; MedR is the mean of the batches' medians, as TMR's code takes it."""
    medians = Measured(np.median(ranks_BN, axis=1))
    return recalls(ranks_BN.ravel()) | {"MedR": medians}


def hit_rate(gallery: Gallery, query_QC: np.ndarray, expected: Sequence[Sequence[str]]) -> dict[str, Any]:
    """R@1 and R@3 of queries whose right sequences are known by a part of their name."""
    relevant = np.array(
        [[any(f"/{clip}/" in f"/{name}" for clip in clips) for name in gallery.names] for clips in expected]
    )
    return recalls(best_ranks(gallery.score(query_QC), relevant), among=(1, 3))


def protocols(motion_NC: np.ndarray, text_NC: np.ndarray, *, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Ranks in TMR's four protocols (Petrovich et al. 2023, section 4.1) over motions and their texts, both ways.

    `all`: the one motion of the pair is right. `threshold`: so is every one whose text is alike, by the vectors given
    here, which are CLIP's; TMR takes a sentence encoder's. `dissimilar`: `all` among texts chosen to be far apart.
    `small_batches`: `all` within batches of 32 drawn by `seed`, (batches, 32); TMR draws others. A protocol with too
    few pairs is left out.

    Each comes by two rules for what is equal, which differ where texts repeat, as they do in a store of windows. Plain
    names: as TMR's code, a pair is right by its number alone, and among equal scores it has their mean rank, so that of
    ten motions that "walk" at most one is right. Names with `by_text`: every item of an equal text is right, and among
    equal scores the wrong ones go first, so that nothing is gained by giving one score to all.
    """
    motion, text = unit(motion_NC), unit(text_NC)
    order = np.random.default_rng(seed).permutation(len(text))
    batches = order[: len(order) // SMALL * SMALL].reshape(-1, SMALL)
    found = {}
    for name, by_text in (("", False), ("_by_text", True)):
        found[f"all{name}"] = both_ways(motion, text, by_text=by_text)
        found[f"threshold{name}"] = both_ways(motion, text, by_text=by_text, alike=ALIKE)
        if len(text) > DISSIMILAR:
            far = far_apart(text, DISSIMILAR)
            found[f"dissimilar{name}"] = both_ways(motion[far], text[far], by_text=by_text)
        parts = [both_ways(motion[batch], text[batch], by_text=by_text) for batch in batches]
        if parts:
            found[f"small_batches{name}"] = {way: np.stack([each[way] for each in parts]) for way in parts[0]}
    return found


def both_ways(
    motion_NC: np.ndarray, text_NC: np.ndarray, *, by_text: bool, alike: float | None = None
) -> dict[str, np.ndarray]:
    """Ranks of texts for motions and of motions for texts, all unit vectors; texts `alike` are right too."""
    return {
        "text_to_motion": pair_ranks(text_NC, motion_NC, text_NC, by_text=by_text, alike=alike),
        "motion_to_text": pair_ranks(motion_NC, text_NC, text_NC, by_text=by_text, alike=alike),
    }


def pair_ranks(
    query_NC: np.ndarray, item_NC: np.ndarray, text_NC: np.ndarray, *, by_text: bool, alike: float | None
) -> np.ndarray:
    """Rank (N,) of each query's own item, or of the best one whose text is right too; a block of queries at a time."""
    # Equal items are scored once: a matrix product rounds equal columns apart, and they would be no ties.
    different_MC, which_N = np.unique(item_NC, axis=0, return_inverse=True)
    number = np.unique(text_NC, axis=0, return_inverse=True)[1] if by_text else np.arange(len(text_NC))
    ranked = best_ranks if by_text else mean_ranks
    ranks = []
    for rows in np.split(np.arange(len(query_NC)), range(BLOCK, len(query_NC), BLOCK)):
        relevant = number[rows, None] == number
        if alike is not None:
            relevant |= (1 + text_NC[rows] @ text_NC.T) / 2 > alike
        ranks.append(ranked((query_NC[rows] @ different_MC.T)[:, which_N], relevant))
    return np.concatenate(ranks)


def mean_ranks(similarity: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Rank of the best relevant item for every query, the mean of the ranks of all whose score is equal.

    As `break_ties_average` in TMR's retrieval.py.
    """
    best = np.where(relevant, similarity, -np.inf).max(1)[:, None]
    ranks: np.ndarray = 1 + (similarity > best).sum(1) + ((similarity == best).sum(1) - 1) / 2
    return ranks


def far_apart(unit_NC: np.ndarray, count: int) -> np.ndarray:
    """Numbers of `count` unit vectors, each the one least like all taken before; the first is least like any."""
    taken = [int((unit_NC @ unit_NC.mean(0)).argmin())]
    nearest = unit_NC @ unit_NC[taken[0]]
    while len(taken) < count:
        nearest[taken[-1]] = np.inf
        taken.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, unit_NC @ unit_NC[taken[-1]])
    return np.array(taken)
