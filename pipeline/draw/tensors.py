"""The pictures of `rasterise` by tensors alone, on whatever device these are: a GPU that PyTorch3D has no wheel for.

Each face is tried against the pixels of its own bounding box, all faces of a batch at once. Of a pixel's faces the
nearest wins, of equally near ones the first: one `amin` over numbers whose upper half is the depth and whose lower half
is the face. Every product and sum is that of `rasterise`, in its order, so on a CPU both give the same bits.
"""

# B batch, V vertices, F faces, S picture side in pixels, N pairs of a face and a pixel

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from mclip.pipeline.draw.rasterise import AMBIENT, DIFFUSE, SPECULAR, Fragments, light_direction

EPSILON = 1e-8  # PyTorch3D's kEpsilon
PAIRS = 4_000_000  # of a face and a pixel that are tried at a time: some 0.5 GB
NOBODY = torch.iinfo(torch.int64).max


class Pairs(NamedTuple):
    """Faces, numbered through the batch, and pixels of their boxes, numbered from the right and from the bottom."""

    face_N: Int[Tensor, " N"]
    i_N: Int[Tensor, " N"]
    j_N: Int[Tensor, " N"]


def rasterise(
    view_BV3: Float[Tensor, "batch vertices 3"], faces_F3: Int[Tensor, "faces 3"], *, focal: float, size: int
) -> Fragments:
    """Fragments as those of `rasterise.rasterise`, on the device of the vertices."""
    corners = corners_of(view_BV3, faces_F3, focal)
    nearest = torch.full((len(view_BV3) * size * size,), NOBODY, device=view_BV3.device)
    for pairs in pairs_of(corners, size):
        z_N, _, inside_N = hits(corners.flatten(0, 1)[pairs.face_N], middle(pairs.i_N, size), middle(pairs.j_N, size))
        picture_N, face_N = pairs.face_N // len(faces_F3), pairs.face_N % len(faces_F3)
        pixel_N = (picture_N * size + size - 1 - pairs.j_N) * size + size - 1 - pairs.i_N
        key_N = (z_N.view(torch.int32).long() << 32) | face_N  # the bits of floats above 0 are in their order
        nearest.scatter_reduce_(0, pixel_N, torch.where(inside_N, key_N, NOBODY), "amin")
    face_BSS = torch.where(nearest == NOBODY, -1, nearest & 0xFFFFFFFF).view(-1, size, size)
    return fragments_of(corners, face_BSS)


def fragments_of(corners_BF33: Float[Tensor, "batch F 3 3"], face_BSS: Int[Tensor, "batch S S"]) -> Fragments:
    """Depths and barycentric coordinates of the face that each pixel shows."""
    size, picture_B11 = face_BSS.shape[-1], torch.arange(len(face_BSS), device=face_BSS.device)[:, None, None]
    from_right_S = torch.arange(size - 1, -1, -1, device=face_BSS.device)
    column_SS, row_SS = (each.expand(size, size) for each in (middle(from_right_S, size), middle(from_right_S, size)))
    z, bary, _ = hits(corners_BF33[picture_B11, face_BSS.clamp_min(0)], column_SS, row_SS.T)
    empty = face_BSS < 0
    return Fragments(face_BSS, z.masked_fill(empty, -1), bary.masked_fill(empty[..., None], -1))


def corners_of(view_BV3: Tensor, faces_F3: Tensor, focal: float) -> Float[Tensor, "batch F 3 3"]:
    """Corners of faces: x and y in NDC, and the depth."""
    z_BV = view_BV3[..., 2:]
    ndc_BV3 = torch.cat((view_BV3[..., :2] * focal / z_BV, z_BV), dim=-1)
    return ndc_BV3.nan_to_num()[:, faces_F3]


