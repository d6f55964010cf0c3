"""A text's motion that goes through given poses and along a given path: z, and how the root is led, are optimised.

z moves only in the directions in which the training motions' z differ, and is drawn back to the text's own.
"""

# T frames, K keyframes, M knots of the lead, D directions, C latent width

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline.forms.asked import NOTHING, Asked
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.joining import Track, veered
from mclip.pipeline.geometry.rotations import about_vertical, axis_angle_to_matrix, geodesic, rot6d_to_matrix
from mclip.pipeline.prepare.sources import read_recording
from mclip.training.data.rows import joints_of, root_of
from mclip.training.latent.prompts import Prompt
from mclip.training.latent.space import in_place
from mclip.training.model.run import Run

STEPS, RATE = 300, 0.03
KNOTS = 8  # cosines that the lead is made of: at 60 frames the fastest takes half a second
DIRECTIONS = 64  # in which z may move
# What is worth as much as what: metres of a pose and of the path, metres a second that the root glides, radians a
# second that it turns, and 1 - cosine from the text's z.
POSE, PATH, GLIDES, TURNS, NEAR = 0.01, 0.02, 0.5, 2.0, 0.1
MISSED = 0.1  # metres off, from which a keyframe or path counts as not reached
FARTHEST = 1000.0  # metres of a path


@dataclass(frozen=True)
class Keyframe:
    """A pose to be met: at which frame, and its name and rotations."""

    frame: int
    name: str
    rotmat_J33: Float[Tensor, "24 3 3"]


def keyframe(words: str, *, frames: int, asked: Asked = NOTHING) -> Keyframe:
    """A keyframe out of "FRAME=FILE" or "FRAME=FILE:FRAME", frames counted from 0; ValueError naming what is wrong."""
    number, equals, source = words.partition("=")
    if not equals or not number.strip().isdecimal():
        raise ValueError(f"--pose {words}: expected FRAME=FILE or FRAME=FILE:FRAME, such as 30=walk.npz:12")
    if int(number) >= frames:
        raise ValueError(f"--pose {words}: frame {int(number)} of a motion of {frames}; expected 0 to {frames - 1}")
    file, colon, of_file = source.rpartition(":")
    if not colon or not of_file.isdecimal():
        file, of_file = source, "0"
    poses_TJ3 = read_recording(Path(file), asked).poses_TJ3
    if int(of_file) >= len(poses_TJ3):
        raise ValueError(f"--pose {words}: {file} has the frames 0 to {len(poses_TJ3) - 1}")
    rotmat = axis_angle_to_matrix(torch.from_numpy(poses_TJ3[int(of_file)].copy())).float()
    return Keyframe(int(number), source, rotmat)


def path_in(words: str) -> Float[Tensor, "N 2"]:
    """The points of a path on the floor, "0,0 1,0.5 2,0.5", metres; ValueError for fewer than two, or what is none."""
    try:
        points = [[float(number) for number in point.split(",")] for point in words.split()]
    except ValueError:
        points = []
    sound = [len(point) == 2 and all(abs(number) <= FARTHEST for number in point) for point in points]
    if len(points) < 2 or not all(sound):
        raise ValueError(f"--path {words!r}: expected two points or more, such as '0,0 1,0.5', up to {FARTHEST:g} m")
    return torch.tensor(points)


def along(points_N2: Float[Tensor, "N 2"], frames: int) -> Float[Tensor, "T 2"]:
    """Where a path is in every frame (T, 2): its points are reached at even times, in straight lines."""
    time_T = torch.linspace(0, len(points_N2) - 1, frames)
    before_T = time_T.long().clamp(max=len(points_N2) - 2)
    return torch.lerp(points_N2[before_T], points_N2[before_T + 1], (time_T - before_T)[:, None])


def steering(
    run: Run, poses: Sequence[str], path: str | None, *, frames: int | None = None, asked: Asked = NOTHING
) -> Callable[[Prompt], Prompt]:
    """What steers prompts through poses and along a path, each as it is typed; nothing where there is neither.

    ValueError for one that is out of range or unreadable, and for motions longer than a training crop.
    """
    frames = frames or run.crop
    if not poses and path is None:
        return lambda prompt: prompt
    if frames > run.crop:
        raise ValueError(f"--frames is {frames}: poses and paths steer one crop; expected at most {run.crop}")
    keyframes = [keyframe(words, frames=frames, asked=asked) for words in poses]
    path_T2 = None if path is None else along(path_in(path), frames)
    return lambda prompt: steered(run, prompt, frames, keyframes, path_T2)


def steered(
    run: Run, prompt: Prompt, frames: int, keyframes: Sequence[Keyframe], path_T2: Float[Tensor, "T 2"] | None
) -> Prompt:
    """The prompt whose motion goes through the poses and along the path as nearly as the decoder can; told how near."""
    z_C, directions_DC = torch.from_numpy(prompt.vector_C), directions_of(run)
    weight_D = torch.zeros(len(directions_DC), requires_grad=True)
    lead_M3 = torch.zeros(KNOTS, 3)
    if path_T2 is not None:
        lead_M3[0, 0] = heading(decoded_track(run, z_C, frames).trans_T3[:, :2], path_T2)
        lead_M3.requires_grad_()
    knots_TM = cosines(frames)
    optimizer = torch.optim.Adam([each for each in (weight_D, lead_M3) if each.requires_grad], lr=RATE)
    for step in range(STEPS):
        moved_C = z_C + z_C.norm() * weight_D @ directions_DC
        lead_T3 = knots_TM @ lead_M3
        found = led(decoded_track(run, moved_C, frames), lead_T3)
        loss = (1 - torch.cosine_similarity(moved_C, z_C, dim=0)) / NEAR
        if keyframes:
            loss = loss + off_poses(found, keyframes).square().mean() / POSE**2
        if path_T2 is not None:
            glides, turns = (run.fps * lead_T3.diff(dim=0)[:, part] for part in (slice(1, 3), slice(1)))
            loss = loss + (found.trans_T3[:, :2] - path_T2).square().sum(-1).mean() / PATH**2
            loss = loss + glides.square().sum(-1).mean() / GLIDES**2 + turns.square().mean() / TURNS**2
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 + math.cos(math.pi * step / STEPS)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    moved_C, lead_T3 = (each.detach() for each in (moved_C, lead_T3))
    return replace(
        prompt,
        vector_C=moved_C.numpy(),
        lead_T3=None if path_T2 is None else lead_T3.numpy(),
        told=reached(run, moved_C, lead_T3, z_C=z_C, keyframes=keyframes, path_T2=path_T2),
    )


