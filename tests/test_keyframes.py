"""Poses and paths that a motion is steered through: reached where they can be, told where not, refused by name."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.forms.asked import Asked
from mclip.pipeline.geometry.joining import Track
from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.geometry.rotations import about_vertical, matrix_to_rot6d
from mclip.training.data.rows import rows_of_motion
from mclip.training.latent import keyframes
from mclip.training.latent.keyframes import along, decoded_track, led, off_keyframes, path_in, steered
from mclip.training.latent.poses import BEGINNINGS, Keyframe, beginnings, keyframe, later, off_poses
from mclip.training.latent.prompts import Prompt
from mclip.training.model.run import Run
from mclip.training.show.motion import read

WALK = MOTIONS / "EMBEDDED/walk/walk_poses.npz"


def test_a_pose_that_the_decoder_makes_is_found_again_from_another_vector(run: Run) -> None:
    """The control: before, the pose is further off than after."""
    assert run.z_NC is not None
    start, goal = (torch.nn.functional.normalize(z, dim=0) for z in run.z_NC[:2])
    made = decoded_track(run, goal, 30)
    keys = [Keyframe(frame, "goal", made.rotmat_TJ33[frame]) for frame in (5, 20)]
    was = off_keyframes(decoded_track(run, start, 30), keys).mean()
    found = steered(run, Prompt("a", start.numpy()), 30, keys, None)
    now = off_keyframes(decoded_track(run, torch.from_numpy(found.vector_C), 30), keys).mean()
    assert float(now) < 0.8 * float(was)  # of a model of 12 steps, whose motions are all but one
    assert [line.partition(" mm off of goal")[0] for line in found.told[:2]] == ["frame 5 0", "frame 20 0"]


def test_a_motion_comes_later_or_earlier_and_what_lacks_is_held() -> None:
    """A kick, which is no cycle: frame 8 of one that comes 5 frames later is frame 3, and its first frames stand."""
    kick = motion_of_kick(30)
    after, before = later(kick, 5), later(kick, -5)
    assert torch.equal(after[5:, :24], kick[:25, :24])
    assert torch.equal(after[:5, :24], kick[:1, :24].expand(5, 24, 6))
    assert torch.equal(before[:25, :24], kick[5:, :24])
    assert torch.equal(before[25:, :24], kick[-1:, :24].expand(5, 24, 6))
    assert torch.equal(later(kick, 0), kick)


def motion_of_kick(frames: int) -> torch.Tensor:
    """The first frames of the shipped kick, as rows."""
    kick = read(MOTIONS / "EMBEDDED/kick/kick_poses.npz")
    return rows_of_motion(matrix_to_rot6d(kick.rotmat_TJ33[:frames]), kick.trans_T3[:frames])


def test_it_begins_at_the_text_and_at_training_motions_and_a_run_without_them_at_the_text_alone(run: Run) -> None:
    assert run.z_NC is not None
    z = run.z_NC[0]
    keys = [Keyframe(20, "kick", read(WALK).rotmat_TJ33[3].float())]
    found = beginnings(run, z, keys, 30)
    assert torch.equal(found[0], z)
    assert len(found) == 1 + min(BEGINNINGS, 2 * len(run.z_NC.unique(dim=0)))
    assert torch.equal(beginnings(replace(run, z_NC=None), z, keys, 30), z[None])


def test_a_pose_is_the_same_whatever_way_it_faces_and_another_is_as_far_as_its_joints_are() -> None:
    """An arm of the rest pose that is turned by half about the vertical at its elbow: only what hangs on it is off."""
    rest = torch.eye(3).expand(1, 24, 3, 3)
    keys = [Keyframe(0, "rest", rest[0])]
    turned = rest.clone()
    turned[:, 0] = about_vertical(torch.tensor(1.0))
    assert off_poses(turned, keys).max() < 1e-5
    bent = rest.clone()
    bent[:, 18] = about_vertical(torch.tensor(math.pi))
    off = off_poses(bent, keys)[0]
    assert (off > 0.1).nonzero()[:, 0].tolist() == [20, 22]


def test_a_pose_of_a_file_that_does_not_say_all_is_read_as_it_is_asked(tmp_path: Path) -> None:
    """Places of joints, y up, lying: without --fps-in and --up they are refused, or stand up."""
    motion = read(WALK, fps=20.0)
    places = motion.joints().double().numpy()[:, :22]
    np.save(tmp_path / "lying.npy", places @ [[1, 0, 0], [0, 0, 1], [0, -1, 0]])  # world x, z, -y as x, y, z
    with pytest.raises(MotionError, match="pass --fps-in"):
        keyframe(f"3={tmp_path}/lying.npy", frames=10)
    for up, height in (("-y", 0), ("z", 1)):
        asked = Asked(fps=20.0, up=up)
        found = keyframe(f"3={tmp_path}/lying.npy:5", frames=10, asked=asked).rotmat_J33[0, 2]
        assert abs(float(found[1])) == pytest.approx(1 - height, abs=0.3), up  # the pelvis's own y is along the spine


def test_a_short_path_is_gone_along_and_one_too_far_says_what_is_left(run: Run) -> None:
    assert run.z_NC is not None
    prompt = Prompt("a", run.z_NC[0].numpy())
    for end, most in (("0,-0.6", 0.2), ("0,900", 900.0)):
        path = along(path_in(f"0,0 {end}"), 30)
        found = steered(run, prompt, 30, [], path)
        assert found.lead_T3 is not None
        at = led(decoded_track(run, torch.from_numpy(found.vector_C), 30), torch.from_numpy(found.lead_T3))
        off = (at.trans_T3[:, :2] - path).norm(dim=-1).mean()
        assert float(off) < most  # of a model of 12 steps, whose own path shakes by as much
        assert found.told[0].startswith("path: not reached: ") == (float(off) >= keyframes.MISSED)


def test_a_lead_turns_steps_and_shifts() -> None:
    """A body that goes along x and is turned by a quarter goes along y."""
    rest = torch.eye(3).expand(3, 24, 3, 3)
    path = torch.tensor([[0.0, 0, 1], [1, 0, 1], [2, 0, 1]])
    made = led(Track(rest, path), torch.tensor([[math.pi / 2, 5.0, 0]]).expand(3, 3))
    assert torch.allclose(made.trans_T3, torch.tensor([[5.0, 0, 1], [5, 1, 1], [5, 2, 1]]), atol=1e-6)


def test_a_path_reaches_its_points_at_even_times() -> None:
    found = along(path_in("0,0 2,0 2,4"), 5)
    assert found.tolist() == [[0, 0], [1, 0], [2, 0], [2, 2], [2, 4]]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--pose", f"60={WALK}"], "frame 60 of a motion of 60; expected 0 to 59"),
        (["--pose", f"-1={WALK}"], "expected FRAME=FILE or FRAME=FILE:FRAME"),
        (["--pose", f"3={WALK}:999"], "has the frames 0 to 38"),
        (["--pose", "3=gone.npz"], "gone.npz: No such file"),
        (["--path", "0,0"], "expected two points or more"),
        (["--path", "0,0 nan,1"], "expected two points or more"),
        (["--path", "0,0 1,1", "--frames", "90"], "--frames is 90: poses and paths steer one crop"),
    ],
)
def test_poses_and_paths_out_of_range_are_refused_by_name(
    run: Run, tmp_path: Path, options: list[str], told: str
) -> None:
    found = CliRunner().invoke(cli, ["generate", str(run.folder), "walk", *options, "--out", str(tmp_path / "o")])
    assert found.exit_code == 1
    assert told in found.output
    assert not (tmp_path / "o").exists()


def test_a_steered_motion_is_written_with_what_was_reached(run: Run, tmp_path: Path) -> None:
    words = ["generate", str(run.folder), "walk", "--pose", f"10={WALK}:5", "--path", "1,0 1,0.5", "--format", "npz"]
    told = CliRunner().invoke(cli, [*words, "--out", str(tmp_path / "o")])
    assert told.exit_code == 0, told.output
    assert "walk: frame 10 " in told.output
    assert "walk: path: " in told.output
    made = read(tmp_path / "o/00-walk.npz")
    assert (made.trans_T3[:, :2].mean(0) - torch.tensor([1.0, 0.25])).norm() < 0.2
