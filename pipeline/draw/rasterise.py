"""A z-buffer rasteriser on the CPU that fills PyTorch3D's Fragments, and its Phong shading.

Every float32 operation is PyTorch3D's, in PyTorch3D's order (its rasterize_meshes at one face a pixel, no blur, its
default culling), so both choose the same face for each pixel. Only the search differs: PyTorch3D's CPU kernel tests
every pixel against every face, this one walks each face's bounding box. No fastmath: it would break that agreement.
"""

# B batch, V vertices, F faces, S picture side in pixels

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from mclip.pipeline.machine.compiled import compiled, run_parts

# The one shading formula of all backends, colours as shares of white:
#   colour * (AMBIENT + DIFFUSE * max(n.l, 0)) + SPECULAR * max(v.r, 0) ** SHININESS
AMBIENT, DIFFUSE, SPECULAR, SHININESS = 0.36, 0.66, 0.10, 16
LIGHT = (0.5, 0.7, -1.0)  # towards the light in view axes: over the camera's left shoulder

_F = np.float32
_EPSILON = 1e-8  # PyTorch3D's kEpsilon, a double there too


class Fragments(NamedTuple):
    """What PyTorch3D's rasteriser gives at one face a pixel; -1 where there is no face.

    Faces count from 0 in each picture (PyTorch3D counts on through the batch).
    """

    pix_to_face: Int[Tensor, "batch size size"]
    zbuf: Float[Tensor, "batch size size"]
    bary_coords: Float[Tensor, "batch size size 3"]


@compiled
def _view(world_V3, R_33, T_3, view_V3):  # type: ignore[no-untyped-def]
    for v in range(world_V3.shape[0]):
        x, y, z = world_V3[v, 0], world_V3[v, 1], world_V3[v, 2]
        for k in range(3):  # the order of Camera.view
            view_V3[v, k] = ((x * R_33[0, k] + y * R_33[1, k]) + z * R_33[2, k]) + T_3[k]


