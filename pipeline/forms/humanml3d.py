"""HumanML3D's 263 features of a frame <-> places of SMPL's first 22 joints, as that data set was made, and KIT's 251.

Guo et al., Generating Diverse and Natural 3D Human Motions from Text, CVPR 2022, section 5, and its published steps.
The world's y is up; the body begins at the origin and faces +z. The rotations among the features are the shortest turns
of bones from fixed axes, made from the places: they say nothing more, so motion is read from the places alone.
"""

# T frames, J joints (22), F features of a frame (263)

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from mclip.pipeline.skeletons.frames import cross, turn_onto, unit

FPS = 20.0
JOINTS = 22
FEATURES = {263: (22, FPS), 251: (21, 12.5)}  # columns -> joints, frames per second: of HumanML3D and of KIT-ML
CONTACT = 0.002  # square metres: a foot's joint that moves by less from frame to frame stands
SMOOTH = 20  # frames of the Gaussian that the facing direction is smoothed with
RIGHT_HIP, LEFT_HIP, RIGHT_SHOULDER, LEFT_SHOULDER = 2, 1, 17, 16
FEET = (7, 10, 8, 11)
CHAINS = ((0, 2, 5, 8, 11), (0, 1, 4, 7, 10), (0, 3, 6, 9, 12, 15), (9, 14, 17, 19, 21), (9, 13, 16, 18, 20))
X, Y, Z = np.eye(3)
# Each bone at rest, by the joint that it ends in: one of the world's axes.
AXES = np.stack([Y, X, -X, Y, -Y, -Y, Y, -Y, -Y, Y, Z, Z, Y, X, -X, Z, -Y, -Y, -Y, -Y, -Y, -Y])


def features_of(place_TJ3: Float[np.ndarray, "T 22 3"]) -> Float[np.ndarray, "T-1 263"]:
    """The features of a motion at 20 fps whose joints are there, in metres, y up; one frame less.

    Half the root's turn, its velocity and height; places, turns and velocities of joints as the root sees them;
    contacts of heel and toe, left and right.
    """
    place_TJ3 = begun(place_TJ3)
    ahead_T3 = gaussian_filter1d(facing(place_TJ3), SMOOTH, axis=0, mode="nearest")
    angle_T = np.arctan2(-ahead_T3[:, 0], ahead_T3[:, 2])  # about y, from there to +z
    turn_T33 = about_y(angle_T)
    half_turn = np.arcsin(np.sin(np.diff(angle_T) / 2))
    step_TJ3 = np.diff(place_TJ3, axis=0)
    root_step_T3 = np.einsum("tij,tj->ti", turn_T33[1:], step_TJ3[:, 0])
    local_TJ3 = (place_TJ3 - place_TJ3[:, :1] * (1, 0, 1)) @ turn_T33.swapaxes(1, 2)
    parts = (
        half_turn[:, None],
        root_step_T3[:, [0, 2]],
        local_TJ3[:-1, 0, 1:2],
        local_TJ3[:-1, 1:],
        chain_turns(place_TJ3, turn_T33)[:-1, 1:],
        step_TJ3 @ turn_T33[:-1].swapaxes(1, 2),
        (step_TJ3[:, FEET] ** 2).sum(-1) < CONTACT,
    )
    return np.concatenate([part.reshape(len(step_TJ3), -1) for part in parts], axis=1)


def places_of(feature_TF: Float[np.ndarray, "T F"]) -> Float[np.ndarray, "T J 3"]:
    """The places of the joints (T, 22, 3), or (T, 21, 3) of KIT's, that features hold: y up, in their unit."""
    joints, _ = FEATURES[feature_TF.shape[1]]
    feature_TF = feature_TF.astype(float)
    half_T = np.concatenate([[0.0], np.cumsum(feature_TF[:-1, 0])])
    back_T33 = about_y(-2 * half_T)
    step_T3 = np.zeros((len(feature_TF), 3))
    step_T3[1:, [0, 2]] = feature_TF[:-1, 1:3]
    root_T3 = np.einsum("tij,tj->ti", back_T33, step_T3).cumsum(axis=0)
    local_TJ3 = feature_TF[:, 4 : 1 + 3 * joints].reshape(len(feature_TF), joints - 1, 3)
    place_TJ3 = np.empty((len(feature_TF), joints, 3))
    place_TJ3[:, 1:] = local_TJ3 @ back_T33.swapaxes(1, 2) + root_T3[:, None]
    place_TJ3[:, 0] = root_T3 + feature_TF[:, 3:4] * Y
    return place_TJ3


