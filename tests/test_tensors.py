"""Pictures by tensors alone, against those of the compiled rasteriser: on a CPU not a bit may differ."""

import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mclip.pipeline.draw import rasterise, tensors
from mclip.pipeline.draw.backends import render_bodies
from mclip.pipeline.draw.camera import Camera, front_camera
from mclip.pipeline.draw.ground import add_ground
from mclip.pipeline.draw.looks import CLAY
from mclip.pipeline.geometry.body import load_body

GOLDEN = runpy.run_path(str(Path(__file__).parent / "golden" / "regenerate.py"))
Scene = tuple[Tensor, Tensor, Tensor, Camera]


@pytest.fixture(scope="module")
def scene() -> Scene:
    """The golden poses on floors, whose two large faces fill most of a picture: vertices, faces, colours, cameras."""
    body, rotmat = load_body("low"), GOLDEN["poses"]()
    vertices = body.pose(rotmat)
    camera = front_camera(rotmat[:, 0], vertices, yaw_offset=GOLDEN["yaws"]())
    low, high = torch.aminmax(vertices, dim=1)
    centre = torch.cat(((low + high)[:, :2] / 2, low[:, 2:]), dim=1)
    half = torch.full((len(vertices),), 2.0)
    clay = torch.tensor(CLAY).expand(vertices.shape[1:])
    return *add_ground(vertices, body.faces_F3, clay, centre_B3=centre, half_B=half), camera


def same(ours: rasterise.Fragments, theirs: rasterise.Fragments) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def test_fragments_are_those_of_the_compiled_rasteriser(scene):
    vertices, faces, _, camera = scene
    given = {"faces_F3": faces, "focal": camera.focal, "size": 96}
    view = camera.view(vertices)
    found = tensors.rasterise(view, **given)
    same(found, rasterise.rasterise(view, **given))
    assert (found.pix_to_face >= 0).float().mean() > 0.2
    # One body reaches behind the camera, one stands outside the picture.
    moved = view[:2] - torch.tensor([[[0.0, 0.0, 2.5]], [[50.0, 0.0, 0.0]]])
    same(tensors.rasterise(moved, **given), rasterise.rasterise(moved, **given))
    assert (tensors.rasterise(moved, **given).pix_to_face[1] == -1).all()


def test_of_equally_near_faces_the_first_is_seen():
    corners = torch.tensor([[[-1.0, -1, 2], [1, -1, 2], [0, 1, 2], [-1, -1, 1], [1, -1, 1], [0, 1, 1]]])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5], [4, 5, 3], [5, 4, 3]])
    found = tensors.rasterise(corners, faces, focal=1.0, size=16)
    assert set(found.pix_to_face.unique().tolist()) == {-1, 1}
    same(found, rasterise.rasterise(corners, faces, focal=1.0, size=16))


def test_pictures_are_those_of_the_compiled_rasteriser_and_of_each_body_alone(scene, monkeypatch):
    vertices, faces, _, camera = scene
    look = {"size": 64, "background": (0.2, 0.4, 0.9), "antialias": 2}
    look["colour"] = torch.rand(vertices.shape[1], 3, generator=torch.Generator().manual_seed(0))
    by_tensors, compiled = (render_bodies(vertices, faces, camera, backend=each, **look) for each in ("torch", "cpu"))
    assert (by_tensors.int() - compiled.int()).abs().max() <= 1
    assert (by_tensors != compiled).float().mean() < 1e-3
    monkeypatch.setattr(tensors, "PAIRS", 1)  # a picture at a time
    assert torch.equal(render_bodies(vertices, faces, camera, backend="torch", **look), by_tensors)
    assert list(tensors.groups([0, 2, 0, 3])) == [(0, 2), (2, 4)]
    assert list(tensors.groups([0, 0])) == []


def test_a_mesh_without_area_or_in_nobodys_sight_is_background():
    flat = torch.tensor([[[0.0, 0, 2], [1, 1, 2], [2, 2, 2]]])
    found = tensors.rasterise(flat, torch.tensor([[0, 1, 2]]), focal=1.0, size=8)
    assert (found.pix_to_face == -1).all()
    assert (found.zbuf == -1).all()
    assert (found.bary_coords == -1).all()
