"""Animations of a glTF file, each a motion: keys sampled evenly, nodes moved, and SMPL's joints solved from them."""

# T frames, K nodes that are kept, N keys

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from mclip.pipeline.characters.gltf_file import Beside, Gltf, read_gltf
from mclip.pipeline.characters.gltf_nodes import Nodes, Pose, nodes_of, turns_of, understood, unique, world_of
from mclip.pipeline.geometry.recording import MotionError, NoMotion, Recording, require_length
from mclip.pipeline.skeletons.check import recorded
from mclip.pipeline.skeletons.joints import Understood, at
from mclip.pipeline.skeletons.kinematics import SEEN
from mclip.pipeline.skeletons.solve import Moving, solve

FPS = 30.0  # of a clip whose keys are not evenly spaced, as animators set them
SLOW, FAST = 10.0, 250.0  # frames per second that even keys can be taken for
FREE, PER_KEY = 18_000, 4  # frames that any clip may have, and that it may have for each of its keys
TOGETHER = 2048  # frames that are moved at a time
PATHS = {"translation": 3, "rotation": 4, "scale": 3}


@dataclass(frozen=True)
class Track:
    """What one node's translation, rotation or scale does: (N,) seconds, and values as glTF has them."""

    node: int
    path: str
    how: str  # STEP, LINEAR or CUBICSPLINE
    time_N: np.ndarray
    value_NC: np.ndarray  # (3 N, C) of a CUBICSPLINE: tangent in, value, tangent out

    def sampled(self, time_T: np.ndarray) -> np.ndarray:
        """Values (T, C) at some seconds; before the first key and behind the last they stay."""
        # A hundred thousandth of a second on, for keys in float32 lie about the times of frames.
        key_T = np.clip(np.searchsorted(self.time_N, time_T + 1e-5, side="right") - 1, 0, len(self.time_N) - 1)
        next_T = np.minimum(key_T + 1, len(self.time_N) - 1)
        step_T1 = (self.time_N[next_T] - self.time_N[key_T])[:, None]
        share_T1 = ((time_T - self.time_N[key_T])[:, None] / np.maximum(step_T1, 1e-9)).clip(0, 1)
        if self.how == "CUBICSPLINE":
            into, value, out = self.value_NC.reshape(len(self.time_N), 3, -1).swapaxes(0, 1)
            return spline(value[key_T], step_T1 * out[key_T], value[next_T], step_T1 * into[next_T], share_T1)
        begin = self.value_NC[key_T]
        if self.how == "STEP":
            return begin
        if self.path != "rotation":
            return begin + share_T1 * (self.value_NC[next_T] - begin)
        first, last = Rotation.from_quat(begin), Rotation.from_quat(self.value_NC[next_T])
        between = Rotation.from_rotvec(share_T1 * (first.inv() * last).as_rotvec())
        return np.asarray((first * between).as_quat())


