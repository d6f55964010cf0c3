"""A motion as the model gives it or a file holds it: joint rotations and the root's path."""

# T frames, J joints, S picture side in pixels

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mclip.pipeline.geometry.body import Body, load_body
from mclip.pipeline.geometry.recording import Recording
from mclip.pipeline.geometry.resample import resample
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle, rot6d_to_matrix
from mclip.pipeline.prepare.sources import read_recording
from mclip.pipeline.render.options import RenderOptions
from mclip.pipeline.render.scene import clip_pictures
from mclip.training.data.rows import joints_of, root_of
from mclip.training.measure.physics import floor_height


@dataclass(frozen=True)
class Motion:
    """Local joint rotations, the root's translation in metres (world z up), frames per second."""

    rotmat_TJ33: Float[Tensor, "T 24 3 3"]
    trans_T3: Float[Tensor, "T 3"]
    fps: float
    recording: Recording | None = None  # that it was read from, with fingers, shape and gender, at the same frames


def read(path: Path | str, *, fps: float | None = None, fps_in: float | None = None) -> Motion:
    """The motion in a file, in float64 and frame by frame as it is there, or slerped to `fps`. MotionError.

    `fps_in` is the frame rate of a file that does not say it.
    """
    recording = read_recording(Path(path), fps_in=fps_in)
    if fps is not None:
        recording = slerped(recording, fps)
    rotmat = axis_angle_to_matrix(torch.from_numpy(recording.poses_TJ3))
    return Motion(rotmat, torch.from_numpy(recording.trans_T3), recording.fps, recording)


def slerped(recording: Recording, fps: float) -> Recording:
    """A recording at another frame rate, fingers and all."""
    every = replace(recording, joints=tuple(range(recording.poses_TK3.shape[1])))
    rot6d, trans = resample(every, fps)
    poses = matrix_to_axis_angle(rot6d_to_matrix(rot6d).double()).numpy()
    return replace(recording, poses_TK3=poses, trans_T3=trans.double().numpy(), fps=fps)


def motion_of_rows(motion_TRD: Float[Tensor, "T 25 6"], fps: float) -> Motion:
    """The motion in the model's rows: 24 joints in 6D and the root's displacement, lifted to stand on the floor."""
    rotmat = rot6d_to_matrix(joints_of(motion_TRD).float())
    return on_floor(Motion(rotmat, root_of(motion_TRD).float(), fps), load_body("low"))


def on_floor(motion: Motion, body: Body) -> Motion:
    """The motion moved up or down so that the floor under the body's lowest points (`floor_height`) is at z = 0."""
    lowest_1T = body.pose(motion.rotmat_TJ33, trans_B3=motion.trans_T3)[None, ..., 2].amin(-1)
    floor = floor_height(lowest_1T, torch.ones_like(lowest_1T, dtype=torch.bool))
    return Motion(motion.rotmat_TJ33, motion.trans_T3 - torch.tensor([0, 0, float(floor)]), motion.fps)


def pictures(
    motion: Motion, looks: RenderOptions, frames: Sequence[int] | None = None
) -> Iterator[UInt8[np.ndarray, "size size 3"]]:
    """Pictures (S, S, 3) of a body in motion, one after the other: of all frames, or of some."""
    rotmat, trans = motion.rotmat_TJ33.float(), motion.trans_T3.float()
    for batch in clip_pictures(load_body(looks.body), rotmat, trans, fps=motion.fps, options=looks, frames=frames):
        yield from batch.cpu().numpy()
