"""Nested dicts and lists of arrays -> the motions in them by name: estimators' people, packs of clips, samples."""

# T frames, J joints, N motions

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mclip.pipeline.forms.arrays import Held, form_of
from mclip.pipeline.forms.places import MDM_FPS
from mclip.pipeline.geometry.recording import MotionError

CAMERA = re.compile(r"(?<![a-z])(in)?cam(era)?(?![a-z])", re.IGNORECASE)
FRAMES = re.compile(rf"{CAMERA.pattern}|global|world", re.IGNORECASE)
ENDINGS = re.compile(r"(\.(npz|npy|pkl|pt|smpl|bvh|mp4|avi|mov|jpg|png))+$", re.IGNORECASE)
SHOWN = 10


@dataclass(frozen=True)
class Found:
    """One motion's arrays, and under which keys they lie."""

    keys: tuple[str, ...]
    held: Held

    @property
    def is_camera(self) -> bool:
        """Whether its keys say that it is in a camera's axes."""
        return any(CAMERA.search(key) for key in self.keys)

    @property
    def whose(self) -> tuple[str, ...]:
        """The keys but for those that tell a camera from the world."""
        return tuple(key for key in self.keys if not FRAMES.search(key))


def motions_in(value: Any) -> dict[str, Held]:
    """The arrays of every motion by its name, which is empty where there is one alone; MotionError where there is none.

    Of one person in the world and in a camera, the world's are taken, and the account says so.
    """
    value = value[0] if isinstance(value, list) and len(value) == 1 else value  # a dict in a .npy
    found = of_mdm(value) or of_phalp(value) or in_the_world(outermost(value))
    if not found:
        form_of(held_by(value if isinstance(value, Mapping) else {}))  # says what is missing
    return dict(zip(names_of([each.keys for each in found]), (each.held for each in found), strict=True))


def require_member(motions: Mapping[str, Held], name: str) -> Held:
    """One of the motions; MotionError naming those that there are."""
    if name in motions:
        return motions[name]
    shown = ", ".join(itertools.islice(motions, SHOWN)) + (", ..." if len(motions) > SHOWN else "")
    if name or not motions:
        raise MotionError(f"no {name!r} in it any more, only {shown or 'nothing'}")
    raise MotionError(
        f"{len(motions)} motions in it ({shown}), expected one: name one as FILE/{next(iter(motions))}; `mclip "
        "prepare` takes all"
    )


def outermost(value: Any) -> list[Found]:
    """The motions that lie least deep in nested dicts and lists."""
    level: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while level:
        found = [Found(keys, held) for keys, each in level if (held := whole_motion(each)) is not None]
        if found:
            return found
        level = [((*keys, str(name)), inner) for keys, each in level for name, inner in entries(each)]
    return []


def entries(value: Any) -> Iterator[tuple[Any, Any]]:
    """What a dict or a list holds, by name or number."""
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def whole_motion(value: Any) -> Held | None:
    """The arrays of a dict where they are those of a motion."""
    if not isinstance(value, Mapping):
        return None
    held = held_by(value)
    try:
        form_of(held)
    except MotionError:
        return None
    return held


def held_by(value: Mapping[Any, Any]) -> Held:
    """The arrays, numbers and texts that a dict holds itself."""
    plain = (np.ndarray, np.generic, int, float, str)
    return Held({str(name): np.asarray(each) for name, each in value.items() if isinstance(each, plain)})


def in_the_world(found: Sequence[Found]) -> list[Found]:
    """The motions without those in a camera's axes of which the same person's in the world is there; each is told."""
    groups: dict[tuple[str, ...], list[Found]] = {}
    for each in found:
        groups.setdefault(each.whose, []).append(each)
    kept = []
    for group in groups.values():
        world, camera = ([each for each in group if each.is_camera is seen] for seen in (False, True))
        for each in world or camera:
            if world and camera:
                others = ", ".join("/".join(other.keys) for other in camera)
                each.held.account["frame"] = f"world: {'/'.join(each.keys)}, rather than {others}"
            elif camera:
                each.held.account["frame"] = f"camera: {'/'.join(each.keys)}"
            kept.append(each)
    return kept