def spline(a: np.ndarray, out: np.ndarray, b: np.ndarray, into: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Hermite's cubic between two values with their tangents; glTF 2.0, appendix C."""
    square, cube = share**2, share**3
    first = (2 * cube - 3 * square + 1) * a + (cube - 2 * square + share) * out
    return np.asarray(first + (3 * square - 2 * cube) * b + (cube - square) * into)


@dataclass(frozen=True)
class Clip:
    """An animation's tracks, and the even frames that it is read at."""

    tracks: tuple[Track, ...]
    begin: float  # seconds
    step: float  # between frames; `fps` is that as programs write it: a whole number within their rounding
    frames: int
    fps: float


def clip_names(gltf: Gltf) -> tuple[str, ...]:
    """What a file's animations are called, no two alike and without '/': names of recordings are paths."""
    named = [str(each.get("name") or f"clip {number}") for number, each in enumerate(gltf.items("animations"))]
    return unique([name.replace("/", "_").strip() or "clip" for name in named])


def clip_of(gltf: Gltf, nodes: Nodes, name: str = "") -> Clip:
    """The clip of a name, or the only one. NoMotion where there is none, MotionError where there is more than one."""
    names = clip_names(gltf)
    if not names:
        raise NoMotion("a model without an animation")
    if not name and len(names) > 1:
        raise MotionError(f"{len(names)} clips in it: name one of them as FILE/CLIP: {', '.join(names)[:300]}")
    if name and name not in names:
        raise MotionError(f"no clip {name!r} in it, only {', '.join(names)[:300]}")
    animation = gltf.items("animations")[names.index(name) if name else 0]
    tracks = tuple(tracks_of(gltf, animation, nodes))
    if not any(track.path == "rotation" for track in tracks):
        raise NoMotion(f"its clip {name or names[0]!r} turns no joint of a skeleton")
    begin = min(track.time_N[0] for track in tracks)
    span = max(track.time_N[-1] for track in tracks) - begin
    most = max((track.time_N for track in tracks), key=len)
    fps, even = rate_of(most)
    frames = round(span * fps) + 1 if even else int(span * fps + 1e-3) + 1
    if frames > max(FREE, PER_KEY * len(most)):
        raise MotionError(f"its {len(most):,} keys lie {span:,.0f} s apart: {frames:,} frames of hardly any motion")
    require_length(frames, fps)
    return Clip(tracks, float(begin), float(span) / (frames - 1) if even else 1 / fps, frames, fps)


def at_rest(nodes: Nodes) -> Clip:
    """One frame in which nothing is moved."""
    return Clip((), 0.0, 1 / FPS, 1, FPS)


def tracks_of(gltf: Gltf, animation: Mapping[str, Any], nodes: Nodes) -> Iterator[Track]:
    """The tracks of kept nodes. MotionError for keys that are out of order, and for values that are no transform."""
    slots = {number: k for k, number in enumerate(nodes.number_K)}
    for channel in animation["channels"]:
        target = channel.get("target", {})
        path, node = target.get("path"), target.get("node")
        if path not in PATHS or node not in slots:
            continue
        sampler = animation["samplers"][channel["sampler"]]
        time_N, value = gltf.array(sampler["input"])[:, 0], gltf.array(sampler["output"])
        how = sampler.get("interpolation", "LINEAR")
        rows = (3 if how == "CUBICSPLINE" else 1) * len(time_N)
        where = f"the {path} of {nodes.tree.names[slots[node]]}"
        if how not in ("STEP", "LINEAR", "CUBICSPLINE") or value.shape != (rows, PATHS[path]):
            raise MotionError(f"{where}: {how!r} of {len(time_N)} keys has values {value.shape}")
        if not np.isfinite(value).all() or not np.isfinite(time_N).all() or (np.diff(time_N) <= 0).any():
            raise MotionError(f"{where}: keys that are not in order, or not finite")
        values = value[1::3] if how == "CUBICSPLINE" else value
        if path == "rotation" and not np.linalg.norm(values, axis=1).min() > 1e-3:
            raise MotionError(f"{where}: a quaternion of length zero")
        yield Track(slots[node], path, how, time_N, value)


def rate_of(time_N: np.ndarray) -> tuple[float, bool]:
    """Frames per second of keys, and whether these are even: FPS where they are not, or too far apart for motion."""
    step_M = np.diff(time_N)
    if len(step_M) < 2 or not np.ptp(step_M) < 0.05 * step_M.mean() + 1e-4:
        return FPS, False
    fps = float(1 / step_M.mean())
    whole = round(fps)
    fps = float(whole) if abs(fps - whole) < 5e-4 * fps + 0.005 else fps  # times are float32
    return (fps, True) if SLOW <= fps <= FAST else (FPS, False)


def pose_at(clip: Clip, nodes: Nodes, frames: np.ndarray) -> Pose:
    """Local transforms at some frames: the clip's where it has tracks, those at rest elsewhere."""
    time_T, rest = clip.begin + frames * clip.step, nodes.rest
    parts = {
        name: np.repeat(each, len(frames), axis=0)
        for name, each in zip(PATHS, (rest.place_FK3, rest.quaternion_FK4, rest.scale_FK3), strict=True)
    }
    for track in clip.tracks:
        parts[track.path][:, track.node] = track.sampled(time_T)
    parts["rotation"] /= np.maximum(np.linalg.norm(parts["rotation"], axis=-1, keepdims=True), 1e-9)
    return Pose(*parts.values())


def moving_of(clip: Clip, nodes: Nodes, found: Understood) -> Moving:
    """The understood joints' places and turns from rest in every frame, and their places at rest."""
    wanted = found.places
    chosen = list(wanted.values())
    rest_place, rest_linear = world_of(nodes.tree.parents, nodes.rest)
    back = np.linalg.inv(turns_of(rest_linear[0, chosen]))
    places, turns = [], []
    for start in range(0, clip.frames, TOGETHER):
        pose = pose_at(clip, nodes, np.arange(start, min(start + TOGETHER, clip.frames)))
        place, linear = world_of(nodes.tree.parents, pose)
        places.append(place[:, chosen])
        turns.append(turns_of(linear[:, chosen]) @ back)
    place_TW3, turn_TW33 = np.concatenate(places), np.concatenate(turns)
    slots = {name: slot for slot, name in enumerate(wanted)}
    rest = {name: each[0] for name, each in at(rest_place, wanted).items()}
    return Moving(at(place_TW3, slots), {name: turn_TW33[:, slots[name]] for name in found.joints}, rest)


def seen_places(clip: Clip, nodes: Nodes) -> Float[np.ndarray, "T K 3"]:
    """Places of all kept nodes in some frames spread over the clip."""
    frames = np.unique(np.linspace(0, clip.frames - 1, min(SEEN, clip.frames)).astype(int))
    return world_of(nodes.tree.parents, pose_at(clip, nodes, frames))[0]


def probe_motion(content: bytes | memoryview, clip: str, beside: Beside | None) -> tuple[int, float]:
    """Frames and frames per second of a clip. MotionError; NoMotion of a model that has none."""
    try:
        gltf = read_gltf(content, beside)
        read = clip_of(gltf, nodes_of(gltf), clip)
        return read.frames, read.fps
    except Exception as error:
        raise refused(error) from error


def parse_motion(
    content: bytes | memoryview, clip: str, beside: Beside | None, joint_map: Mapping[str, str]
) -> Recording:
    """The motion of a clip ("" for the only one) on SMPL's joints, in metres, z up, feet on the floor. MotionError.

    glTF's world has y up. `joint_map` says what SMPL's joints are called in it, where names and shape do not.
    """
    try:
        gltf = read_gltf(content, beside)
        nodes = nodes_of(gltf)
        read = clip_of(gltf, nodes, clip)
        found = understood(nodes, seen_places(read, nodes), joint_map)
        solved = solve(moving_of(read, nodes, found), up="y")
        return recorded(found, solved, fps=read.fps, sha256=hashlib.sha256(content).digest())
    except Exception as error:
        raise refused(error) from error


def refused(error: Exception) -> MotionError:
    """Any error of a damaged file as a MotionError; one that is already stays what it is."""
    if isinstance(error, MotionError):
        return error
    return MotionError(f"cannot be read as glTF ({type(error).__name__}: {error})")
