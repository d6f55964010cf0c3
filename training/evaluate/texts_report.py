"""What texts are decoded into, by judges that never saw the model: the right motion, and a natural one."""

# N texts, C latent width, T frames, R rows

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.rotations import rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import forward_kinematics
from mclip.pipeline.machine.terminal import tracked
from mclip.pipeline.store.store import Store
from mclip.training.data.crops import Crops, crops_of
from mclip.training.data.rows import joints_of, root_of
from mclip.training.latent.space import decode, text_latent
from mclip.training.measure.judge import Judge, judge_of
from mclip.training.measure.learnt_judge import LearntJudge, ranks_of_own
from mclip.training.measure.physics import world_figures
from mclip.training.measure.retrieval import gallery_of
from mclip.training.measure.statistics import Measured
from mclip.training.model.run import Run

MOST = 200  # texts of a kind that are judged, evenly chosen
WORLD = ("planted_mm_s", "floating_cm", "jerk", "root_jerk")


def known_crops(run: Run, store: Store, crops: Crops, split: str) -> list[Crops]:
    """The windows of a split, and those of the training split: what a text may be decoded into."""
    return [crops] if split == "train" else [crops, crops_of(run, store, "train")]


def judge_for(run: Run, store: Store, splits: Sequence[Crops]) -> Judge:
    """A judge by the windows of splits, a clip for every sequence."""
    names, sequence_W = store.strings("sequences/name"), store.read("windows/sequence")
    called = [[names[sequence] for sequence in sequence_W[each.window.cpu().numpy()]] for each in splits]
    return judge_of(splits, called, fps=run.fps)


def labels_asked(store: Store, splits: Sequence[Crops]) -> dict[str, list[str]]:
    """Up to MOST labels of the first split, with the sequences of all splits that carry each."""
    galleries = [gallery_of(store, each, np.zeros((len(each), 0))) for each in splits]
    labels = galleries[0].all_labels
    chosen = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), MOST)).astype(int))
    carried = [pair for each in galleries for pair in zip(each.names, each.labels, strict=True)]
    return {labels[i]: [name for name, own in carried if labels[i] in own] for i in chosen}


def judged(
    run: Run,
    judge: Judge,
    learnt: LearntJudge | None,
    text_NC: np.ndarray,
    expected: Sequence[Sequence[str]],
    *,
    bar: str,
) -> dict[str, Any]:
    """Figures of the motions that texts are decoded into, `carried` to the training motions, and in the `plain` way.

    `expected` are the names, or folders of names, of the sequences that each text may show. `carried` is left out where
    the run keeps no training z. `learnt_R@1`, `learnt_R@3`: how often the learnt judge ranks a motion's own text there
    among all those that other sequences show.
    """
    ways = {"carried": False, "plain": True} if run.z_NC is not None else {"plain": True}
    found: dict[str, Any] = {"texts": len(text_NC)}
    for way, plain in ways.items():
        vectors_NC = text_latent(run, torch.from_numpy(text_NC).to(run.device), plain=plain)
        rows_NTRD = decode(run, vectors_NC, run.crop).cpu()
        verdicts = [judge(rows) for rows in tracked([*rows_NTRD], f"{bar}, {way}", "motions")]
        called = [f"/{judge.names[verdict.clip]}/" for verdict in verdicts]
        right = [any(f"/{clip}/" in name for clip in clips) for name, clips in zip(called, expected, strict=True)]
        natural = [verdict.natural for verdict in verdicts]
        found[way] = {
            "right": Measured(np.array(right, float)),
            "natural": Measured(np.array(natural, float)),
            "both": Measured(np.array(right, float) * np.array(natural, float)),
            "natural_mm": Measured(np.array([verdict.natural_mm for verdict in verdicts])),
            **learnt_recalls(learnt, rows_NTRD, torch.from_numpy(text_NC), expected),
            **{name: Measured(values, median=True) for name, values in in_world(rows_NTRD, fps=run.fps).items()},
        }
    return found


def learnt_recalls(
    learnt: LearntJudge | None, rows_NTRD: torch.Tensor, text_NC: torch.Tensor, expected: Sequence[Sequence[str]]
) -> dict[str, Measured]:
    """How often the learnt judge finds a motion's own text first, and among the first three."""
    if learnt is None:
        return {}
    ranks_N = ranks_of_own(learnt.scores(rows_NTRD, text_NC), expected)
    return {f"learnt_R@{most}": Measured((ranks_N <= most).astype(float)) for most in (1, 3)}


@torch.inference_mode()
def in_world(rows_NTRD: torch.Tensor, *, fps: float) -> dict[str, np.ndarray]:
    """WORLD's figures of motions, an array of one each."""
    body = load_body("low")
    found = []
    for rows in rows_NTRD:
        rotmat, root = rot6d_to_matrix(joints_of(rows).float()), root_of(rows).float()
        joints = forward_kinematics(rotmat, body.joints_J3, root_B3=root)[1]
        lowest = body.pose(rotmat, trans_B3=root)[..., 2].amin(-1)
        found.append(world_figures(joints[None], lowest[None], torch.ones(1, len(rows)).bool(), fps=fps))
    return {name: torch.cat([each[name] for each in found]).numpy() for name in WORLD}