@compiled
def _rasterise(view_V3, faces_F3, focal, ndc_S, face_SS, zbuf_SS, bary_SS3):  # type: ignore[no-untyped-def]
    size = ndc_S.shape[0]
    last = _F(size - 1)
    half = _F(0.5) * _F(size)
    slack = _F(0.02)
    ndc_V3 = np.empty((view_V3.shape[0], 3), np.float32)
    for v in range(view_V3.shape[0]):
        z = view_V3[v, 2]
        ndc_V3[v, 2] = z
        if z >= _EPSILON:
            ndc_V3[v, 0] = (view_V3[v, 0] * focal) / z
            ndc_V3[v, 1] = (view_V3[v, 1] * focal) / z
    zbuf_SS[:] = np.inf
    face_SS[:] = -1
    for f in range(faces_F3.shape[0]):
        a, b, c = faces_F3[f, 0], faces_F3[f, 1], faces_F3[f, 2]
        z0, z1, z2 = ndc_V3[a, 2], ndc_V3[b, 2], ndc_V3[c, 2]
        zmin = min(z0, z1, z2)
        if zmin < _EPSILON:  # PyTorch3D drops a face with a corner behind the camera
            continue
        x0, y0 = ndc_V3[a, 0], ndc_V3[a, 1]
        x1, y1 = ndc_V3[b, 0], ndc_V3[b, 1]
        x2, y2 = ndc_V3[c, 0], ndc_V3[c, 1]
        xmin, xmax = min(x0, x1, x2), max(x0, x1, x2)
        ymin, ymax = min(y0, y1, y2), max(y0, y1, y2)
        # Pixels whose middles may lie in the bounding box: rounding moves them by far less than the slack.
        i0 = int(max(np.ceil((xmin + _F(1)) * half - (_F(0.5) + slack)), _F(0)))
        i1 = int(min(np.floor((xmax + _F(1)) * half - (_F(0.5) - slack)), last))
        j0 = int(max(np.ceil((ymin + _F(1)) * half - (_F(0.5) + slack)), _F(0)))
        j1 = int(min(np.floor((ymax + _F(1)) * half - (_F(0.5) - slack)), last))
        if i0 > i1 or j0 > j1:
            continue
        flat = (x0 - x1) * (y2 - y1) - (y0 - y1) * (x2 - x1)
        if -_EPSILON <= flat <= _EPSILON:
            continue
        area = _F(np.float64((x2 - x0) * (y1 - y0) - (y2 - y0) * (x1 - x0)) + _EPSILON)
        ax, ay, bx, by, cx, cy = x2 - x1, y2 - y1, x0 - x2, y0 - y2, x1 - x0, y1 - y0
        side = _F(1) if area > 0 else _F(-1)
        nearest = zmin * _F(1 - 1e-6)  # no pixel of this face rounds to less
        for j in range(j0, j1 + 1):
            py = ndc_S[j]
            row = size - 1 - j
            ey0, ey1, ey2 = (py - y1) * ax, (py - y2) * bx, (py - y0) * cx
            for i in range(i0, i1 + 1):
                px = ndc_S[i]
                e0 = ((px - x1) * ay - ey0) * side
                e1 = ((px - x2) * by - ey1) * side
                e2 = ((px - x0) * cy - ey2) * side
                # Inside means three positive barycentric coordinates; with positive depths the signs decide.
                if not min(e0, e1, e2) > 0:
                    continue
                column = size - 1 - i
                if zbuf_SS[row, column] < nearest:
                    continue
                if px < xmin or px > xmax or py < ymin or py > ymax:
                    continue
                t0 = (e0 * side / area) * z1 * z2
                t1 = (e1 * side / area) * z0 * z2
                t2 = (e2 * side / area) * z0 * z1
                total = max(t0 + t1 + t2, _F(_EPSILON))
                w0, w1, w2 = t0 / total, t1 / total, t2 / total
                z = w0 * z0 + w1 * z1 + w2 * z2
                if z < zbuf_SS[row, column]:  # of equal depths the first face stays, as there
                    zbuf_SS[row, column] = z
                    face_SS[row, column] = f
                    bary_SS3[row, column, 0] = w0
                    bary_SS3[row, column, 1] = w1
                    bary_SS3[row, column, 2] = w2


@compiled
def _normals(view_V3, faces_F3, normals_V3):  # type: ignore[no-untyped-def]
    normals_V3[:] = 0
    for f in range(faces_F3.shape[0]):
        a, b, c = faces_F3[f, 0], faces_F3[f, 1], faces_F3[f, 2]
        ux, uy, uz = (view_V3[c, 0] - view_V3[b, 0], view_V3[c, 1] - view_V3[b, 1], view_V3[c, 2] - view_V3[b, 2])
        wx, wy, wz = (view_V3[a, 0] - view_V3[b, 0], view_V3[a, 1] - view_V3[b, 1], view_V3[a, 2] - view_V3[b, 2])
        x, y, z = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for v in (a, b, c):
            normals_V3[v, 0] += x
            normals_V3[v, 1] += y
            normals_V3[v, 2] += z
    for v in range(normals_V3.shape[0]):
        x, y, z = normals_V3[v, 0], normals_V3[v, 1], normals_V3[v, 2]
        # PyTorch3D's floor, in square metres: normals of minute faces stay shorter than one.
        length = max(np.sqrt(x * x + y * y + z * z), _F(1e-6))
        normals_V3[v, 0] = x / length
        normals_V3[v, 1] = y / length
        normals_V3[v, 2] = z / length