def names_of(keys: Sequence[tuple[str, ...]]) -> list[str]:
    """A name for each motion, of the keys in which they differ: `person_3` of a number; none for one alone."""
    if len(keys) == 1:
        return [""]
    columns = [set(column) for column in zip(*keys, strict=False)]
    names: list[str] = []
    for each in keys:
        told = [key for place, key in enumerate(each) if place >= len(columns) or len(columns[place]) > 1]
        name = f"person_{told[0]}" if len(told) == 1 and told[0].isdigit() else "_".join(told)
        name = ENDINGS.sub("", re.sub(r"[^\w.#-]+", "_", name)) or "motion"
        names.append(name if name not in names else f"{name}_{len(names)}")
    return names


def of_mdm(value: Any) -> list[Found]:
    """What MDM saves: `motion` (N, 22, 3, T) of places and `lengths`; or one motion's `thetas` (24, 6, T) in 6D."""
    if not isinstance(value, Mapping):
        return []
    motion, thetas, root = (value.get(name) for name in ("motion", "thetas", "root_translation"))
    rate = np.array(MDM_FPS)
    if isinstance(thetas, np.ndarray) and thetas.shape[:2] == (24, 6) and isinstance(root, np.ndarray):
        poses, trans = np.ascontiguousarray(thetas.transpose(2, 0, 1)), np.ascontiguousarray(root.T)
        return [Found((), Held(thetas=poses, root_translation=trans, fps=rate))]
    if not isinstance(motion, np.ndarray) or motion.ndim != 4 or motion.shape[1:3] != (22, 3):
        return []
    told = value.get("lengths")
    lengths = [motion.shape[-1]] * len(motion) if told is None else np.asarray(told).reshape(-1).tolist()
    places = [each.transpose(2, 0, 1)[:length] for each, length in zip(motion, lengths, strict=True)]
    return [
        Found((f"motion_{number}",), Held(places=np.ascontiguousarray(each), fps=rate))
        for number, each in enumerate(places)
    ]


def of_phalp(value: Any) -> list[Found]:
    """What PHALP and 4D-Humans save: for each frame of a video the people in it, by the number of their track.

    A track that is lost and found again is a motion for each time. The places are the camera's.
    """
    if not isinstance(value, Mapping) or not value:
        return []
    frames = list(value.values())
    if not all(isinstance(each, Mapping) and {"smpl", "tid"} <= set(each) for each in frames):
        return []
    tracks: dict[str, list[tuple[int, Mapping[str, Any], Any]]] = {}
    for number, frame in enumerate(frames):
        camera = frame.get("camera", [])
        # What it only predicts has a number and no body of its own.
        for place, (track, body) in enumerate(zip(frame["tid"], frame["smpl"], strict=False)):
            if isinstance(body, Mapping) and place < len(camera):
                tracks.setdefault(str(track), []).append((number, body, camera[place]))
    found = []
    for track, seen in tracks.items():
        whole = [run for run in unbroken(seen) if len(run) > 1]
        found += [
            Found((track if not part else f"person_{track}_{part + 1}",), held_of(run))
            for part, run in enumerate(whole)
        ]
    return found


def unbroken(seen: Sequence[tuple[int, Mapping[str, Any], Any]]) -> list[list[tuple[int, Mapping[str, Any], Any]]]:
    """A track cut where it skips a frame."""
    cuts = [0, *(at for at in range(1, len(seen)) if seen[at][0] != seen[at - 1][0] + 1), len(seen)]
    return [list(seen[a:b]) for a, b in itertools.pairwise(cuts)]


def held_of(run: Sequence[tuple[int, Mapping[str, Any], Any]]) -> Held:
    """The arrays of some frames of a person."""
    names = {"global_orient", "body_pose", "betas"}.intersection(*(set(body) for _, body, _ in run))
    arrays = {name: np.stack([np.asarray(body[name], float) for _, body, _ in run]) for name in names}
    held = Held(arrays, transl=np.stack([np.asarray(camera, float).reshape(3) for _, _, camera in run]))
    held.account["form"] = "4D-Humans"
    held.account["frame"] = f"camera: frames {run[0][0]:,} to {run[-1][0]:,}"
    return held