def begun(place_TJ3: Float[np.ndarray, "T 22 3"]) -> Float[np.ndarray, "T 22 3"]:
    """The motion on the floor, from the origin on, its first frame facing +z."""
    place_TJ3 = place_TJ3 - place_TJ3.min((0, 1)) * Y - place_TJ3[0, 0] * (1, 0, 1)
    return place_TJ3 @ turn_onto(facing(place_TJ3[:1]), Z[None])[0].T


def facing(place_TJ3: Float[np.ndarray, "T 22 3"]) -> Float[np.ndarray, "T 3"]:
    """Which way the body faces over the ground: up across hips and shoulders."""
    hips = place_TJ3[:, RIGHT_HIP] - place_TJ3[:, LEFT_HIP]
    shoulders = place_TJ3[:, RIGHT_SHOULDER] - place_TJ3[:, LEFT_SHOULDER]
    return unit(cross(np.broadcast_to(Y, hips.shape), unit(hips + shoulders)))


def about_y(angle_T: Float[np.ndarray, " T"]) -> Float[np.ndarray, "T 3 3"]:
    """Rotations about y."""
    cosine, sine, zero = np.cos(angle_T), np.sin(angle_T), np.zeros_like(angle_T)
    rows = (cosine, zero, sine, zero, zero + 1, zero, -sine, zero, cosine)
    return np.stack(rows, axis=-1).reshape(-1, 3, 3)


def chain_turns(
    place_TJ3: Float[np.ndarray, "T 22 3"], root_T33: Float[np.ndarray, "T 3 3"]
) -> Float[np.ndarray, "T 22 6"]:
    """Each bone's turn from its axis in those of the bone before, two columns one after the other.

    Arms begin from the root's turn and not the chest's, as in the data set.
    """
    turn_TJ6 = np.zeros((*place_TJ3.shape[:2], 6))
    for chain in CHAINS:
        before = root_T33
        for start, end in zip(chain, chain[1:], strict=False):
            bone = place_TJ3[:, end] - place_TJ3[:, start]
            turn = turn_onto(np.broadcast_to(AXES[end], bone.shape), bone)
            local = before.swapaxes(1, 2) @ turn
            turn_TJ6[:, end] = local[..., :2].swapaxes(1, 2).reshape(-1, 6)
            before = turn
    return turn_TJ6


def with_lengths(
    place_TJ3: Float[np.ndarray, "T 22 3"], length_J: Float[np.ndarray, "22"]
) -> Float[np.ndarray, "T 22 3"]:
    """The same directions of bones on bones of other lengths, the root's path scaled by the legs."""
    own_J = lengths_of(place_TJ3)
    result = np.empty_like(place_TJ3)
    result[:, 0] = place_TJ3[:, 0] * (length_J[[5, 8]].sum() / own_J[[5, 8]].sum())
    for start, end in bones():
        result[:, end] = result[:, start] + length_J[end] * unit(place_TJ3[:, end] - place_TJ3[:, start])
    return result


def lengths_of(place_TJ3: Float[np.ndarray, "T 22 3"]) -> Float[np.ndarray, "22"]:
    """The length of the bone that ends in each joint, in the first frame; none of the root's."""
    length_J = np.zeros(JOINTS)
    for start, end in bones():
        length_J[end] = np.linalg.norm(place_TJ3[0, end] - place_TJ3[0, start])
    return length_J


def bones() -> list[tuple[int, int]]:
    """(joint, next joint) of every bone, from the root outwards."""
    return [pair for chain in CHAINS for pair in zip(chain, chain[1:], strict=False)]
