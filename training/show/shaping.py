"""From a prompt to the motion that is written: decoded, joined, held by its feet, made a loop, turned to the front."""

from dataclasses import dataclass, replace

import torch

from mclip.pipeline.geometry.changes import face_front
from mclip.pipeline.geometry.joining import Track, on_the_spot
from mclip.pipeline.geometry.rotations import matrix_to_rot6d, rot6d_to_matrix
from mclip.training.latent.keyframes import led
from mclip.training.latent.prompts import Joined, Prompt
from mclip.training.latent.space import decode
from mclip.training.model.run import Run
from mclip.training.show.footlock import locked
from mclip.training.show.motion import Motion, motion_of_rows
from mclip.training.show.options import Shaping
from mclip.training.show.sequence import Seam, chained, loop_margin, looped


@dataclass(frozen=True)
class Made:
    """A motion, and what is told of how it was made."""

    motion: Motion
    told: list[str]


def made(run: Run, prompt: Prompt | Joined, frames: int, shaping: Shaping, *, front: bool = False) -> Made:
    """The motion of a prompt: `frames` long, or what its parts last together; `front` as `facing_front`.

    Up to a training crop it is what the decoder gives; a longer one is joined out of crops.
    """
    lasting = list(prompt.frames_P or (frames,))
    total, told, seams = sum(lasting), [*prompt.told], list[Seam]()
    if shaping.loop:
        lasting[-1] += loop_margin(total, run.fps)
    if len(lasting) == 1 and lasting[0] <= run.crop:
        motion = decoded(run, prompt, lasting[0])
    else:
        motion, seams = chained(run, torch.from_numpy(prompt.vector_PC), lasting)
    if shaping.foot_lock:
        motion, lock = locked(motion)
        told.append(str(lock))
    if shaping.loop:
        motion, seam = looped(motion, total)
        seams.append(seam)
    if shaping.loop or len(prompt.frames_P) > 1:
        told.append(told_of_seams(seams))
    if shaping.in_place:
        spot = on_the_spot(Track(motion.rotmat_TJ33, motion.trans_T3))
        motion = replace(motion, trans_T3=spot.trans_T3)
    return Made(facing_front(motion) if front else motion, told)


def decoded(run: Run, prompt: Prompt | Joined, frames: int) -> Motion:
    """What the decoder makes of a prompt's first vector, on the floor, led as the prompt says."""
    motion = motion_of_rows(decode(run, torch.from_numpy(prompt.vector_PC[:1]), frames)[0].cpu(), run.fps)
    if prompt.lead_T3 is None:
        return motion
    return Motion(*led(Track(motion.rotmat_TJ33, motion.trans_T3), torch.from_numpy(prompt.lead_T3)), run.fps)


def told_of_seams(seams: list[Seam]) -> str:
    """How many seams a motion has, and how far apart the poses are that the widest joins."""
    return f"{len(seams)} seams, the widest between poses {1000 * max(seam.distance for seam in seams):.0f} mm apart"


def facing_front(motion: Motion) -> Motion:
    """The motion turned about the vertical as a whole, so that its first frame faces -y, where a viewer stands."""
    rot6d, trans_T3 = face_front(matrix_to_rot6d(motion.rotmat_TJ33), motion.trans_T3)
    return Motion(rot6d_to_matrix(rot6d), trans_T3, motion.fps)
