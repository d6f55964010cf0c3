"""A motion as the model gives it, standing on the floor, and the files it is written to."""

# T frames, J joints, S picture side in pixels

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from mclip.pipeline.amass import write_motion
from mclip.pipeline.body import Body, load_body
from mclip.pipeline.render import render_clip, tile
from mclip.pipeline.rotations import rot6d_to_matrix

FORMATS = ("npz", "mp4", "gif", "png")
STRIP = 8  # pictures in a .png strip


@dataclass(frozen=True)
class Motion:
    """Local joint rotations, the root's translation in metres (world z up), frames per second."""

    rotmat_TJ33: Float[Tensor, "T 24 3 3"]
    trans_T3: Float[Tensor, "T 3"]
    fps: float


def motion_of_rows(motion_TRD: Float[Tensor, "T 25 6"], fps: float) -> Motion:
    """The motion in the model's rows: 24 joints in 6D and the root's displacement, lifted to stand on the floor."""
    rotmat = rot6d_to_matrix(motion_TRD[:, :24].float())
    return on_floor(Motion(rotmat, motion_TRD[:, 24, :3].float(), fps), load_body("low"))


def on_floor(motion: Motion, body: Body) -> Motion:
    """The motion moved up or down so that the body's lowest point over all frames is at z = 0."""
    lowest = body.pose(motion.rotmat_TJ33, trans_B3=motion.trans_T3)[..., 2].min()
    return Motion(motion.rotmat_TJ33, motion.trans_T3 - torch.tensor([0, 0, float(lowest)]), motion.fps)


def pictures(motion: Motion, *, size: int = 224) -> UInt8[Tensor, "T size size 3"]:
    """Pictures (T, S, S, 3) of the embedded body in motion."""
    return render_clip(load_body(), motion.rotmat_TJ33, motion.trans_T3, fps=motion.fps, size=size)


def write(path: Path, motion: Motion, *, frames_TSS3: UInt8[Tensor, "T height width 3"] | None = None) -> None:
    """Write a motion as its file ending says: npz (AMASS layout), mp4, gif, or png (a strip of 8 frames).

    `frames_TSS3` saves drawing it again. The file appears whole or not at all.
    """
    kind = path.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(f"{path}: cannot write .{kind}; expected one of {', '.join(FORMATS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "npz":
        write_motion(path, rotmat_TJ33=motion.rotmat_TJ33, trans_T3=motion.trans_T3, fps=motion.fps)
        return
    drawn = (pictures(motion) if frames_TSS3 is None else frames_TSS3).numpy()
    aside = path.with_name(f".{path.stem}.partial{path.suffix}")
    {"mp4": write_mp4, "gif": write_gif, "png": write_strip}[kind](aside, drawn, motion.fps)
    aside.replace(path)


def write_mp4(path: Path, frames_TSS3: np.ndarray, fps: float) -> None:
    """H.264 in MP4, even sides, playable in every browser."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = (side // 2 * 2 for side in frames_TSS3.shape[1:3])
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "23", "preset": "veryfast"}
        for picture in frames_TSS3[:, : stream.height, : stream.width]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())


def write_gif(path: Path, frames_TSS3: np.ndarray, fps: float) -> None:
    """A GIF that loops; browsers keep time in hundredths of a second."""
    images = [Image.fromarray(picture).quantize(32) for picture in frames_TSS3]
    images[0].save(path, save_all=True, append_images=images[1:], duration=1000 / fps, loop=0)


def write_strip(path: Path, frames_TSS3: np.ndarray, fps: float) -> None:
    """Evenly spaced frames side by side."""
    chosen = np.linspace(0, len(frames_TSS3) - 1, min(STRIP, len(frames_TSS3))).astype(int)
    tile(frames_TSS3[chosen], columns=len(chosen)).save(path)
