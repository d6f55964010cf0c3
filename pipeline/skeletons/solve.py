"""Any skeleton's moving joints -> SMPL's rotations: which way is up, how long a metre is, how each joint is turned."""

# T frames, J joints (24)

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS
from mclip.pipeline.skeletons.frames import (
    Turns,
    X,
    aimed,
    bends,
    body_frames,
    bone_of,
    hips_line,
    rest_places,
    shoulders_line,
    turn_onto,
    unit,
)

# Rotations from a world whose up is the named axis to one whose z is.
UPS = {
    "y": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "-y": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "z": np.eye(3),
    "-z": np.diag([1.0, -1, -1]),
    "x": np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]),
    "-x": np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
}
# Evidence for an axis being up, in points; how much the body stands along it, -1 to 1, counts by BODY.
PRIOR = {"y": 0.3, "z": 0.3}  # the axes of worlds
BODY, WALKS = 0.9, 0.6  # a body that stands and travels across its own length walks: one that lies does not
AT_REST, FLOOR = 0.8, 1.1  # what stands all the time overrules the rest pose, and the floor overrules both
# Points between the likeliest axis and the next: clips that lie or stand on hands throughout have 0 to 0.6.
UNSURE, DOUBTFUL = 0.3, 0.62
NEAR_FLOOR = ((-0.2, -0.05, 0.15, 0.4), (0.0, 1.0, 1.0, 0.0))  # leg lengths of the lowest point -> is it on a floor?
LOOKED_AT = 400  # frames are enough to find axes
STEADY = 0.8  # of a joint's axes: below, the file's rotations say nothing (1 constant, 1/3 a twist at random)


@dataclass(frozen=True)
class Moving:
    """Joints of somebody's skeleton under SMPL's names, in its own world and unit: a clip, and the rest pose."""

    place: Mapping[str, Float[np.ndarray, "T 3"]]
    turn: Mapping[str, Float[np.ndarray, "T 3 3"]]  # of the joints that have rotations
    rest: Mapping[str, Float[np.ndarray, "3"]]  # empty where the file has none


@dataclass(frozen=True)
class Solved:
    """A motion on SMPL's joints, world z up, metres, and how it was understood."""

    turns: Turns  # of every joint, to the world's axes
    root_T3: Float[np.ndarray, "T 3"]  # the pelvis's place
    target: Mapping[str, Float[np.ndarray, "T 3"]]  # where the file has its joints, turned and scaled alike
    up: str
    metres: float  # of one of the file's units
    axes: str  # where the joints' axes are from: "rest", "motion" or "places"
    notes: tuple[str, ...] = ()

    @property
    def local_TJ33(self) -> Float[np.ndarray, "T 24 3 3"]:
        """Local rotations, of each joint in its parent's axes."""
        world = np.stack([self.turns[name] for name in JOINTS], axis=1)
        local = world.copy()
        local[:, 1:] = world[:, PARENTS[1:]].swapaxes(-1, -2) @ world[:, 1:]
        return local


def solve(moving: Moving, *, up: str = "") -> Solved:
    """SMPL's turns of a moving skeleton; MotionError where a limb has no length, or nothing says which way is up.

    Every limb bone points where the file's does, in every frame. How it is turned about itself comes from the rest pose
    where that is a standing body whose axes the motion bears out, else from the motion (`body_frames`).
    """
    require_lengths(moving.place)
    up, notes = (up, ()) if up else upright_axis(moving)
    metres = leg_length(rest_places()) / leg_length(moving.place)
    place = {name: metres * each @ UPS[up].T for name, each in moving.place.items()}
    turn = {name: UPS[up] @ each for name, each in moving.turn.items()}
    axes, constant = axes_in(moving, place, turn)
    if axes == "places":
        turns = body_frames(place)
    else:
        turns = turned(place, {name: turn[name] @ constant[name] for name in turn})
    lean(turns, place)
    rest = rest_places()
    middle = (rest["left_hip"] + rest["right_hip"]) / 2 - rest["pelvis"]
    root_T3 = (place["left_hip"] + place["right_hip"]) / 2 - turns["pelvis"] @ middle
    return Solved(turns, root_T3, place, up, metres, axes, notes)


def require_lengths(place: Mapping[str, Float[np.ndarray, "T 3"]]) -> None:
    """MotionError for a limb of no length, which points nowhere."""
    leg = leg_length(place)
    bones = [("right_hip", "left_hip"), ("right_shoulder", "left_shoulder"), ("pelvis", "neck")]
    bones += [
        (f"{s}_{a}", f"{s}_{b}")
        for s in ("left", "right")
        for a, b in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"))
    ]
    for start, end in bones:
        length = np.linalg.norm(place[end] - place[start], axis=-1)
        if not length.min() > 0.01 * leg:
            raise MotionError(
                f"{start} to {end} is {length.min():.3g} of its units long: expected a bone of some length"
            )