def heading(from_T2: Float[Tensor, "T 2"], to_T2: Float[Tensor, "T 2"]) -> float:
    """The angle in radians by which a path is turned to lie nearest to another, each from where it begins."""
    (ax, ay), (bx, by) = ((each - each[0]).unbind(-1) for each in (to_T2, from_T2))
    return math.atan2(float((ay * bx - ax * by).sum()), float((ax * bx + ay * by).sum()))


def directions_of(run: Run) -> Float[Tensor, "D C"]:
    """Unit directions in which the training motions' z differ most; all there are in a run that keeps none."""
    if run.z_NC is None or len(run.z_NC) < 2:
        return torch.eye(run.model.config.latent)
    z_NC = torch.nn.functional.normalize(run.z_NC.cpu(), dim=-1)
    return torch.linalg.svd(z_NC - z_NC.mean(0), full_matrices=False)[2][:DIRECTIONS]


def cosines(frames: int) -> Float[Tensor, "T M"]:
    """A constant, and cosines of half a period more each (T, KNOTS): smooth tracks are sums of them."""
    time_T1 = (torch.arange(frames)[:, None] + 0.5) / frames
    return torch.cos(math.pi * time_T1 * torch.arange(KNOTS))


def decoded_track(run: Run, z_C: Float[Tensor, " C"], frames: int) -> Track:
    """What the decoder makes of a vector, with the vector's gradient."""
    rows = in_place(run, run.model.decode(z_C[None].to(run.device), frames)[0].cpu())
    return Track(rot6d_to_matrix(joints_of(rows)), root_of(rows))


def led(track: Track, lead_T3: Float[Tensor, "T 3"]) -> Track:
    """A motion that is turned, and shifted on the floor, by what is said for each frame: radians, and metres."""
    turned = veered(track, lead_T3[:, 0])
    return Track(turned.rotmat_TJ33, turned.trans_T3 + torch.nn.functional.pad(lead_T3[:, 1:], (0, 1)))


def off_poses(track: Track, keyframes: Sequence[Keyframe]) -> Float[Tensor, "K J"]:
    """How far the joints are from those of the keyframes, metres; about the pelvis, and whatever way both face."""
    joints_J3 = load_body("low").joints_J3
    frame_K = torch.tensor([each.frame for each in keyframes])
    at = Track(track.rotmat_TJ33[frame_K], torch.zeros(len(keyframes), 3)).points(joints_J3)
    wanted_K = torch.stack([each.rotmat_J33 for each in keyframes])
    wanted = Track(wanted_K, torch.zeros(len(keyframes), 3)).points(joints_J3)
    return (at - wanted @ facing_alike(at, wanted).mT).norm(dim=-1)


def facing_alike(at: Float[Tensor, "K J 3"], wanted: Float[Tensor, "K J 3"]) -> Float[Tensor, "K 3 3"]:
    """Turns about the vertical that bring wanted joints nearest to others (as in `joining.Meetings`)."""
    (ax, ay, _), (bx, by, _) = at.detach().unbind(-1), wanted.unbind(-1)
    return about_vertical(torch.atan2((ay * bx - ax * by).sum(-1), (ax * bx + ay * by).sum(-1)))


@torch.inference_mode()
def reached(
    run: Run,
    moved_C: Float[Tensor, " C"],
    lead_T3: Float[Tensor, "T 3"],
    *,
    z_C: Float[Tensor, " C"],
    keyframes: Sequence[Keyframe],
    path_T2: Float[Tensor, "T 2"] | None,
) -> tuple[str, ...]:
    """What is told of a steered motion: how far it is from each pose, from the path, and from the text."""
    found = led(decoded_track(run, moved_C, len(lead_T3)), lead_T3)
    told = []
    for each in keyframes:
        off_J = off_poses(found, [each])[0]
        angle = geodesic(found.rotmat_TJ33[each.frame, 1:], each.rotmat_J33[1:]).mean().rad2deg()
        told.append(f"frame {each.frame} {verdict(off_J)} of {each.name}, {float(angle):.1f} degrees a joint")
    if path_T2 is not None:
        off_T = (found.trans_T3[:, :2] - path_T2).norm(dim=-1)
        told.append(f"path: {verdict(off_T)}, {1000 * float(off_T.max()):.0f} at most")
    cosine = float(torch.cosine_similarity(moved_C, z_C, dim=0))
    return (*told, f"its vector is at a cosine of {cosine:.2f} from the text's")


def verdict(off: Float[Tensor, " N"]) -> str:
    """How far off something is in the mean, and whether that is reached."""
    mean = float(off.mean())
    return f"{1000 * mean:.0f} mm off" if mean < MISSED else f"not reached: {1000 * mean:,.0f} mm left"
