"""What texts are decoded into, judged: by a decoder that remembers, and by one that does not."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from mclip.pipeline.embed.vectors import vectors_by_text
from mclip.pipeline.store.store import Store
from mclip.training.data.crops import crops_of
from mclip.training.evaluate.report import judged_tables
from mclip.training.evaluate.texts_report import judge_for, judged, known_crops, labels_asked
from mclip.training.measure.learnt_judge import LearntJudge
from mclip.training.measure.statistics import figures_of, intervals_of
from mclip.training.model.run import Run


def remembering(run: Run, store: Store) -> Run:
    """The run with a decoder that plays the training motion whose label is nearest to the vector."""
    crops, vectors = crops_of(run, store, "train"), vectors_by_text(store, "offline")
    batch = crops.middle(torch.arange(len(crops)))
    names = store.strings("sequences/name")
    owners = labels_asked(store, [crops])
    sequence_W = store.read("windows/sequence")
    shown = [names[sequence_W[window]] for window in crops.window.tolist()]
    label_LC = torch.from_numpy(np.stack([vectors[label] for label in owners]))
    clip_L = torch.tensor([shown.index(clips[0]) for clips in owners.values()])
    model = copy.deepcopy(run.model)
    model.decode = lambda z, frames, mask=None: batch.motion_BTRD[  # type: ignore[method-assign]
        clip_L[torch.nn.functional.cosine_similarity(z[:, None], label_LC, dim=-1).argmax(1)]
    ]
    return replace(run, model=model)


def test_a_decoder_that_remembers_is_right_and_natural_and_one_of_twelve_steps_is_neither(
    run: Run, store: Store
) -> None:
    run = replace(run, config=run.config | {"train": run.config["train"] | {"short": "continue"}})
    crops = crops_of(run, store, "train")
    splits = known_crops(run, store, crops, "train")
    assert splits == [crops]
    judge, labels = judge_for(run, store, splits), labels_asked(store, splits)
    assert {clip.split("/")[-2] for clips in labels.values() for clip in clips} == {"walk", "kick", "getup_facedown"}
    vectors = vectors_by_text(store, "offline")
    text_NC = np.stack([vectors[label] for label in labels])
    learnt = LearntJudge.trained(splits, fps=run.fps)
    perfect = judged(remembering(run, store), judge, learnt, text_NC, [*labels.values()], bar="labels")
    assert perfect["texts"] == len(labels)
    plain = figures_of(perfect["plain"])
    assert (plain["right"], plain["natural"], plain["both"]) == (1, 1, 1)
    assert plain["natural_mm"] == pytest.approx(0, abs=0.1)
    assert plain["learnt_R@1"] == 1
    poor = figures_of(judged(run, judge, learnt, text_NC, [*labels.values()], bar="labels"))
    assert poor["carried"]["natural"] == poor["plain"]["natural"] == 0
    assert poor["plain"]["learnt_R@1"] < 0.7  # of three clips: one that it takes all of them for is a third
    assert set(judged(replace(run, z_NC=None), judge, None, text_NC, [*labels.values()], bar="")) == {"texts", "plain"}
    tree = {"judge": {"bound_mm": judge.bound_mm}, "label_motions": perfect, "quality": {}}
    (table,) = judged_tables(figures_of(tree) | {"ci95": intervals_of(tree)})
    assert [row[0] for row in table.rows] == [
        f"{len(labels)} labels, carried",
        f"{len(labels)} labels, plain",
        "real motion of the split",
    ]
    assert table.rows[1][1:4] == ("1", "1", "1")