def leg_length(place: Mapping[str, Float[np.ndarray, "*n 3"]]) -> float:
    """Mean length from hip to ankle, in the places' unit."""
    legs = [[place[f"{side}_{part}"] for part in ("hip", "knee", "ankle")] for side in ("left", "right")]
    return float(np.mean([sum(np.linalg.norm(b - a, axis=-1) for a, b in itertools.pairwise(leg)) for leg in legs]))


def upright_axis(moving: Moving) -> tuple[str, tuple[str, ...]]:
    """The world's up, "y", "z", "-y", ..., and a note where another axis is nearly as likely.

    MotionError where two are alike, in a file that could say it by a map and whose rest pose does not say it.
    """
    worth = axes_worth(moving)
    first, second = sorted(worth, key=lambda up: -worth[up])[:2]
    between = worth[first] - worth[second]
    if between < UNSURE and moving.turn and not rests_along(first, standing_rest(moving.rest)):
        raise MotionError(
            f"its up may be {first} or {second}: the body does not stand in it, and rest pose and floor do not decide; "
            f'say it by a line `up = "{first}"` in a .toml for --map'
        )
    if between < DOUBTFUL:
        return first, (f'its up is taken for {first}, and may be {second}: a line `up = "{second}"` for --map says so',)
    return first, ()


def axes_worth(moving: Moving) -> dict[str, float]:
    """How likely each axis is the world's up: the axis along which the moving body stands.

    A body may lie all the time, so the axis along which the rest pose stands counts too, and an axis at whose zero the
    lowest points keep, which has the floor there; an axis along which the body travels far counts less.
    """
    place, leg = moving.place, leg_length(moving.place)
    body = unit(2 * place["neck"] - place["left_ankle"] - place["right_ankle"]).mean(0)
    points = np.stack(list(place.values()))
    basis = standing_rest(moving.rest)
    travel = np.ptp(place["pelvis"], axis=0)

    def worth(up: str) -> float:
        axis = UPS[up][2]
        stands = float(body @ axis)
        at_rest = rests_along(up, basis)
        lowest = np.median((points @ axis).min(0)) / leg
        climbs = travel @ np.abs(axis) > 1.5 * leg
        walks = stands > 0.8 and not climbs and (travel * (1 - np.abs(axis))).max() > 1.5 * leg
        floor = FLOOR * np.interp(lowest, *NEAR_FLOOR)
        return BODY * stands + PRIOR.get(up, 0.0) + AT_REST * at_rest + float(floor) - climbs + WALKS * walks

    return {up: worth(up) for up in UPS}


def rests_along(up: str, basis: Float[np.ndarray, "3 3"] | None) -> bool:
    """Whether a rest pose stands along an axis; none, of a pose that does not stand, does not."""
    return basis is not None and bool(basis[:, 1] @ UPS[up][2] > 0.9)


def standing_rest(rest: Mapping[str, Float[np.ndarray, "3"]]) -> Float[np.ndarray, "3 3"] | None:
    """The turn from SMPL's rest axes to those of a rest pose that stands, to the quarter turn; None of any other.

    To the quarter turn, for a file's axes are its axes, and a bent rest pose must not tilt the body.
    """
    if not rest:
        return None
    up, left = unit(rest["neck"] - rest["pelvis"]), unit(hips_line(rest))
    x, y = (np.eye(3)[np.abs(each).argmax()] * np.sign(each[np.abs(each).argmax()]) for each in (left, up))
    if abs(x @ y) > 0.5 or left @ x < 0.9 or up @ y < 0.8 or unit(shoulders_line(rest)) @ x < 0.8:
        return None
    z = np.cross(x, y)
    for side, outwards in (("left", x), ("right", -x)):
        thigh, shin = (unit(rest[f"{side}_{b}"] - rest[f"{side}_{a}"]) for a, b in (("hip", "knee"), ("knee", "ankle")))
        arm = unit(rest[f"{side}_elbow"] - rest[f"{side}_shoulder"])
        foot = unit(rest[f"{side}_foot"] - rest[f"{side}_ankle"]) if f"{side}_foot" in rest else z
        if max(thigh @ y, shin @ y) > -0.6 or arm @ outwards < -0.5 or foot @ z < -0.2:
            return None
    return np.stack((x, y, z), axis=1)


