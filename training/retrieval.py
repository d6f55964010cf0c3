"""Texts that find motions and motions that find texts; classes that name motions."""

# W windows, C CLIP width, Q queries, N pairs of a motion and its text, K classes

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mclip.pipeline.store import Store
from mclip.training.crops import Crops
from mclip.training.metrics import best_of_groups, best_ranks, cosines, recall

AMONG = (1, 2, 3, 5, 10)
SMALL = 32  # pairs of a small batch (Guo et al. 2022; protocol d of TMR)
ALIKE = 0.95  # texts of (1 + cosine) / 2 above this count as one (protocol b of TMR)
DISSIMILAR = 100  # pairs of protocol c


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
    middle = ((crops.frames - crops.crop).clamp_min(0) // 2).cpu().numpy()
    at_middle = crops.labelset.cpu().numpy()[np.arange(len(window)), middle]
    categories = [sets["categories"][which] for which in at_middle]
    return Gallery(z_WC, number, [all_names[s] for s in sequences], labels, categories)


def label_sets(store: Store, name: str, texts: Sequence[str]) -> list[set[str]]:
    """The labels or categories of every label set, as strings."""
    flat, offset = store.read(f"labelsets/{name}"), store.read(f"labelsets/{name}_offset")
    return [{texts[i] for i in flat[a:b]} for a, b in zip(offset[:-1], offset[1:], strict=True)]


def retrieval(gallery: Gallery, vectors: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Text -> motion and motion -> text recall over the labels. A text is right for every sequence that carries it."""
    labels = gallery.all_labels
    return retrieval_by(gallery, gallery.score(np.stack([vectors[label] for label in labels]))) if labels else {}


def retrieval_by(gallery: Gallery, score_LS: np.ndarray) -> dict[str, dict[str, float]]:
    """`retrieval` where the score of every label (rows, as `all_labels`) with every sequence is known already."""
    labels = gallery.all_labels
    relevant = np.array([[label in carried for carried in gallery.labels] for label in labels])
    return {
        "text_to_motion": recall(best_ranks(score_LS, relevant)) | {"queries": len(labels)},
        "motion_to_text": recall(best_ranks(score_LS.T, relevant.T)) | {"queries": len(gallery.names)},
    }


def recognition(gallery: Gallery, vectors: dict[str, np.ndarray]) -> dict[str, float]:
    """Top-1 and top-5 over the bare names of the store's categories; any true one of the crop counts (paper, 4.3)."""
    classes = sorted(set().union(*gallery.categories_W))
    if not classes:
        return {}
    similarity = cosines(gallery.z_WC, np.stack([vectors[name] for name in classes]))
    relevant = np.array([[name in true for name in classes] for true in gallery.categories_W])
    found = recall(best_ranks(similarity, relevant), among=(1, 5))
    return {"top1": found["R@1"], "top5": found["R@5"], "classes": len(classes), "chance": float(relevant.mean())}


def hit_rate(gallery: Gallery, query_QC: np.ndarray, expected: Sequence[Sequence[str]]) -> dict[str, float]:
    """Recall of queries whose right sequences are known by a part of their name."""
    relevant = np.array(
        [[any(f"/{clip}/" in f"/{name}" for clip in clips) for name in gallery.names] for clips in expected]
    )
    return recall(best_ranks(gallery.score(query_QC), relevant), among=(1, 3))


def protocols(motion_NC: np.ndarray, text_NC: np.ndarray, *, seed: int = 0) -> dict[str, dict[str, dict[str, float]]]:
    """TMR's four protocols (Petrovich et al. 2023, section 4.1) over pairs of a motion and its text, both ways.

    `all`: the one motion of the pair is right. `threshold`: so is every one whose text is alike. `dissimilar`: `all`
    among texts chosen to be far apart. `small_batches`: `all` within random batches of 32. A protocol with too few
    pairs is left out.
    """
    similarity, alike = cosines(text_NC, motion_NC), (1 + cosines(text_NC, text_NC)) / 2
    same = np.eye(len(text_NC), dtype=bool)
    found = {"all": both_ways(similarity, same), "threshold": both_ways(similarity, same | (alike > ALIKE))}
    if len(text_NC) > DISSIMILAR:
        far = np.ix_(*[far_apart(alike, DISSIMILAR)] * 2)
        found["dissimilar"] = both_ways(similarity[far], same[far])
    order = np.random.default_rng(seed).permutation(len(text_NC))
    batches = order[: len(order) // SMALL * SMALL].reshape(-1, SMALL)
    if len(batches):
        ranks = [[best_ranks(each[np.ix_(b, b)], np.eye(SMALL, dtype=bool)) for b in batches]
                 for each in (similarity, similarity.T)]  # fmt: skip
        found["small_batches"] = told(*map(np.concatenate, ranks))
    return found


def both_ways(similarity_NN: np.ndarray, relevant_NN: np.ndarray) -> dict[str, dict[str, float]]:
    """Recall of texts (rows) for motions (columns), and back."""
    return told(best_ranks(similarity_NN, relevant_NN), best_ranks(similarity_NN.T, relevant_NN.T))


def told(text_ranks: np.ndarray, motion_ranks: np.ndarray) -> dict[str, dict[str, float]]:
    """R@k and MedR of the ranks both ways."""
    pair = {"text_to_motion": text_ranks, "motion_to_text": motion_ranks}
    return {name: recall(ranks, among=AMONG) | {"queries": len(ranks)} for name, ranks in pair.items()}


def far_apart(alike_NN: np.ndarray, count: int) -> np.ndarray:
    """Numbers of `count` items, each the one least like all that were taken before; the first is least like any."""
    taken = [int(alike_NN.mean(1).argmin())]
    nearest = alike_NN[taken[0]].copy()
    while len(taken) < count:
        nearest[taken[-1]] = np.inf
        taken.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, alike_NN[taken[-1]])
    return np.array(taken)


def recognition_among(
    z_WC: np.ndarray, class_KC: np.ndarray, names: Sequence[str], true_W: Sequence[set[str]]
) -> dict[str, float]:
    """`recognition_by` the cosines of windows and given classes."""
    return recognition_by(cosines(z_WC, class_KC), names, true_W)


def recognition_by(score_WK: np.ndarray, names: Sequence[str], true_W: Sequence[set[str]]) -> dict[str, float]:
    """Top-1 and top-5 of windows' scores with classes, in the release's protocol, and BABEL's mean over classes.

    Any true class of a crop within the first k is a hit; crops of none of these classes are left out. `top1_norm` is
    the mean over classes of how often a crop of the class has it first (BABEL, Punnakkal et al. 2021, Top-1-norm).
    """
    relevant = np.array([[name in true for name in names] for true in true_W]).reshape(len(true_W), len(names))
    asked = relevant.any(1)
    if not asked.any():
        return {}
    score_WK, relevant = score_WK[asked], relevant[asked]
    found = recall(best_ranks(score_WK, relevant), among=(1, 5))
    first = score_WK.argmax(1)
    by_class = [float((first[carried] == k).mean()) for k, carried in enumerate(relevant.T) if carried.any()]
    norm = float(np.mean(by_class))
    return {"top1": found["R@1"], "top5": found["R@5"], "top1_norm": norm, "crops": int(asked.sum())}