def pairs_of(corners_BF33: Float[Tensor, "batch F 3 3"], size: int) -> Iterator[Pairs]:
    """All faces that can be seen, with the pixels whose middles may lie in their boxes, so many pictures at a time."""
    low_BF3, high_BF3 = corners_BF33.amin(2), corners_BF33.amax(2)
    (x0, y0), (x1, y1), (x2, y2) = (corners_BF33[..., corner, :2].unbind(-1) for corner in range(3))
    flat_BF = ((x0 - x1) * (y2 - y1) - (y0 - y1) * (x2 - x1)).abs() <= EPSILON
    seen_BF = (low_BF3[..., 2] >= EPSILON) & ~flat_BF
    # Rounding moves middles by far less than this slack of 0.02 pixels.
    first = ((low_BF3[..., :2] + 1) * (0.5 * size) - (0.5 + 0.02)).ceil().clamp(0, size).long()
    last = ((high_BF3[..., :2] + 1) * (0.5 * size) - (0.5 - 0.02)).floor().clamp(-1, size - 1).long()
    extent_BF2 = (last - first + 1).clamp_min(0)
    count_BF = torch.where(seen_BF, extent_BF2.prod(-1), 0)
    faces = count_BF.shape[1]
    for start, stop in groups(count_BF.sum(1).tolist()):
        count = count_BF[start:stop].flatten()
        face = torch.arange(len(count), device=count.device).repeat_interleave(count) + start * faces
        place = torch.arange(len(face), device=count.device) - (count.cumsum(0) - count)[face - start * faces]
        i0, j0 = first.flatten(0, 1)[face].unbind(-1)
        width = extent_BF2.flatten(0, 1)[face, 0]
        yield Pairs(face, i0 + place % width, j0 + place // width)


def groups(pairs: list[int]) -> Iterator[tuple[int, int]]:
    """Pictures from a first to a last, of as many as PAIRS pairs together, or one that has more."""
    start, held = 0, 0
    for number, count in enumerate(pairs):
        if held and held + count > PAIRS:
            yield start, number
            start, held = number, 0
        held += count
    if held:
        yield start, len(pairs)


def middle(pixel_N: Int[Tensor, " *N"], size: int) -> Float[Tensor, " *N"]:
    """Middles of pixels in NDC, by PyTorch3D's formula; pixel 0 is the right or the bottom one."""
    return (2 * pixel_N.float() + 1) / size - 1


def hits(
    corners_N33: Float[Tensor, "*N 3 3"], px: Float[Tensor, "*#N"], py: Float[Tensor, "*#N"]
) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N 3"], Tensor]:
    """Depths of faces at points, perspective-correct barycentric coordinates, and whether the points lie inside."""
    (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = (each.unbind(-1) for each in corners_N33.unbind(-2))
    area = (x2 - x0) * (y1 - y0) - (y2 - y0) * (x1 - x0) + EPSILON
    side = torch.where(area > 0, 1.0, -1.0)
    e0 = ((px - x1) * (y2 - y1) - (py - y1) * (x2 - x1)) * side
    e1 = ((px - x2) * (y0 - y2) - (py - y2) * (x0 - x2)) * side
    e2 = ((px - x0) * (y1 - y0) - (py - y0) * (x1 - x0)) * side
    t0, t1, t2 = (e0 * side / area) * z1 * z2, (e1 * side / area) * z0 * z2, (e2 * side / area) * z0 * z1
    total = (t0 + t1 + t2).clamp_min(EPSILON)
    w0, w1, w2 = t0 / total, t1 / total, t2 / total
    (low_x, low_y, _), (high_x, high_y, _) = corners_N33.amin(-2).unbind(-1), corners_N33.amax(-2).unbind(-1)
    in_box = (px >= low_x) & (px <= high_x) & (py >= low_y) & (py <= high_y)
    inside = in_box & (torch.minimum(torch.minimum(e0, e1), e2) > 0)
    return w0 * z0 + w1 * z1 + w2 * z2, torch.stack((w0, w1, w2), dim=-1), inside


def normals_of(view_BV3: Float[Tensor, "batch V 3"], faces_F3: Int[Tensor, "F 3"]) -> Float[Tensor, "batch V 3"]:
    """Unit normals of vertices: the sum of their faces', each as long as its face is large."""
    a, b, c = view_BV3[:, faces_F3].unbind(2)
    face_BF3 = torch.linalg.cross(c - b, a - b)
    normal_BV3 = torch.zeros_like(view_BV3).index_add_(1, faces_F3.flatten(), face_BF3.repeat_interleave(3, dim=1))
    return normal_BV3 / length(normal_BV3)


def length(vector: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
    """Lengths, at least PyTorch3D's floor: normals of minute faces stay shorter than one."""
    return vector.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-6)


def shade(point: Float[Tensor, "*N 3"], normal: Float[Tensor, "*N 3"], colour: Float[Tensor, "*N 3"]) -> Tensor:
    """Colours of points in view axes, RGB 0..1 (*N, 3), by the formula of all backends; the camera is at 0."""
    light = torch.stack([torch.full_like(point[..., 0], axis) for axis in light_direction()], dim=-1)
    normal = normal / length(normal)
    cosine = (normal * light).sum(-1, keepdim=True)
    mirrored = 2 * cosine * normal - light
    shine = (-(point * mirrored).sum(-1, keepdim=True) / length(point)).clamp_min(0)
    lit = cosine > 0
    diffuse, specular = torch.where(lit, cosine, 0.0), torch.where(lit, shine, 0.0)
    sixteenth = specular.square().square().square().square()
    return (colour * (AMBIENT + DIFFUSE * diffuse) + SPECULAR * sixteenth).clamp_max(1)


@torch.no_grad()
def draw(
    view_BV3: Float[Tensor, "batch vertices 3"],
    faces_F3: Int[Tensor, "faces 3"],
    *,
    focal: float,
    size: int,
    colours_V3: Float[Tensor, "vertices 3"],
    background: tuple[float, float, float],
) -> UInt8[Tensor, "batch size size 3"]:
    """Shaded pictures (B, S, S, 3), RGB 0..255, of meshes in view axes, where these are; colours are RGB 0..1."""
    view_BV3 = view_BV3.float()
    found = rasterise(view_BV3, faces_F3, focal=focal, size=size)
    corner_BSS3 = faces_F3[found.pix_to_face.clamp_min(0)]
    picture_B111 = torch.arange(len(view_BV3), device=view_BV3.device)[:, None, None, None]
    at_corners = (view_BV3[picture_B111, corner_BSS3], normals_of(view_BV3, faces_F3)[picture_B111, corner_BSS3])
    point, normal, colour = (
        (each * found.bary_coords[..., None]).sum(-2) for each in (*at_corners, colours_V3[corner_BSS3])
    )
    rgb = shade(point, normal, colour)
    around = torch.stack([torch.full_like(rgb[..., 0], share) for share in background], dim=-1)
    seen = (found.pix_to_face >= 0)[..., None]
    return (torch.where(seen, rgb, around) * 255 + 0.5).to(torch.uint8)
