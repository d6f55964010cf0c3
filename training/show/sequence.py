"""Motions of any length out of a decoder of one crop: crop after crop is joined where it differs least."""

# P parts, C latent width, T frames

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.joining import Meetings, Track, best_pair, blended, closed, joined, straightened
from mclip.training.latent.space import decode
from mclip.training.model.run import Run
from mclip.training.show.motion import Motion, motion_of_rows

BLEND = 0.4  # seconds over which one motion becomes the next where it is near,
SLOWER, SLOWEST = 1.0, 1.2  # and by so many seconds more for every metre that it is not, up to this
REACH = 0.5  # seconds by which a part may begin before or after its time
TOLL = 0.03  # metres of difference that are worth a second of motion left out, or off its time
GAIN = 0.7  # seconds that a motion goes on by at least: half of it, and it would twitch instead of being repeated
LOOP_REACH = 1.5  # seconds by which a loop may be longer or shorter than asked for
STRAIGHT = 0.8  # radians that a loop may turn by and is straightened; one that turns farther means to


@dataclass(frozen=True)
class Seam:
    """Where two motions meet: the frames of the blend, and how far apart they were, metres."""

    start: int
    stop: int
    distance: float


@dataclass
class Chain:
    """A motion that grows by a crop at a time; what no later seam can reach is put aside."""

    fps: float
    joints_J3: Float[Tensor, "24 3"]
    tail: Track
    start: int = 0  # the frame that the tail begins at
    done: list[Track] = field(default_factory=list)
    seams: list[Seam] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Frames of the whole."""
        return self.start + len(self.tail.trans_T3)

    def seam_frames(self, crop: Track) -> int:
        """Frames of a seam with a crop: at most half of either, or a short crop would bring nothing, for ever."""
        shorter = min(len(self.tail.trans_T3), len(crop.trans_T3))
        return max(1, min(blend_frames(self.fps), shorter // 2))

    def follow(self, crop: Track, due: int) -> None:
        """Go over to another motion, whose beginning belongs at frame `due`: near there, and not far from its start."""
        frames = self.seam_frames(crop)
        meetings, pair = self.transition(crop, due, frames)
        # A body that stands does not lie in 0.4 s.
        slower = blend_frames(self.fps, apart=float(meetings.distance_IL[pair]))
        if slower > frames:
            frames = max(frames, min(slower, len(self.tail.trans_T3), len(crop.trans_T3) * 2 // 3))
            meetings, pair = self.transition(crop, due, frames)
        self.join(crop, meetings, pair, frames)

    def transition(self, crop: Track, due: int, frames: int) -> tuple[Meetings, tuple[int, int]]:
        """How a motion meets another over so many frames, and the best pair of pieces about frame `due`."""
        meetings, before_I1, after_L = self.meetings(crop, frames)
        off_I1 = (self.start + before_I1 + frames / 2 - due).abs()
        allowed = (off_I1 <= max(REACH * self.fps, float(off_I1.min()))) & (after_L <= len(crop.trans_T3) / 3)
        return meetings, best_pair(meetings.distance_IL + TOLL * (off_I1 + after_L) / self.fps, allowed)

    def go_on(self, crop: Track) -> None:
        """Go on with the same motion, where its phases agree: where a seam costs least for every frame it brings."""
        frames = self.seam_frames(crop)
        meetings, before_I1, after_L = self.meetings(crop, frames)
        gained = before_I1 - after_L + len(crop.trans_T3) - len(self.tail.trans_T3)
        cost_IL = meetings.distance_IL / gained.clamp_min(1)
        pair = best_pair(cost_IL, gained >= min(GAIN * self.fps, int(gained.max())))
        self.join(crop, meetings, pair, frames)

    def meetings(self, crop: Track, frames: int) -> tuple[Meetings, Tensor, Tensor]:
        """How pieces of the tail meet those of a crop, and the first frames of both, as a column and a row."""
        found = Meetings.of(self.tail.points(self.joints_J3), crop.points(self.joints_J3), frames)
        before, after = (torch.arange(count) for count in found.distance_IL.shape)
        return found, before[:, None], after

    def join(self, crop: Track, meetings: Meetings, pair: tuple[int, int], frames: int) -> None:
        """Blend a crop in at a pair of pieces of so many frames."""
        before, after = pair
        brought = meetings.bring(crop, pair)
        seam = blended(self.tail.cut(before, before + frames), brought.cut(after, after + frames))
        self.done.append(self.tail.cut(0, before))
        self.start += before
        self.seams.append(Seam(self.start, self.start + frames, float(meetings.distance_IL[pair])))
        self.tail = joined(seam, brought.cut(after + frames, len(crop.trans_T3)))

    def whole(self, frames: int) -> Track:
        """The motion so far, cut to `frames`."""
        return joined(*self.done, self.tail).cut(0, frames)


def blend_frames(fps: float, *, apart: float = 0.0) -> int:
    """Frames over which one motion becomes another that is so many metres apart."""
    return max(2, round(min(BLEND + SLOWER * apart, SLOWEST) * fps))


def chained(run: Run, vectors_PC: Float[Tensor, "P C"], frames_P: Sequence[int]) -> tuple[Motion, list[Seam]]:
    """One motion of parts, each decoded from its vector and lasting so many frames, and its seams.

    A part longer than a training crop is the same crop again, joined where its phases agree: what the decoder makes of
    frames that it was never trained on stands still or drifts. Memory is that of the motion itself.
    """
    chain: Chain | None = None
    due = 0
    for vector_C, frames in zip(vectors_PC, frames_P, strict=True):
        crop = decoded_crop(run, vector_C)
        if chain is None:
            chain = Chain(run.fps, load_body("low").joints_J3, crop)
        else:
            chain.follow(crop, due)
        due += frames
        while chain.length < due:
            chain.go_on(crop)
    assert chain is not None
    return Motion(*chain.whole(due), run.fps), [seam for seam in chain.seams if seam.start < due]


def decoded_crop(run: Run, vector_C: Float[Tensor, " C"]) -> Track:
    """A training crop of a vector's motion, on the floor."""
    motion = motion_of_rows(decode(run, vector_C[None], run.crop)[0].cpu(), run.fps)
    return Track(motion.rotmat_TJ33, motion.trans_T3)