@compiled
def _phong(nx, ny, nz, px, py, pz, light):  # type: ignore[no-untyped-def]
    """Diffuse cosine, and specular cosine to the power, of a normal and a point in view axes; the camera is at 0."""
    length = max(np.sqrt(nx * nx + ny * ny + nz * nz), _F(1e-6))
    nx, ny, nz = nx / length, ny / length, nz / length
    cosine = nx * light[0] + ny * light[1] + nz * light[2]
    if cosine <= 0:
        return _F(0), _F(0)
    rx = _F(2) * cosine * nx - light[0]
    ry = _F(2) * cosine * ny - light[1]
    rz = _F(2) * cosine * nz - light[2]
    away = max(np.sqrt(px * px + py * py + pz * pz), _F(1e-6))
    shine = max(-(px * rx + py * ry + pz * rz) / away, _F(0))
    return cosine, shine**SHININESS


@compiled
def _shade(view_V3, normals_V3, faces_F3, face_SS, bary_SS3, light, colours_V3, background, out_SS3):  # type: ignore[no-untyped-def]
    size = face_SS.shape[0]
    for row in range(size):
        for column in range(size):
            f = face_SS[row, column]
            if f < 0:
                out_SS3[row, column] = background
                continue
            a, b, c = faces_F3[f, 0], faces_F3[f, 1], faces_F3[f, 2]
            u, v, w = bary_SS3[row, column, 0], bary_SS3[row, column, 1], bary_SS3[row, column, 2]
            cosine, shine = _phong(
                u * normals_V3[a, 0] + v * normals_V3[b, 0] + w * normals_V3[c, 0],
                u * normals_V3[a, 1] + v * normals_V3[b, 1] + w * normals_V3[c, 1],
                u * normals_V3[a, 2] + v * normals_V3[b, 2] + w * normals_V3[c, 2],
                u * view_V3[a, 0] + v * view_V3[b, 0] + w * view_V3[c, 0],
                u * view_V3[a, 1] + v * view_V3[b, 1] + w * view_V3[c, 1],
                u * view_V3[a, 2] + v * view_V3[b, 2] + w * view_V3[c, 2],
                light,
            )
            for k in range(3):
                colour = u * colours_V3[a, k] + v * colours_V3[b, k] + w * colours_V3[c, k]
                value = colour * (_F(AMBIENT) + _F(DIFFUSE) * cosine) + _F(SPECULAR) * shine
                out_SS3[row, column, k] = np.uint8(min(value, _F(1)) * _F(255) + _F(0.5))


@compiled
def _draw(world_BV3, R_B33, T_B3, focal, faces_F3, ndc_S, light, colours_V3, background, out_BSS3):  # type: ignore[no-untyped-def]
    size = ndc_S.shape[0]
    view_V3 = np.empty((world_BV3.shape[1], 3), np.float32)
    normals_V3 = np.empty((world_BV3.shape[1], 3), np.float32)
    face_SS = np.empty((size, size), np.int32)
    zbuf_SS = np.empty((size, size), np.float32)
    bary_SS3 = np.empty((size, size, 3), np.float32)
    for item in range(world_BV3.shape[0]):
        _view(world_BV3[item], R_B33[item], T_B3[item], view_V3)
        _rasterise(view_V3, faces_F3, focal, ndc_S, face_SS, zbuf_SS, bary_SS3)
        _normals(view_V3, faces_F3, normals_V3)
        _shade(view_V3, normals_V3, faces_F3, face_SS, bary_SS3, light, colours_V3, background, out_BSS3[item])


@compiled
def _shade_vertices(view_V3, faces_F3, light, colours_V3, out_V3):  # type: ignore[no-untyped-def]
    normals_V3 = np.empty((view_V3.shape[0], 3), np.float32)
    _normals(view_V3, faces_F3, normals_V3)
    for v in range(view_V3.shape[0]):
        x, y, z = view_V3[v, 0], view_V3[v, 1], view_V3[v, 2]
        cosine, shine = _phong(normals_V3[v, 0], normals_V3[v, 1], normals_V3[v, 2], x, y, z, light)
        for k in range(3):
            out_V3[v, k] = min(colours_V3[v, k] * (_F(AMBIENT) + _F(DIFFUSE) * cosine) + _F(SPECULAR) * shine, _F(1))


