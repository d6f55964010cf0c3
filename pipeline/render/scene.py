"""What a picture shows: bodies in their poses, from where they are seen, on what ground, in which colours."""

# B pictures, T frames, J joints, V vertices, S picture side in pixels

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from mclip.pipeline.draw.backends import render_bodies
from mclip.pipeline.draw.camera import Camera, fixed_camera, follow_camera, front_camera, orbit
from mclip.pipeline.draw.ground import REACH, TILES, add_ground, under_path
from mclip.pipeline.draw.looks import rgb
from mclip.pipeline.geometry.body import Body
from mclip.pipeline.machine.devices import free_bytes
from mclip.pipeline.render.options import RenderOptions

BATCH = 32  # pictures drawn at once on a CPU: 32 bodies of 13.5k vertices and their pictures are about 10 MB
CPU_BATCH = 128 << 20  # bytes that the rasteriser may hold for a batch of large pictures on a CPU
FLOOR_STEP = 5  # the floor's height is taken from every fifth frame of a motion


def batch_size(options: RenderOptions, body: Body) -> int:
    """How many pictures to draw at once: as memory allows, that of the device where the body is."""
    pixels = (options.size * options.antialias) ** 2
    if body.device.type == "cpu":
        return max(1, min(BATCH, CPU_BATCH // (20 * pixels)))  # a face, a depth and three coordinates a pixel
    # PyTorch3D keeps its fragments and, in float32, a dozen vectors a pixel while it shades; half of what is free.
    return max(1, min(1024, free_bytes(body.device) // 2 // (200 * pixels + 200 * len(body.v_template_V3))))


@dataclass(frozen=True)
class Setting:
    """What the pictures of a motion share: the point in the world that is their origin, floor and cameras.

    floor: its height in the world, metres.
    middle_2: of the body's path on the ground.
    camera: those that stand still, one a view, in axes around the origin; None where each picture has its own.
    """

    origin_3: Float[Tensor, "3"]
    floor: float
    middle_2: Float[Tensor, "2"]
    camera: Camera | None


def setting_of(
    body: Body, rotmat_TJ33: Float[Tensor, "T 24 3 3"], trans_T3: Float[Tensor, "T 3"], options: RenderOptions
) -> Setting:
    """The setting of a window: its origin is where the body is in the middle."""
    origin_3 = trans_T3[len(trans_T3) // 2]
    joints_TJ3 = body.pose_joints(rotmat_TJ33, trans_B3=trans_T3 - origin_3)
    yaws = orbit(options.views)
    fixed = options.camera == "fixed"
    camera = fixed_camera(rotmat_TJ33[:, 0], joints_TJ3, yaw_offsets=yaws, margin=body.reach) if fixed else None
    low_2, high_2 = torch.aminmax(trans_T3[:, :2] - origin_3[:2], dim=0)
    floor = lowest(body, rotmat_TJ33, trans_T3) if options.ground else 0.0
    return Setting(origin_3, floor, (low_2 + high_2) / 2, camera)


def lowest(body: Body, rotmat_TJ33: Float[Tensor, "T 24 3 3"], trans_T3: Float[Tensor, "T 3"]) -> float:
    """Height of a motion's lowest vertex, over every fifth frame: metres, world z up."""
    some = slice(None, None, FLOOR_STEP)
    parts = zip(rotmat_TJ33[some].split(BATCH), trans_T3[some].split(BATCH), strict=True)
    return min(float(body.pose(rotmat, trans_B3=trans)[..., 2].min()) for rotmat, trans in parts)


@dataclass(frozen=True)
class Shot:
    """One picture to be: a body, its pose and place, the view it is seen from, and what its window's pictures share.

    A window has no setting where its pictures share nothing.
    """

    body: Body
    rotmat_J33: Float[Tensor, "24 3 3"]
    trans_3: Float[Tensor, "3"]
    view: int
    setting: Setting | None = None

    @property
    def origin_3(self) -> Float[Tensor, "3"]:
        """The point in the world that is drawn at the origin: where the body is, for a camera of its own."""
        return self.setting.origin_3 if self.setting and self.setting.camera else self.trans_3


def draw_shots(
    shots: Sequence[Shot], options: RenderOptions, *, backend: str = "auto", threads: int | None = None
) -> tuple[UInt8[np.ndarray, "finite size size 3"], Bool[np.ndarray, " B"]]:
    """Pictures of the shots whose bodies are finite, and which those are. Their bodies have the same faces."""
    vertices_BV3 = posed(shots)
    # A sum is finite exactly if all its terms are.
    finite_B = vertices_BV3.sum(dim=(1, 2)).isfinite()
    shots = list(itertools.compress(shots, finite_B.tolist()))
    if not shots:
        return np.empty((0, options.size, options.size, 3), np.uint8), finite_B.cpu().numpy()
    vertices_BV3 = vertices_BV3[finite_B]
    camera = cameras_of(shots, vertices_BV3, options)
    ground_B3 = ground_of(shots, vertices_BV3) if options.ground else None
    pictures = picture(
        vertices_BV3, shots[0].body, camera, options, ground_B3=ground_B3, backend=backend, threads=threads
    )
    return pictures.cpu().numpy(), finite_B.cpu().numpy()


def posed(shots: Sequence[Shot]) -> Float[Tensor, "B V 3"]:
    """Vertices of every shot around its origin; neighbours of one body are posed together."""
    parts = []
    for _, group in itertools.groupby(shots, key=lambda shot: id(shot.body)):
        same = list(group)
        rotmat_BJ33 = torch.stack([shot.rotmat_J33 for shot in same])
        trans_B3 = torch.stack([shot.trans_3 - shot.origin_3 for shot in same])
        parts.append(same[0].body.pose(rotmat_BJ33, trans_B3=trans_B3))
    return torch.cat(parts)


def cameras_of(shots: Sequence[Shot], vertices_BV3: Float[Tensor, "B V 3"], options: RenderOptions) -> Camera:
    """A camera a shot: its setting's, or one in front of the body."""
    still = [shot.setting.camera[shot.view : shot.view + 1] for shot in shots if shot.setting and shot.setting.camera]
    if still:
        R_B33, T_B3 = (torch.cat([getattr(each, name) for each in still]) for name in ("R_B33", "T_B3"))
        return Camera(R_B33, T_B3, focal=still[0].focal)
    yaws_B = torch.tensor(orbit(options.views), device=vertices_BV3.device)[[shot.view for shot in shots]]
    return front_camera(torch.stack([shot.rotmat_J33[0] for shot in shots]), vertices_BV3, yaw_offset=yaws_B)


def ground_of(shots: Sequence[Shot], vertices_BV3: Float[Tensor, "B V 3"]) -> Float[Tensor, "B 3"]:
    """The middle of the floor (B, 3) under every shot: at the lowest point of its window, and of its own body."""
    low_B3, high_B3 = torch.aminmax(vertices_BV3, dim=1)
    middle_B3 = (low_B3 + high_B3) / 2
    for item, shot in enumerate(shots):
        assert shot.setting is not None
        middle_B3[item, 2] = torch.minimum(low_B3[item, 2], shot.setting.floor - shot.origin_3[2])
        if shot.setting.camera:
            middle_B3[item, :2] = shot.setting.middle_2
    return middle_B3


def picture(
    vertices_BV3: Float[Tensor, "B V 3"],
    body: Body,
    camera: Camera,
    options: RenderOptions,
    *,
    ground_B3: Float[Tensor, "#B 3"] | None = None,
    half_B: Float[Tensor, "#B"] | None = None,
    tiles: int = TILES,
    backend: str = "auto",
    threads: int | None = None,
) -> UInt8[Tensor, "B size size 3"]:
    """Pictures (B, S, S, 3) of posed bodies, in the options' size and colours, on a floor where its middle is given.

    The floor is as wide as the picture shows, or reaches `half_B` metres to each side.
    """
    colours_V3 = torch.tensor(rgb(options.colour), device=vertices_BV3.device).expand(vertices_BV3.shape[1:])
    faces_F3 = body.faces_F3
    if ground_B3 is not None:
        half_B = REACH * camera.view(ground_B3[:, None])[:, 0, 2] if half_B is None else half_B
        vertices_BV3, faces_F3, colours_V3 = add_ground(
            vertices_BV3, faces_F3, colours_V3, centre_B3=ground_B3, half_B=half_B, tiles=tiles
        )
    return render_bodies(
        vertices_BV3,
        faces_F3,
        camera,
        size=options.size,
        backend=backend,
        colour=colours_V3,
        background=rgb(options.background),
        antialias=options.antialias,
        threads=threads,
    )


def clip_pictures(
    body: Body,
    rotmat_TJ33: Float[Tensor, "T 24 3 3"],
    trans_T3: Float[Tensor, "T 3"],
    *,
    fps: float,
    options: RenderOptions,
    frames: Sequence[int] | None = None,
    backend: str = "auto",
) -> Iterator[UInt8[Tensor, "B size width 3"]]:
    """Pictures of a motion, batch by batch: before a camera that glides along, or stands still; views side by side.

    Of `frames` alone where they are given, just as they are among all.
    """
    trans_T3 = trans_T3 - trans_T3[:1]
    joints_TJ3 = body.pose_joints(rotmat_TJ33, trans_B3=trans_T3)
    root_T33, yaws = rotmat_TJ33[:, 0], orbit(options.views)
    if options.camera == "fixed":
        still = fixed_camera(root_T33, joints_TJ3, yaw_offsets=yaws, margin=body.reach)
        cameras = [still[torch.full((len(trans_T3),), view)] for view in range(len(yaws))]
    else:
        follow = functools.partial(follow_camera, root_T33, joints_TJ3, fps=fps, margin=body.reach)
        cameras = [follow(yaw_offset=yaw) for yaw in yaws]
    ground = clip_ground(body, rotmat_TJ33, trans_T3) if options.ground else {}
    drawn = torch.arange(len(trans_T3)) if frames is None else torch.tensor(frames, dtype=torch.int64)
    for part in drawn.split(batch_size(options, body)):
        vertices_BV3 = body.pose(rotmat_TJ33[part], trans_B3=trans_T3[part])
        seen = [picture(vertices_BV3, body, each[part], options, backend=backend, **ground) for each in cameras]
        yield torch.cat(seen, dim=2)


def clip_ground(body: Body, rotmat_TJ33: Float[Tensor, "T 24 3 3"], trans_T3: Float[Tensor, "T 3"]) -> dict[str, Any]:
    """The floor under the whole path of a motion, as `picture` takes it."""
    low_3, high_3 = torch.aminmax(trans_T3, dim=0)
    half, tiles = under_path(float((high_3 - low_3)[:2].max()))
    middle_3 = (low_3 + high_3) / 2
    middle_3[2] = lowest(body, rotmat_TJ33, trans_T3)
    return {"ground_B3": middle_3[None], "half_B": middle_3.new_full((1,), half), "tiles": tiles}


def render_clip(
    body: Body,
    rotmat_TJ33: Float[Tensor, "T 24 3 3"],
    trans_T3: Float[Tensor, "T 3"],
    *,
    fps: float,
    size: int = 224,
    backend: str = "auto",
) -> UInt8[Tensor, "T size size 3"]:
    """All pictures (T, S, S, 3) of a motion in front of a camera that glides along."""
    options = RenderOptions(size=size, antialias=2)
    return torch.cat(list(clip_pictures(body, rotmat_TJ33, trans_T3, fps=fps, options=options, backend=backend)))
