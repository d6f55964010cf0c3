"""A motion as the model gives it or a file holds it: joint rotations and the root's path."""

# T frames, J joints, S picture side in pixels

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from mclip.pipeline.forms.asked import NOTHING, Asked
from mclip.pipeline.geometry.body import Body, load_body
from mclip.pipeline.geometry.joining import Track
from mclip.pipeline.geometry.recording import Recording, require_finite
from mclip.pipeline.geometry.resample import resample
from mclip.pipeline.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle, rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import ANKLES, TOES
from mclip.pipeline.prepare.sources import read_recording
from mclip.pipeline.render.options import RenderOptions
from mclip.pipeline.render.scene import clip_pictures
from mclip.training.data.rows import joints_of, root_of
from mclip.training.measure.physics import floor_height, standing_feet

POSED = 512  # frames whose vertices are in memory at a time
# Share of standing soles that are under the floor. Real clips, whose floor is known, are off by 0.6 cm with it, and by
# 1.0 at the median, where feet that roll off count; decoded soles stand 1.0 cm off, and 1.2 where no contact is asked.
ROLLS = 0.25
OFTEN = 0.25  # share of the frames in which feet must carry the body to say where the floor is
CARRIES = 0.02  # metres by which a foot that carries the body may be higher than its lowest point


@dataclass(frozen=True)
class Motion:
    """Local joint rotations, the root's translation in metres (world z up), frames per second."""

    rotmat_TJ33: Float[Tensor, "T 24 3 3"]
    trans_T3: Float[Tensor, "T 3"]
    fps: float
    recording: Recording | None = None  # that it was read from, with fingers, shape and gender, at the same frames

    def joints(self) -> Float[Tensor, "T 24 3"]:
        """Places of SMPL's joints in the world, z up, metres, float32: those of the embedded body, as files show it."""
        return load_body("low").pose_joints(self.rotmat_TJ33, trans_B3=self.trans_T3)


def read(path: Path | str, *, fps: float | None = None, asked: Asked = NOTHING) -> Motion:
    """The motion in a file, in float64 and frame by frame as it is there, or slerped to `fps`. MotionError.

    `asked` is what the file does not say itself.
    """
    recording = read_recording(Path(path), asked)
    if fps is not None:
        recording = slerped(recording, fps)
    rotmat = axis_angle_to_matrix(torch.from_numpy(recording.poses_TJ3))
    return Motion(rotmat, torch.from_numpy(recording.trans_T3), recording.fps, recording)


def recording_of(motion: Motion) -> Recording:
    """The motion as a file would hold it, but for fingers and shape; MotionError for one that no file may hold."""
    poses_TJ3 = matrix_to_axis_angle(motion.rotmat_TJ33.double()).numpy()
    trans_T3 = motion.trans_T3.double().numpy()
    return require_finite(Recording(poses_TJ3, trans_T3, motion.fps, np.zeros(16), gender="neutral", sha256=b""))


def slerped(recording: Recording, fps: float) -> Recording:
    """A recording at another frame rate, fingers and all."""
    every = replace(recording, joints=tuple(range(recording.poses_TK3.shape[1])))
    rot6d, trans = resample(every, fps)
    poses = matrix_to_axis_angle(rot6d_to_matrix(rot6d).double()).numpy()
    nearest = np.rint(np.arange(len(trans)) / fps * recording.fps).astype(int).clip(0, len(recording.trans_T3) - 1)
    source = {name: place_T3[nearest] for name, place_T3 in recording.source.items()}
    return replace(recording, poses_TK3=poses, trans_T3=trans.double().numpy(), fps=fps, source=source)


def motion_of_rows(motion_TRD: Float[Tensor, "T 25 6"], fps: float) -> Motion:
    """The motion in the model's rows: 24 joints in 6D and the root's displacement, lifted to stand on the floor."""
    rotmat = rot6d_to_matrix(joints_of(motion_TRD).float())
    return on_floor(Motion(rotmat, root_of(motion_TRD).float(), fps), load_body("low"))


def on_floor(motion: Motion, body: Body) -> Motion:
    """The motion moved up or down so that its floor (`floor_of`) is at z = 0."""
    floor = floor_of(motion, heights(motion, body))
    return Motion(motion.rotmat_TJ33, motion.trans_T3 - torch.tensor([0, 0, floor]), motion.fps)


@dataclass(frozen=True)
class Heights:
    """How high a body is in the world, metres: the lowest point of all, and of the left and right foot."""

    lowest_T: Float[Tensor, " T"]
    sole_TN: Float[Tensor, "T 2"]

    @property
    def on_feet_TN(self) -> Bool[Tensor, "T 2"]:
        """In which frames either foot carries the body: nothing is lower, but for CARRIES."""
        return self.sole_TN - self.lowest_T[:, None] < CARRIES


def heights(motion: Motion, body: Body) -> Heights:
    """Those of a body in motion, some hundred frames at a time."""
    feet_NV = foot_vertices(body)
    lowest, soles = [], []
    for rotmat, trans in zip(motion.rotmat_TJ33.split(POSED), motion.trans_T3.split(POSED), strict=True):
        z_TV = body.pose(rotmat, trans_B3=trans)[..., 2]
        lowest.append(z_TV.amin(1))
        soles.append(torch.stack([z_TV[:, foot_V].amin(1) for foot_V in feet_NV], dim=1))
    return Heights(torch.cat(lowest), torch.cat(soles))


def foot_vertices(body: Body) -> list[Tensor]:
    """Which vertices follow the ankle or the toes of the left foot, and of the right one, more than all else."""
    return [body.weights_VJ[:, [ankle, toe]].sum(1) > 0.5 for ankle, toe in zip(ANKLES, TOES, strict=True)]


def floor_of(motion: Motion, height: Heights) -> float:
    """Where the floor is: under the soles of the feet that stand, where these carry the body, but for a share of them.

    A motion that hardly has such feet, as a crawl, has its floor under its lowest points, but for a share of the frames
    (`floor_height`).
    """
    on_feet_TN = height.on_feet_TN
    if on_feet_TN.any():
        about = height.lowest_T[on_feet_TN.any(1)].median()
        joints = Track(motion.rotmat_TJ33, motion.trans_T3).points(load_body("low").joints_J3)
        carries_TN = on_feet_TN & standing_feet(joints, height.sole_TN - about, fps=motion.fps)
        if carries_TN.any(1).float().mean() > OFTEN:
            return float(height.sole_TN[carries_TN].quantile(ROLLS))
    lowest_1T = height.lowest_T[None]
    return float(floor_height(lowest_1T, torch.ones_like(lowest_1T, dtype=torch.bool)))


def pictures(
    motion: Motion, looks: RenderOptions, frames: Sequence[int] | None = None
) -> Iterator[UInt8[np.ndarray, "size size 3"]]:
    """Pictures (S, S, 3) of a body in motion, one after the other: of all frames, or of some."""
    rotmat, trans = motion.rotmat_TJ33.float(), motion.trans_T3.float()
    for batch in clip_pictures(load_body(looks.body), rotmat, trans, fps=motion.fps, options=looks, frames=frames):
        yield from batch.cpu().numpy()
