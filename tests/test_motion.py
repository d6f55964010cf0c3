"""Motions on the floor, out of the model and out of files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.geometry.resample import resample
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix, rot6d_to_matrix
from mclip.pipeline.prepare.amass import read_motion
from mclip.training.show import motion as motions


def spread_arms(frames: int) -> motions.Motion:
    """A body that turns about the vertical, two metres up in the air."""
    angle = torch.linspace(0, 1.5, frames)
    upright = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # SMPL's y up to the world's z up
    turn = torch.zeros(frames, 3, 3)
    turn[:, 0, 0] = turn[:, 1, 1] = angle.cos()
    turn[:, 1, 0], turn[:, 0, 1], turn[:, 2, 2] = angle.sin(), -angle.sin(), 1
    rotmat = torch.eye(3).expand(frames, 24, 3, 3).clone()
    rotmat[:, 0] = turn @ upright
    return motions.Motion(rotmat, torch.tensor([[0.0, 0, 2.0]]).expand(frames, 3), 30.0)


def test_the_lowest_point_of_a_motion_stands_on_the_floor() -> None:
    body = load_body("low")
    placed = motions.on_floor(spread_arms(6), body)
    height = body.pose(placed.rotmat_TJ33, trans_B3=placed.trans_T3)[..., 2]
    assert float(height.min()) == pytest.approx(0, abs=1e-5)
    assert 1.5 < float(height.max()) < 1.9


def test_rows_of_the_model_become_rotations_and_a_path() -> None:
    rows = torch.zeros(3, 25, 6)
    rows[:, :24, 0] = 2.0  # not of length one: Gram-Schmidt makes it so
    rows[:, :24, 4] = 3.0
    rows[:, 24, 0] = torch.tensor([0.0, 0.5, 1.0])
    made = motions.motion_of_rows(rows, 30.0)
    assert torch.allclose(made.rotmat_TJ33, torch.eye(3).expand(3, 24, 3, 3))
    assert torch.allclose(made.trans_T3[:, 0], torch.tensor([0.0, 0.5, 1.0]))


WALK = MOTIONS / "EMBEDDED/walk/walk_poses.npz"


def test_a_file_is_read_frame_by_frame_or_at_another_rate() -> None:
    source = read_motion(WALK)
    whole = motions.read(WALK)
    assert whole.fps == source.fps
    assert torch.equal(whole.trans_T3, torch.from_numpy(source.trans_T3))
    assert torch.allclose(whole.rotmat_TJ33, axis_angle_to_matrix(torch.from_numpy(source.poses_TJ3)))
    slower = motions.read(WALK, fps=10.0)
    rot6d, _ = resample(source, 10.0)
    assert slower.fps == 10.0
    assert torch.allclose(slower.rotmat_TJ33.float(), rot6d_to_matrix(rot6d), atol=1e-5)


@pytest.mark.parametrize(
    ("frames", "columns", "told"), [(1, 156, "1 frames, expected at least 2"), (9, 67, r"shape \(9, 67\): expected")]
)
def test_one_frame_and_another_skeleton_are_refused_by_name(
    tmp_path: Path, frames: int, columns: int, told: str
) -> None:
    file = tmp_path / "odd.npz"
    np.savez(file, poses=np.zeros((frames, columns)), trans=np.zeros((frames, 3)), mocap_framerate=30.0)
    with pytest.raises(MotionError, match=rf"odd\.npz: .*{told}"):
        motions.read(file)


def test_what_is_no_motion_file_is_refused_by_its_ending(tmp_path: Path) -> None:
    with pytest.raises(MotionError, match=r"a\.txt: cannot read \.txt; expected a motion: \.npz, \.npy, \.bvh"):
        motions.read(tmp_path / "a.txt")
    with pytest.raises(MotionError, match=r"a\.fbx: FBX is not read: import it in Blender, and export it as BVH"):
        motions.read(tmp_path / "a.fbx")
    with pytest.raises(MotionError, match=r"gone\.npz: No such file"):
        motions.read(tmp_path / "gone.npz")


@pytest.mark.parametrize("name", ["walk", "kick", "punch", "jump", "turn_left_0", "dance_a"])
def test_the_floor_is_under_the_feet_that_stand(name: str) -> None:
    """The shipped clips stand on a floor at 0 (workflows/make_motions.py)."""
    body, clip = load_body("low"), motions.read(MOTIONS / f"EMBEDDED/{name}/{name}_poses.npz", fps=30.0)
    assert abs(motions.floor_of(clip, motions.heights(clip, body))) < 0.008


def test_a_leg_that_dips_for_an_eighth_of_the_time_moves_no_floor_and_without_feet_the_lowest_points_do() -> None:
    """A walk whose swinging foot, by a decoder's fault, goes 15 cm through the floor; a crawl's floor is as it was."""
    body = load_body("low")
    walk = motions.read(MOTIONS / "EMBEDDED/walk/walk_poses.npz")
    height = motions.heights(walk, body)
    swings = height.sole_TN[:, 0] > 0.05
    assert 0.1 < float(swings.float().mean()) < 0.4
    sole_TN = height.sole_TN.clone()
    sole_TN[swings, 0] = -0.15
    faulty = motions.Heights(torch.minimum(height.lowest_T, sole_TN.amin(1)), sole_TN)
    assert float(faulty.lowest_T.quantile(0.1)) == pytest.approx(-0.15)  # where the floor was without contacts
    assert abs(motions.floor_of(walk, faulty)) < 0.01
    crawl = motions.read(MOTIONS / "EMBEDDED/crawl/crawl_poses.npz")
    lying = motions.heights(crawl, body)
    assert motions.floor_of(crawl, lying) == pytest.approx(float(lying.lowest_T.quantile(0.1)), abs=1e-6)
