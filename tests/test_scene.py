"""What pictures show: still cameras, floors, clips frame by frame, and how many are drawn at once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mclip.pipeline.draw.camera import BORDER, fixed_camera, follow_camera, orbit
from mclip.pipeline.draw.ground import TILES, add_ground, under_path
from mclip.pipeline.files.assets import ASSETS
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix
from mclip.pipeline.prepare.amass import read_motion
from mclip.pipeline.render import scene
from mclip.pipeline.render.options import RenderOptions
from mclip.pipeline.render.scene import Shot, batch_size, clip_pictures, draw_shots, rgb, setting_of

MOTIONS = ASSETS / "motions/EMBEDDED"


def motion(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotations and translations of an embedded clip."""
    read = read_motion(path)
    return axis_angle_to_matrix(torch.from_numpy(read.poses_TJ3)).float(), torch.from_numpy(read.trans_T3).float()


def clip(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return motion(next(MOTIONS.glob(f"{name}/*.npz")))


def test_joints_and_the_bodys_reach_keep_every_vertex_inside_the_border():
    body, files = load_body("low"), sorted(MOTIONS.glob("*/*.npz"))
    assert 0.1 < body.reach < 0.3
    assert len(files) >= 15
    for path in files:
        rotmat, trans = motion(path)
        joints, vertices = body.pose_joints(rotmat, trans_B3=trans), body.pose(rotmat, trans_B3=trans)
        fixed = fixed_camera(rotmat[:, 0], joints, yaw_offsets=orbit(2), margin=body.reach)
        still = fixed[torch.tensor([0, 1]).repeat(len(trans))]
        for camera, seen in (
            (still, vertices.repeat_interleave(2, dim=0)),
            (follow_camera(rotmat[:, 0], joints, fps=30, margin=body.reach), vertices),
        ):
            view = camera.view(seen)
            assert (view[..., 2] > 0.5).all()
            assert (camera.focal * view[..., :2] / view[..., 2:]).abs().max() <= 1 - BORDER + 1e-4, path


def test_far_translation_gives_the_same_picture_with_a_fixed_camera_and_floor():
    body, (rotmat, trans) = load_body("low"), clip("kick")
    options = RenderOptions(size=96, camera="fixed", ground=True)
    pictures = []
    for far in (torch.zeros(3), torch.tensor([1000.0, -500, 20])):
        setting = setting_of(body, rotmat, trans + far, options)
        pictures.append(draw_shots([Shot(body, rotmat[9], trans[9] + far, 0, setting)], options)[0][0].astype(int))
    assert (np.abs(pictures[0] - pictures[1]).max(-1) > 8).mean() < 0.005


def test_no_vertex_is_below_the_floor_and_the_lowest_stands_on_it():
    body, (rotmat, trans) = load_body("low"), clip("backflip")
    options = RenderOptions(ground=True)
    setting = setting_of(body, rotmat, trans, options)
    shots = [Shot(body, rotmat[frame], trans[frame], 0, setting) for frame in range(len(trans))]
    vertices = scene.posed(shots)
    above = (vertices[..., 2] - scene.ground_of(shots, vertices)[:, None, 2]).amin(1)
    assert above.min().item() == pytest.approx(0, abs=1e-5)
    assert above.max() > 0.3  # in the air


def test_floor_is_level_chequered_and_faces_up():
    vertices, faces, colours = add_ground(
        torch.zeros(2, 3, 3),
        torch.tensor([[0, 1, 2]]),
        torch.zeros(3, 3),
        centre_B3=torch.tensor([[1.0, 2, -0.5], [0, 0, 3]]),
        half_B=torch.tensor([2.0, 4]),
    )
    ground = vertices[:, 3:]
    torch.testing.assert_close(ground.amin(1), torch.tensor([[-1.0, 0, -0.5], [-4, -4, 3]]))
    torch.testing.assert_close(ground.amax(1), torch.tensor([[3.0, 4, -0.5], [4, 4, 3]]))
    assert len(faces) == 1 + 2 * TILES**2
    corners = vertices[0][faces[1:]]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normal[:, 2] > 0).all()
    assert normal[:, 2].sum().item() / 2 == pytest.approx(16)  # the whole square, once
    tile = (corners.mean(1) - torch.tensor([-1.0, 0, 0])).div(0.5).floor()
    grey = colours[faces[1:]]
    assert (grey == grey[:, :1]).all()
    assert len(grey[(tile[:, 0] + tile[:, 1]) % 2 == 0].unique()) == 1
    assert len(grey.unique()) == 2


def test_floor_under_a_path_has_tiles_of_half_a_metre_until_there_are_too_many():
    half, tiles = under_path(3.0)
    assert half * 2 / tiles == 0.5
    assert half >= 1.5 + 2.3
    assert under_path(1000.0) == (502.3, 64)


@pytest.mark.parametrize("camera", ["front", "fixed"])
def test_a_clip_comes_batch_by_batch_with_its_views_side_by_side(monkeypatch, camera):
    body, (rotmat, trans) = load_body("low"), clip("walk")
    rotmat, trans = rotmat[:20], trans[:20]
    monkeypatch.setattr(scene, "BATCH", 8)
    options = RenderOptions(size=48, views=2, camera=camera, ground=True, colour="tomato")
    batches = list(clip_pictures(body, rotmat, trans, fps=30.0, options=options))
    assert [len(batch) for batch in batches] == [8, 8, 4]
    pictures = torch.cat(batches)
    assert pictures.shape == (20, 48, 96, 3)
    one = RenderOptions(size=48, camera=camera, ground=True, colour="tomato")
    front = torch.cat(list(clip_pictures(body, rotmat, trans, fps=30.0, options=one)))
    assert torch.equal(pictures[:, :, :48], front)
    assert (pictures[:, :, 48:].int() - front.int()).abs().amax((1, 2, 3)).min() > 50
    red = (pictures[..., 0].int() - pictures[..., 2].int() > 40).float().mean((1, 2))
    assert red.min() > 0.02


def test_the_floor_of_a_clip_moves_under_a_camera_that_follows_a_walk():
    body, (rotmat, trans) = load_body("low"), clip("walk")
    options = RenderOptions(size=64, ground=True)
    pictures = torch.cat(list(clip_pictures(body, rotmat, trans, fps=30.0, options=options))).int()
    corner = pictures[:, -12:, :12]
    assert corner.diff(dim=0).abs().amax((1, 2, 3)).float().mean() > 10


def test_colours_are_css_names_hex_or_clay():
    assert rgb("white") == (1.0, 1.0, 1.0)
    assert rgb("#336699") == (0.2, 0.4, 0.6)
    assert rgb("clay") == (0.80, 0.77, 0.74)


def test_large_pictures_are_drawn_fewer_at_once():
    body = load_body("low")
    assert batch_size(RenderOptions(), body) == 32
    assert batch_size(RenderOptions(antialias=2), body) == 32
    assert batch_size(RenderOptions(size=1024), body) == 6
    assert batch_size(RenderOptions(size=4096, antialias=2), body) == 1


@pytest.mark.cuda
def test_batches_on_cuda_fit_what_is_free():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    body = load_body("low").to("cuda")
    free, _ = torch.cuda.mem_get_info()
    few, many = batch_size(RenderOptions(size=4096), body), batch_size(RenderOptions(size=64), body)
    assert 1 <= few < many <= 1024
    assert few * 200 * 4096**2 < max(free, 200 * 4096**2 + 1)