def axes_in(
    moving: Moving, place: Mapping[str, Float[np.ndarray, "T 3"]], turn: Mapping[str, Float[np.ndarray, "T 3 3"]]
) -> tuple[str, dict[str, Float[np.ndarray, "3 3"]]]:
    """Where SMPL's axes lie in each joint's own, and what says so: "rest" or "motion"; "places" where nothing does."""
    if not turn:
        return "places", {}
    step = -(-len(place["pelvis"]) // LOOKED_AT)
    place, turn = {k: v[::step] for k, v in place.items()}, {k: v[::step] for k, v in turn.items()}
    frames, weight = body_frames(place), bends(place)
    even = np.ones(len(place["pelvis"]))
    found = {name: constant_axes(turn[name], frames[name], weight.get(name, even) + 1e-3) for name in turn}
    basis = standing_rest(moving.rest)
    if basis is not None and borne_out(basis, place, turn):
        return "rest", {**dict.fromkeys(turn, basis), **hands_at_rest(moving.rest, basis)}
    told = [f"{side}_hip" for side in ("left", "right") if weight[f"{side}_hip"].mean() > 0.1]
    if any(found[name][1] < STEADY for name in ("pelvis", *told) if name in found):
        return "places", {}
    return "motion", {name: axes for name, (axes, _) in found.items()}


def hands_at_rest(
    rest: Mapping[str, Float[np.ndarray, "3"]], basis: Float[np.ndarray, "3 3"]
) -> dict[str, Float[np.ndarray, "3 3"]]:
    """SMPL's axes in wrists that nothing follows: straight on from forearms, which at rest may hang."""
    ours = rest_places()
    found: dict[str, np.ndarray] = {}
    for side in ("left", "right"):
        elbow, wrist = f"{side}_elbow", f"{side}_wrist"
        if wrist in rest and f"{side}_hand" not in rest:
            found[wrist] = turn_onto(basis @ (ours[wrist] - ours[elbow]), rest[wrist] - rest[elbow]) @ basis
    return found


def borne_out(
    basis: Float[np.ndarray, "3 3"],
    place: Mapping[str, Float[np.ndarray, "T 3"]],
    turn: Mapping[str, Float[np.ndarray, "T 3 3"]],
) -> bool:
    """Whether hips and shoulders lie as the rest pose's axes say while the body moves."""
    for joint, line, most in (("pelvis", hips_line(place), 25), ("spine3", shoulders_line(place), 45)):
        if joint in turn:
            cosine = (unit(line) * (turn[joint] @ basis @ X)).sum(-1)
            if np.median(cosine) < np.cos(np.radians(most)):
                return False
    return True


def constant_axes(
    turn_T33: Float[np.ndarray, "T 3 3"], frame_T33: Float[np.ndarray, "T 3 3"], weight_T: Float[np.ndarray, " T"]
) -> tuple[Float[np.ndarray, "3 3"], float]:
    """The rotation nearest to a joint's frame in its own axes over all frames, and how steady that is, 0 to 1."""
    share = weight_T / weight_T.sum()
    mean = np.einsum("t,tji,tjk->ik", share, turn_T33, frame_T33)
    u, lengths, v = np.linalg.svd(mean)
    sign = np.sign(np.linalg.det(u @ v))
    return u @ np.diag([1, 1, sign]) @ v, float(lengths[0] + lengths[1] + sign * lengths[2]) / 3


def turned(place: Mapping[str, Float[np.ndarray, "T 3"]], known: Mapping[str, Float[np.ndarray, "T 3 3"]]) -> Turns:
    """Turns of every joint: the known ones, aimed along their bones; one that the file lacks goes with its parent."""
    turns: Turns = {}
    for joint, name in enumerate(JOINTS):
        turn = known[name] if name in known else turns[JOINTS[PARENTS[joint]]]
        bone = (X, hips_line(place)) if name == "pelvis" else bone_of(name, place)
        turns[name] = aimed(turn, *bone) if bone else turn
    return turns


def lean(turns: Turns, place: Mapping[str, Float[np.ndarray, "T 3"]]) -> None:
    """Turn the spine as a whole so that the neck lies from the pelvis where the file's does.

    Spines begin elsewhere in other pelvises: the bone below the spine's first joint is SMPL's own, so the rest of it
    makes up for the difference. |towards * far - below| = |spine| gives how far the neck is along that direction.
    """
    rest = rest_places()
    below = turns["pelvis"] @ (rest["spine1"] - rest["pelvis"])
    spine = sum(turns[a] @ (rest[b] - rest[a]) for a, b in itertools.pairwise(("spine1", "spine2", "spine3", "neck")))
    towards = unit(place["neck"] - place["pelvis"])
    along = (towards * below).sum(-1)
    far = along + np.sqrt(np.maximum(along**2 - (below * below).sum(-1) + (spine * spine).sum(-1), 0))
    turn = turn_onto(spine, towards * far[:, None] - below)
    for name in ("spine1", "spine2", "spine3"):
        turns[name] = turn @ turns[name]
