"""The rasteriser against a slow twin that tests every pixel against every face, and against PyTorch3D."""

import pytest
import torch

from mclip.pipeline.draw import rasterise
from mclip.pipeline.draw.rasterise import Fragments

FOCAL = 3.7


def random_mesh(
    seed: int, *, vertices: int = 60, faces: int = 120, depth: float = 4.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A crowd of triangles in view axes, large and small, some reaching out of the picture."""
    generator = torch.Generator().manual_seed(seed)
    points = 0.8 * torch.randn(1, vertices, 3, generator=generator) + torch.tensor([0.0, 0.0, depth])
    corners = torch.randint(0, vertices, (faces, 3), generator=generator)
    return points, corners


def twin(view_V3: torch.Tensor, faces_F3: torch.Tensor, *, size: int) -> Fragments:
    """Every pixel against every face, in float64."""
    view = view_V3.double()
    corners = view[faces_F3]
    xy = FOCAL * corners[..., :2] / corners[..., 2:]
    ndc = -1 + (2 * torch.arange(size, dtype=torch.float64) + 1) / size
    pixels = torch.stack(torch.meshgrid(-ndc, -ndc, indexing="ij")[::-1], dim=-1).flatten(0, 1)[:, None]
    a, b, c = (xy[:, k] for k in range(3))

    def cross(p: torch.Tensor, q: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        return (p - q)[..., 0] * (r - q)[..., 1] - (p - q)[..., 1] * (r - q)[..., 0]

    area = cross(c, a, b)
    flat = torch.stack((cross(pixels, b, c), cross(pixels, c, a), cross(pixels, a, b)), dim=-1) / area[:, None]
    over_z = flat / corners[..., 2]
    bary = over_z / over_z.sum(-1, keepdim=True)
    z = (bary * corners[..., 2]).sum(-1)
    seen = (flat > 0).all(-1) & (area.abs() > 1e-8) & (corners[..., 2] > 1e-8).all(-1)
    z = torch.where(seen, z, torch.inf)
    zbuf, face = z.min(dim=1)
    hit = zbuf < torch.inf
    chosen = bary[torch.arange(len(face)), face]
    square = (size, size)
    return Fragments(
        torch.where(hit, face, -1).view(1, *square),
        torch.where(hit, zbuf, -1.0).float().view(1, *square),
        torch.where(hit[:, None], chosen, -1.0).float().view(1, *square, 3),
    )


@pytest.mark.parametrize("seed", range(4))
def test_rasteriser_agrees_with_testing_every_pixel_against_every_face(seed):
    view, faces = random_mesh(seed)
    ours = rasterise.rasterise(view, faces, focal=FOCAL, size=40)
    slow = twin(view[0], faces, size=40)
    same = ours.pix_to_face == slow.pix_to_face
    assert same.float().mean() > 0.998  # float32 against float64: pixels exactly on an edge may differ
    assert (slow.pix_to_face >= 0).float().mean() > 0.3
    torch.testing.assert_close(ours.zbuf[same], slow.zbuf[same], atol=1e-3, rtol=0)
    torch.testing.assert_close(ours.bary_coords[same], slow.bary_coords[same], atol=2e-3, rtol=0)


def test_left_in_view_is_left_in_the_picture_and_up_is_up():
    view = torch.tensor([[[0.3, 0.2, 4.0], [0.5, 0.2, 4.0], [0.3, 0.5, 4.0]]])
    face = rasterise.rasterise(view, torch.tensor([[0, 1, 2]]), focal=FOCAL, size=32).pix_to_face[0]
    rows, columns = (face == 0).nonzero(as_tuple=True)
    assert len(rows) > 0
    assert rows.max() < 16
    assert columns.max() < 16


def test_nearer_face_hides_the_farther_one_whatever_their_order():
    triangle = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [0, 1, 0]])
    view = torch.cat((triangle + torch.tensor([0, 0, 3.0]), triangle + torch.tensor([0, 0, 4.0])))[None]
    for order, nearest in (([[0, 1, 2], [3, 4, 5]], 0), ([[3, 4, 5], [0, 1, 2]], 1)):
        found = rasterise.rasterise(view, torch.tensor(order), focal=FOCAL, size=32)
        assert found.pix_to_face[0, 16, 16] == nearest
        assert found.zbuf[0, 16, 16].item() == pytest.approx(3.0, abs=1e-5)


def test_of_equally_deep_faces_the_first_is_kept():
    view = torch.tensor([[[-1.0, -1, 3], [1, -1, 3], [0, 1, 3]]])
    found = rasterise.rasterise(view, torch.tensor([[0, 1, 2], [0, 1, 2]]), focal=FOCAL, size=32)
    assert found.pix_to_face.unique().tolist() == [-1, 0]


def test_faces_of_no_area_are_left_out():
    view = torch.tensor([[[-1.0, -1, 3], [1, -1, 3], [0, 1, 3], [0.5, 0, 3]]])
    faces = torch.tensor([[0, 0, 1], [2, 2, 2], [0, 1, 1]])
    assert (rasterise.rasterise(view, faces, focal=FOCAL, size=32).pix_to_face == -1).all()
    control = rasterise.rasterise(view, torch.tensor([[0, 1, 2]]), focal=FOCAL, size=32)
    assert (control.pix_to_face == 0).any()


def test_faces_with_a_corner_behind_the_camera_are_left_out():
    view = torch.tensor([[[-1.0, -1, 3], [1, -1, 3], [0, 1, 3], [0, 1, -0.5], [0, 1, 0.0]]])
    faces = torch.tensor([[0, 1, 3], [0, 1, 4], [0, 1, 2]])
    assert rasterise.rasterise(view, faces, focal=FOCAL, size=32).pix_to_face.unique().tolist() == [-1, 2]


@pytest.mark.pytorch3d
@pytest.mark.parametrize("size", [33, 64])
def test_fragments_are_those_of_pytorch3d_to_the_bit(size):
    renderer, structures = pytest.importorskip("pytorch3d.renderer"), pytest.importorskip("pytorch3d.structures")
    batch = 6
    meshes = [random_mesh(seed, depth=depth) for seed, depth in enumerate((4.0, 4.0, 2.5, 1.0, 0.3, 8.0))]
    view = torch.cat([points for points, _ in meshes])
    faces = meshes[0][1].clone()
    faces[:5] = faces[0, 0]  # degenerate
    faces[5] = faces[6]  # equally deep
    cameras = renderer.PerspectiveCameras(focal_length=FOCAL)
    rasteriser = renderer.MeshRasterizer(cameras, renderer.RasterizationSettings(image_size=size))
    theirs = rasteriser(structures.Meshes(view, faces[None].expand(batch, -1, -1)))
    ours = rasterise.rasterise(view, faces, focal=FOCAL, size=size)
    packed = theirs.pix_to_face[..., 0]
    theirs_face = torch.where(packed >= 0, packed - torch.arange(batch)[:, None, None] * len(faces), packed)
    assert torch.equal(ours.pix_to_face, theirs_face)
    assert torch.equal(ours.zbuf, theirs.zbuf[..., 0])
    assert torch.equal(ours.bary_coords, theirs.bary_coords[..., 0, :])
    assert (view[..., 2] < 0).any()  # the cases behind the camera are among them