def _pixel_middles(size: int) -> np.ndarray:
    """Middles (S) of pixels in NDC, float32 by PyTorch3D's own formula; index 0 is the right or the bottom pixel."""
    return _F(-1) + (_F(2) * np.arange(size, dtype=np.float32) + _F(1)) / _F(size)


def _float32(numbers: tuple[float, ...]) -> np.ndarray:
    return np.asarray(numbers, dtype=np.float32)


def light_direction() -> tuple[float, float, float]:
    """Unit vector towards the light, in view axes."""
    x, y, z = (np.asarray(LIGHT) / np.linalg.norm(LIGHT)).tolist()
    return x, y, z


def rasterise(
    view_BV3: Float[Tensor, "batch vertices 3"], faces_F3: Int[Tensor, "faces 3"], *, focal: float, size: int
) -> Fragments:
    """PyTorch3D-style Fragments of meshes in view axes (metres, +x left, +y up, +z forward), on the CPU.

    Faces with a corner behind the camera are left out, as by PyTorch3D with cameras without a near plane; so are faces
    of no area. Back faces count, as by PyTorch3D's default: a body with holes shows its inside and not the background.
    """
    shape = (len(view_BV3), size, size)
    face, zbuf = np.empty(shape, np.int32), np.empty(shape, np.float32)
    bary = np.full((*shape, 3), -1, np.float32)
    faces = faces_F3.numpy().astype(np.int32)
    for item, view_V3 in enumerate(view_BV3.float().contiguous().numpy()):
        _rasterise(view_V3, faces, _F(focal), _pixel_middles(size), face[item], zbuf[item], bary[item])
    zbuf[face < 0] = -1
    return Fragments(torch.from_numpy(face.astype(np.int64)), torch.from_numpy(zbuf), torch.from_numpy(bary))


def draw(
    vertices_BV3: Float[Tensor, "batch vertices 3"],
    faces_F3: Int[Tensor, "faces 3"],
    *,
    R_B33: Float[Tensor, "batch 3 3"],
    T_B3: Float[Tensor, "batch 3"],
    focal: float,
    size: int,
    colours_V3: Float[Tensor, "vertices 3"],
    background: tuple[float, float, float],
    threads: int | None = None,
) -> UInt8[Tensor, "batch size size 3"]:
    """Shaded pictures (B, S, S, 3), RGB 0..255, of meshes in the world, on the CPU; colours are RGB 0..1.

    The batch is spread over `threads`, by default as many as this process may use.
    """
    world = vertices_BV3.detach().float().contiguous().numpy()
    faces = np.ascontiguousarray(faces_F3.numpy(), dtype=np.int32)
    R, T = R_B33.float().contiguous().numpy(), T_B3.float().contiguous().numpy()
    out = np.empty((len(world), size, size, 3), np.uint8)
    around = (_float32(background) * 255 + _F(0.5)).astype(np.uint8)
    colours = colours_V3.float().contiguous().numpy()
    constants = _pixel_middles(size), _float32(light_direction()), colours, around

    def work(part: slice) -> None:
        _draw(world[part], R[part], T[part], _F(focal), faces, *constants, out[part])

    run_parts(work, items=len(world), threads=threads)
    return torch.from_numpy(out)


def vertex_colours(
    view_V3: Float[Tensor, "vertices 3"], faces_F3: Int[Tensor, "faces 3"], *, colours_V3: Float[Tensor, "vertices 3"]
) -> Float[Tensor, "vertices 3"]:
    """The shading formula at the vertices (V, 3), RGB 0..1, of a mesh in view axes: for renderers that blend them."""
    out = np.empty((len(view_V3), 3), np.float32)
    faces = np.ascontiguousarray(faces_F3.numpy(), dtype=np.int32)
    light = _float32(light_direction())
    _shade_vertices(view_V3.float().contiguous().numpy(), faces, light, colours_V3.float().contiguous().numpy(), out)
    return torch.from_numpy(out)
