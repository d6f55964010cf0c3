"""The nearest neighbour and its company, where their figures are known by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mclip.pipeline.geometry.rotations import matrix_to_rot6d, rot6d_to_matrix
from mclip.pipeline.labels.label_files import read_labels
from mclip.pipeline.labels.matching import split_of
from mclip.pipeline.store.store import Store
from mclip.training.data.crops import Crops, crops_of
from mclip.training.measure.retrieval import label_sets
from mclip.training.model.run import Run
from mclip.workflows import compare_baselines as baselines

WORKFLOWS = Path(baselines.__file__).parent
CMU = WORKFLOWS.resolve().parents[1] / "shared/data/cmu"


@pytest.fixture
def crops(run: Run, store: Store) -> Crops:
    return crops_of(run, store, "train")


def test_on_the_training_split_the_neighbour_is_the_crop_itself(run: Run, store: Store) -> None:
    found = baselines.compare(run, store, split="train")["nearest neighbour"]
    assert found["mpjpe_mm"] == pytest.approx(0, abs=1e-3)
    assert found["movement_ratio"] == pytest.approx(1)
    assert (found["top1"], found["t2m_R@1"], found["m2t_R@1"]) == (1.0, 1.0, 1.0)


def test_the_closest_crop_is_never_further_than_the_neighbour_and_a_still_pose_does_not_move(
    run: Run, store: Store, crops: Crops
) -> None:
    asked = baselines.asked_of(run, store, "train", ("/walk/",))
    others = baselines.part(crops, ~torch.isin(crops.window, asked.crops.window))
    sets = {kind: label_sets(store, kind, store.strings("texts")) for kind in ("labels", "categories")}
    found = baselines.neighbours(others, asked, sets)
    neighbour, closest = (found[name]["mpjpe_mm"] for name in ("nearest neighbour", "closest training crop"))
    assert 0 < closest <= neighbour < 1000
    assert found["mean pose"]["movement_ratio"] == 0
    # Nothing that is left carries a label of the walk: it cannot be found first.
    assert found["nearest neighbour"]["top1"] == 0


def test_joints_face_the_same_way_however_the_crop_is_turned(crops: Crops) -> None:
    batch = crops.middle(torch.arange(len(crops)))
    angle = torch.tensor(1.0)
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1]])
    motion = batch.motion_BTRD.clone()
    motion[:, :, 0] = matrix_to_rot6d(turn @ rot6d_to_matrix(motion[:, :, 0]))
    motion = motion * batch.mask_BT[..., None, None]
    turned = baselines.facing_joints(replace(batch, motion_BTRD=motion))
    plain = baselines.facing_joints(batch)
    torch.testing.assert_close(turned, plain, atol=1e-5, rtol=0)
    assert (plain[:, :, 0] == 0).all()
    hips = plain[:, 0, 1] - plain[:, 0, 2]  # left minus right: to the left of one who faces -y is +x
    assert (hips[:, 0] > 0).all()


def test_pooling_knows_no_order_and_no_padding() -> None:
    joints = torch.randn(2, 6, 24, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    found = baselines.pooled(joints, mask)
    torch.testing.assert_close(baselines.pooled(joints.flip(1), mask.flip(1)), found)
    np.testing.assert_allclose(found[1, :72].view(24, 3), joints[1, :4].mean(0), atol=1e-6)
    np.testing.assert_allclose(found[1, 72:].view(24, 3), joints[1, :4].std(0, correction=0), atol=1e-6)


def test_every_crop_is_every_shift_of_every_window(crops: Crops) -> None:
    item, shift = baselines.every_crop(crops)
    expected = [
        (w, s) for w, frames in enumerate(crops.frames.tolist()) for s in range(max(frames - crops.crop, 0) + 1)
    ]
    assert list(zip(item.tolist(), shift.tolist(), strict=True)) == expected


def test_a_name_that_no_training_crop_has_scores_last() -> None:
    distance = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    joints = torch.zeros(2, 1, 24, 3)
    seen = baselines.Seen(distance, np.array([0, 1, 1]), joints, torch.zeros(2), joints[0, 0])
    scores = seen.scores(["run", "walk", "swim"], [{"walk"}, {"run"}])
    assert scores.tolist() == [[-2.0, -1.0], [-1.0, -3.0], [-np.inf, -np.inf]]


def test_blind_choice_is_chance(run: Run, store: Store) -> None:
    asked = baselines.asked_of(run, store, "train", ())
    found = baselines.blind(asked)
    relevant = [[name in true for name in asked.categories] for true in asked.gallery.categories_W]
    assert found["top1"] == pytest.approx(np.mean(relevant), abs=0.08)


def test_random_weights_are_measured_as_the_run_is(run: Run, store: Store) -> None:
    found = baselines.compare(run, store)
    mine, random = found[f"run, step {run.step:,}"], found["random weights"]
    assert set(mine) == set(random)
    assert mine["mpjpe_mm"] < random["mpjpe_mm"]
    assert baselines.table(found).count("\n") == 1 + len(found)


def test_no_file_of_that_name_is_said(run: Run, store: Store) -> None:
    with pytest.raises(ValueError, match="no window of split train in a file called waltz"):
        baselines.asked_of(run, store, "train", ("waltz",))


@pytest.mark.skipif(not CMU.exists(), reason="needs ../shared/data/cmu")
def test_every_held_out_clip_of_the_recipe_has_another_take_of_its_kind_in_training() -> None:
    labels = read_labels((CMU / "babel",), WORKFLOWS / "cmu_split.csv")
    kinds = {key: {name for span in spans for name in span.categories} for key, spans in labels.spans.items()}
    held_out = [key for key in kinds if split_of(key, labels) == "val"]
    training = set(kinds) - set(held_out)
    assert (len(held_out), len(training)) == (20, 64)
    takes = {key: [other for other in training if kinds[other] & kinds[key]] for key in held_out}
    assert all(takes.values())
    alone = [key for key, others in takes.items() if not any(other[:6] == key[:6] for other in others)]
    assert alone == ["CMU/06/06_01"]  # that person's only walk; everybody else's has another take by the same person
