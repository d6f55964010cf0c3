"""Classes that name motions: the release's protocol and BABEL's, and which class is taken for which."""

# W windows, N items, K classes, C latent width

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from mclip.pipeline.embed.vectors import unit
from mclip.pipeline.machine.terminal import tracked
from mclip.pipeline.store.schema import SPLITS
from mclip.pipeline.store.store import Store
from mclip.training.data.clips import chunks
from mclip.training.data.crops import Crops
from mclip.training.data.rows import rows_of_motion
from mclip.training.latent.space import encode
from mclip.training.measure.metrics import average_precisions, best_ranks, cosines
from mclip.training.measure.reconstruction import BATCH
from mclip.training.measure.retrieval import label_sets
from mclip.training.measure.statistics import Measured
from mclip.training.model.run import Run, autocast

CHUNK = 5.0  # seconds of a chunk in BABEL's protocol
PROBE_DECAY = 1e-3


def recognition(
    z_NC: np.ndarray, true_N: Sequence[set[str]], class_KC: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """`recognition_by` the cosines of vectors with those of the classes."""
    return recognition_by(cosines(z_NC, class_KC), names, true_N)


def recognition_by(score_NK: np.ndarray, names: Sequence[str], true_N: Sequence[set[str]]) -> dict[str, Any]:
    """Top-1, top-5, Top-1-norm and mAP of items by their scores; empty where no item has one of the classes.

    Any true class of an item within the first k is a hit (the release's test; paper, section 4.3); items of none of
    these classes are left out. `top1_norm` is the mean over classes of how often an item of the class has it first
    (BABEL, Punnakkal et al. 2021). `mAP` is the mean over classes of their average precision, where an item may be of
    several. `chance` is how often one class at random is a true one.
    """
    relevant = relevance(names, true_N)
    asked = relevant.any(1)
    if not asked.any():
        return {}
    score_NK, relevant = score_NK[asked], relevant[asked]
    ranks, first = best_ranks(score_NK, relevant), score_NK.argmax(1)
    by_class = [(first[carried] == k).mean() for k, carried in enumerate(relevant.T) if carried.any()]
    return {
        "top1": Measured((ranks <= 1).astype(float)),
        "top5": Measured((ranks <= 5).astype(float)),
        "top1_norm": Measured(np.array(by_class)),
        "mAP": Measured(average_precisions(score_NK, relevant)),
        "items": int(asked.sum()),
        "classes": len(names),
        "chance": float(relevant.mean()),
    }


def linear_probe(
    z_NC: np.ndarray, true_N: Sequence[set[str]], names: Sequence[str]
) -> Callable[[np.ndarray], np.ndarray]:
    """Scores (M, K) of classes for vectors (M, C) by logistic regression, one class against the rest, on these vectors.

    What a linear classifier reads from z when it may see labelled motions, where texts alone name the classes
    otherwise. Vectors are standardised; the squared weights cost PROBE_DECAY each.
    """
    mean_C, scale_C = z_NC.mean(0), z_NC.std(0) + 1e-6
    z, true = (torch.from_numpy(each).double() for each in ((z_NC - mean_C) / scale_C, relevance(names, true_N)))
    weight_CK = torch.zeros(z.shape[1], len(names), dtype=torch.float64, requires_grad=True)
    bias_K = torch.zeros(len(names), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight_CK, bias_K], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        fit = F.binary_cross_entropy_with_logits(z @ weight_CK + bias_K, true)
        total = fit + PROBE_DECAY * weight_CK.square().sum() / len(names)
        total.backward()
        return total

    optimizer.step(loss)
    weight, bias = weight_CK.detach().numpy(), bias_K.detach().numpy()
    return lambda other_MC: (other_MC - mean_C) / scale_C @ weight + bias


def relevance(names: Sequence[str], true_N: Sequence[set[str]]) -> np.ndarray:
    """(N, K) booleans: which classes are true of each item."""
    return np.array([[name in true for name in names] for true in true_N], bool).reshape(len(true_N), len(names))


def confusion(z_NC: np.ndarray, true_N: Sequence[set[str]], class_KC: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """(K, K) counts of items of true class k (row) whose nearest class is j (column); once for each true class."""
    if not names:
        return np.zeros((0, 0), np.int64)
    first = cosines(z_NC, class_KC).argmax(1)
    counts: np.ndarray = relevance(names, true_N).T.astype(np.int64) @ np.eye(len(names), dtype=np.int64)[first]
    return counts


@torch.inference_mode()
def random_crops(run: Run, store: Store, crops: Crops, *, seed: int = 0) -> tuple[np.ndarray, list[set[str]]]:
    """Vectors (W, C) of a random crop of every window and the categories of each: what the release tests on, seeded."""
    sets = label_sets(store, "categories", store.strings("texts"))
    item_W = torch.arange(len(crops), device=crops.row.device)
    generator = torch.Generator().manual_seed(seed)  # of the CPU's, so that every device tests the same crops
    chance_W = torch.rand(len(crops), generator=generator).to(item_W.device)
    shift_W = (chance_W * ((crops.frames - crops.crop).clamp_min(0) + 1)).long()
    z_WC = []
    for item_B in tracked(item_W.split(BATCH), "random crops", "batches"):
        batch = crops.gather(item_B, shift_W[item_B], torch.zeros(len(item_B), device=item_B.device))
        with autocast(run):
            z_WC.append(run.model.encode(batch.motion_BTRD, batch.attended_BT).float().cpu())
    return torch.cat(z_WC).numpy(), [sets[number] for number in crops.labelset[item_W, shift_W].tolist()]


def babel_chunks(run: Run, store: Store, split: str, names: Sequence[str]) -> tuple[np.ndarray, list[set[str]]]:
    """Vectors (N, C) of the samples of BABEL's protocol and the one class of each.

    Every labelled span of the split is cut into chunks of five seconds and a rest (BABEL's create_dataset.py); a chunk
    is a sample for each of its span's categories that is asked for. Its vector is the mean of its crops' unit vectors.
    """
    z_NC: list[np.ndarray] = []
    true_N: list[set[str]] = []
    for at, categories in tracked([*chunks_of_spans(store, split)], "chunks", "chunks"):
        if found := sorted(set(names) & categories):
            z_NC += [chunk_vector(run, store, at)] * len(found)
            true_N += [{name} for name in found]
    return np.stack(z_NC) if z_NC else np.zeros((0, run.model.config.latent), np.float32), true_N


def chunks_of_spans(store: Store, split: str) -> Iterator[tuple[slice, set[str]]]:
    """Rows of motion/* and categories of every chunk of every span of the split's sequences.

    All labels of a sequence are asked, whatever the store's windows are. As in BABEL's create_dataset.py, times are cut
    to frames downwards, and a chunk in which no frame begins within any label of its categories is no sample.
    """
    sets = label_sets(store, "categories", store.strings("texts"))
    fps = store.attributes("prepare")["options"]["fps"]
    row, frames, splits = (store.read(f"sequences/{name}") for name in ("row", "frames", "split"))
    source_frames, source_fps = (store.read(f"sequences/{name}") for name in ("source_frames", "fps"))
    owner, *columns = (store.read(f"spans/{name}") for name in ("sequence", "start", "end", "labelset"))
    for sequence in dict.fromkeys(owner.tolist()):
        if splits[sequence] != SPLITS.index(split):
            continue
        seconds = source_frames[sequence] / source_fps[sequence]
        start_L, end_L, set_L = (column[owner == sequence] for column in columns)
        spans = [(a, min(b, seconds), sets[k]) for a, b, k in zip(start_L, end_L, set_L, strict=True) if sets[k]]
        for at, categories in chunks_of_sequence(spans, int(frames[sequence]), seconds, fps):
            yield slice(int(row[sequence]) + at.start, int(row[sequence]) + at.stop), categories


def chunks_of_sequence(
    spans: Sequence[tuple[float, float, set[str]]], frames: int, seconds: float, fps: float
) -> Iterator[tuple[slice, set[str]]]:
    """Frames and categories of the chunks of one sequence's labels (start, end, categories), in seconds."""
    said: list[set[str]] = [set() for _ in range(frames)]
    for frame in range(min(frames, int(fps * seconds))):
        said[frame].update(*(names for start, end, names in spans if start <= frame / fps < end))
    length = round(CHUNK * fps)
    for start, end, names in spans:
        last = min(int(fps * end), frames)
        for first in range(int(fps * start), last, length):
            at = slice(first, min(first + length, last))
            if names & set().union(*said[at]):
                yield at, names


def chunk_vector(run: Run, store: Store, at: slice) -> np.ndarray:
    """Mean (C,) of the unit vectors of the crops of a piece of a store's motion."""
    rot6d, trans = map(torch.from_numpy, store.motion(at))
    rows = rows_of_motion(rot6d, trans)
    vectors = [encode(run, rows[first:last]).cpu().numpy() for first, last in chunks(len(rows), run.crop)]
    mean: np.ndarray = unit(np.stack(vectors)).mean(0)
    return mean
