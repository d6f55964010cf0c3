"""A text's motion that goes through given poses and along a given path: z, and how the root is led, are optimised.

The poses' vector is found first (`posed`); along a path it moves on, drawn back to the text's own.
"""

# T frames, K keyframes, M knots of the lead, D directions, C latent width

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline.forms.asked import NOTHING, Asked
from mclip.pipeline.geometry.joining import Track, veered
from mclip.pipeline.geometry.rotations import geodesic, rot6d_to_matrix
from mclip.training.data.rows import joints_of, root_of
from mclip.training.latent.poses import POSE, Keyframe, directions_of, far_from, keyframe, off_poses, posed
from mclip.training.latent.prompts import Prompt
from mclip.training.latent.space import in_place
from mclip.training.model.run import Run

STEPS, RATE = 300, 0.03
KNOTS = 8  # cosines that the lead is made of: at 60 frames the fastest takes half a second
# What is worth as much as what, beside POSE: metres of the path, metres a second that the root glides, and radians a
# second that it turns.
PATH, GLIDES, TURNS = 0.02, 0.5, 2.0
MISSED = 0.1  # metres off, from which a keyframe or path counts as not reached
FARTHEST = 1000.0  # metres of a path


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
    z_C = torch.from_numpy(prompt.vector_C)
    moved_C, lead_T3 = posed(run, z_C, keyframes, frames) if keyframes else z_C, torch.zeros(frames, 3)
    if path_T2 is not None:
        moved_C, lead_T3 = pathed(run, z_C, moved_C, keyframes, path_T2)
    return replace(
        prompt,
        vector_C=moved_C.numpy(),
        lead_T3=None if path_T2 is None else lead_T3.numpy(),
        told=reached(run, moved_C, lead_T3, z_C=z_C, keyframes=keyframes, path_T2=path_T2),
    )


def pathed(
    run: Run,
    z_C: Float[Tensor, " C"],
    begin_C: Float[Tensor, " C"],
    keyframes: Sequence[Keyframe],
    path_T2: Float[Tensor, "T 2"],
) -> tuple[Float[Tensor, " C"], Float[Tensor, "T 3"]]:
    """A vector near one that has the poses, and how its root is led, so that it goes along the path as well."""
    frames, directions_DC = len(path_T2), directions_of(run)
    weight_D = torch.zeros(len(directions_DC), requires_grad=True)
    lead_M3 = torch.zeros(KNOTS, 3)
    lead_M3[0, 0] = heading(decoded_track(run, begin_C, frames).trans_T3[:, :2], path_T2)
    lead_M3.requires_grad_()
    knots_TM = cosines(frames)
    optimizer = torch.optim.Adam([weight_D, lead_M3], lr=RATE)
    for step in range(STEPS):
        moved_C = begin_C + z_C.norm() * weight_D @ directions_DC
        lead_T3 = knots_TM @ lead_M3
        found = led(decoded_track(run, moved_C, frames), lead_T3)
        glides, turns = (run.fps * lead_T3.diff(dim=0)[:, part] for part in (slice(1, 3), slice(1)))
        loss = far_from(z_C, moved_C) + (found.trans_T3[:, :2] - path_T2).square().sum(-1).mean() / PATH**2
        loss = loss + glides.square().sum(-1).mean() / GLIDES**2 + turns.square().mean() / TURNS**2
        if keyframes:
            loss = loss + off_keyframes(found, keyframes).square().mean() / POSE**2
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 + math.cos(math.pi * step / STEPS)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return moved_C.detach(), lead_T3.detach()


def off_keyframes(track: Track, keyframes: Sequence[Keyframe]) -> Float[Tensor, "K J"]:
    """`off_poses` of a motion at the frames of the keyframes."""
    return off_poses(track.rotmat_TJ33[[each.frame for each in keyframes]], keyframes)


def heading(from_T2: Float[Tensor, "T 2"], to_T2: Float[Tensor, "T 2"]) -> float:
    """The angle in radians by which a path is turned to lie nearest to another, each from where it begins."""
    (ax, ay), (bx, by) = ((each - each[0]).unbind(-1) for each in (to_T2, from_T2))
    return math.atan2(float((ay * bx - ax * by).sum()), float((ax * bx + ay * by).sum()))


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
        off_J = off_keyframes(found, [each])[0]
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
