"""Poses and paths that a motion is steered through: reached where they can be, told where not, refused by name."""

import math
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
from mclip.training.latent import keyframes
from mclip.training.latent.keyframes import Keyframe, along, decoded_track, keyframe, led, path_in, steered
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
    was = keyframes.off_poses(decoded_track(run, start, 30), keys).mean()
    found = steered(run, Prompt("a", start.numpy()), 30, keys, None)
    now = keyframes.off_poses(decoded_track(run, torch.from_numpy(found.vector_C), 30), keys).mean()
    assert float(now) < 0.8 * float(was)  # of a model of 12 steps, whose motions are all but one
    assert [line.partition(" mm off of goal")[0] for line in found.told[:2]] == ["frame 5 0", "frame 20 0"]


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
