"""The model as MMCP has it, the protocol by which Blender's Proscenium and other programs ask for motions.

MMCP's world has y up and quaternions x, y, z, w; a request names parts of one motion, each with its frames.
"""

# N samples, T frames, J joints (24)

import numpy as np
from motionmcp.backbone import Backbone, Limits, ModelSpec, MotionResult
from motionmcp.errors import ProtocolError
from motionmcp.schemas import GenerateRequest, Joint, Skeleton, TextSegment

from mclip.pipeline.embed.encoder import LONGEST_TEXT
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.resample import resample
from mclip.pipeline.geometry.rotations import matrix_to_quaternion, rot6d_to_matrix, same_sign
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS
from mclip.training.api import Motion, MotionClip
from mclip.training.serve.asked import LONGEST, MOST_SECONDS, MOST_TEXTS
from mclip.training.serve.line import Busy, Line
from mclip.training.show.motion import recording_of
from mclip.training.show.options import Shaping
from mclip.training.show.writers import y_up

MOST_SAMPLES = 4
PATH = "/mmcp"


def skeleton() -> Skeleton:
    """SMPL's joints as the embedded body has them at rest, which is y up already."""
    joints = load_body("low").joints_J3.numpy().astype(float)
    return Skeleton(
        joints=[
            Joint(
                name=name,
                parent=JOINTS[parent] if parent >= 0 else None,
                rest_translation=tuple(place - joints[parent] if parent >= 0 else place),
                rest_rotation=(0.0, 0.0, 0.0, 1.0),
            )
            for name, parent, place in zip(JOINTS, PARENTS, joints, strict=True)
        ]
    )


class Mmcp(Backbone):  # type: ignore[misc]
    """What the protocol's kit asks of a model."""

    def __init__(self, model: MotionClip, line: Line) -> None:
        self.model, self.line, self.model_id = model, line, model.run.folder.name

    def capabilities(self) -> ModelSpec:
        """What the model takes."""
        return ModelSpec(
            id=self.model_id,
            fps=self.model.run.fps,
            canonical_skeleton=skeleton(),
            supports_loop=True,
            supported_segments=["text"],
            native_clip_seconds=self.model.run.crop / self.model.run.fps,
            chunking="stitched",
            recommended_max_duration_seconds=LONGEST,
            limits=Limits(
                max_duration_seconds=LONGEST,
                max_num_samples=MOST_SAMPLES,
                max_constraints_per_request=0,
                max_prompt_length=LONGEST_TEXT,
                max_batch_size=1,
            ),
        )

    async def generate(self, request: GenerateRequest) -> MotionResult:
        """The motion of a request's parts, sampled as often as it asks."""
        parts = [part for part in request.segments if isinstance(part, TextSegment)]
        fps, samples = request.fps(self.model.run.fps), request.options.num_samples if request.options else 1
        seconds = samples * request.total_frames / fps
        if len(parts) > MOST_TEXTS or seconds > MOST_SECONDS:
            told = f"{len(parts)} segments and {seconds:g} seconds, at most {MOST_TEXTS} and {MOST_SECONDS:g} at once"
            raise ProtocolError("invalid_options", told)
        try:
            found = await self.line.do(lambda: [self.made(request, parts, fps, number) for number in range(samples)])
        except Busy as error:
            raise ProtocolError("resource_exhausted", str(error)) from error
        except ValueError as error:
            raise ProtocolError("invalid_request", str(error)) from error
        rotations, places = zip(*found, strict=True)
        return MotionResult(rotations=np.stack(rotations), root_translations=np.stack(places))

    def made(
        self, request: GenerateRequest, parts: list[TextSegment], fps: float, number: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rotations (T, 24, 4) and the root's places (T, 3) of a sample."""
        asked = request.options
        seed = asked.seed if asked else None
        if number:
            seed = (seed or 0) + number  # another sample is another motion
        seconds = [max(part.duration_frames / fps, 0.5) for part in parts]
        shaping = Shaping(loop=bool(asked and asked.loop))
        motion = self.model.sequence([part.prompt for part in parts], seconds, seed=seed, shaping=shaping)
        return arrays_of(motion, fps, request.total_frames)


def arrays_of(motion: Motion, fps: float, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A motion's quaternions (T, 24, 4) and root places (T, 3), y up, at a frame rate, as many frames as are asked for.

    A frame or two that rounding to the model's own rate leaves out are the last one again.
    """
    rot6d, trans_T3 = resample(recording_of(motion), fps)
    at = np.minimum(np.arange(frames), len(trans_T3) - 1)
    local, root_T3 = y_up(Motion(rot6d_to_matrix(rot6d)[at], trans_T3[at], fps), load_body("low").joints_J3)
    xyzw = same_sign(matrix_to_quaternion(local)).roll(-1, dims=-1)
    return xyzw.numpy().astype(np.float32), root_T3.numpy().astype(np.float32)