def looped(motion: Motion, frames: int) -> tuple[Motion, Seam]:
    """About `frames` of a motion whose last frame is its first but for its place, reached as the first is left.

    Where the motion meets itself best decides; it is longer than the loop by `loop_margin`. A small turn is taken out.
    """
    track, joints_J3 = Track(motion.rotmat_TJ33, motion.trans_T3), load_body("low").joints_J3
    blend, last = blend_frames(motion.fps), len(motion.trans_T3) - 1
    reach = loop_reach(frames, motion.fps)
    points = track.points(joints_J3)
    first_stop = max(blend, frames - 1 - reach)
    # Pieces end at a start of the loop, and at a stop.
    meetings = Meetings.of(points[first_stop - blend :], points[: blend + reach + 1], blend + 1)
    stop_I1 = torch.arange(first_stop, last + 1)[:, None]
    start_L = torch.arange(blend, blend + reach + 1)
    off = (stop_I1 - start_L + 1 - frames).abs()
    pair = best_pair(meetings.distance_IL + TOLL * off / motion.fps, off <= reach)
    start, stop = int(start_L[pair[1]]), int(stop_I1[pair[0], 0])
    made = straightened(closed(track, joints_J3, start=start, stop=stop, frames=blend), STRAIGHT)
    return Motion(*made, motion.fps), Seam(stop - start - blend, stop - start, float(meetings.distance_IL[pair]))


def loop_reach(frames: int, fps: float) -> int:
    """Frames by which a loop may be longer or shorter."""
    return min(round(LOOP_REACH * fps), frames // 2)


def loop_margin(frames: int, fps: float) -> int:
    """Frames that a motion needs beside those of its loop: before it to lead in, and after it to choose from."""
    return blend_frames(fps) + 2 * loop_reach(frames, fps)
