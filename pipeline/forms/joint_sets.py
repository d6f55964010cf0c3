"""Which joints of a body people write places of, and in which order: the sets of data sets, cameras and pose networks.

A set is written as SMPL's name of each of its joints, `-` for what is no joint of SMPL's. A name that stands there
twice is the mean of both, as a head between two ears.
"""

from collections.abc import Mapping, Sequence

from mclip.pipeline.geometry.skeleton import JOINTS

WRITTEN = {
    "h36m17": "pelvis r_hip r_knee r_ankle l_hip l_knee l_ankle - neck head - l_shoulder l_elbow l_wrist r_shoulder "
    "r_elbow r_wrist",
    "coco17": "- - - head head l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_hip r_hip l_knee r_knee l_ankle "
    "r_ankle",
    "kit21": "pelvis spine1 spine3 neck head l_shoulder l_elbow l_wrist r_shoulder r_elbow r_wrist l_hip l_knee "
    "l_ankle - l_foot r_hip r_knee r_ankle - r_foot",
    "openpose25": "- neck r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist pelvis r_hip r_knee r_ankle l_hip "
    "l_knee l_ankle - - head head l_foot l_foot - r_foot r_foot -",
    "kinect25": "pelvis spine2 - head l_shoulder l_elbow l_wrist l_hand r_shoulder r_elbow r_wrist r_hand l_hip l_knee "
    "l_ankle l_foot r_hip r_knee r_ankle r_foot neck - - - -",  # NTU RGB+D's too
    "kinect32": "pelvis spine1 spine3 neck l_collar l_shoulder l_elbow l_wrist l_hand - - r_collar r_shoulder r_elbow "
    "r_wrist r_hand - - l_hip l_knee l_ankle l_foot r_hip r_knee r_ankle r_foot head - - - - -",  # Azure Kinect's
    "mediapipe33": "- - - - - - - head head - - l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist - - l_hand "
    "r_hand - - l_hip r_hip l_knee r_knee l_ankle r_ankle - - l_foot r_foot",
}
BETWEEN = {"pelvis": ("left_hip", "right_hip"), "neck": ("left_shoulder", "right_shoulder")}  # where a set has none


def joints_of(names: Sequence[str]) -> dict[str, list[int]]:
    """SMPL joint -> the joints of a set whose mean it is."""
    found: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        if name != "-":
            side = {"l": "left_", "r": "right_"}.get(name[0]) if name[1] == "_" else None
            found.setdefault(side + name[2:] if side else name, []).append(number)
    for name, beside in BETWEEN.items():
        found.setdefault(name, [found[each][0] for each in beside])
    return found


NAMES: Mapping[str, Sequence[str]] = {
    "smpl22": JOINTS[:22],
    "smpl24": JOINTS,
    **{name: written.split() for name, written in WRITTEN.items()},
}
SETS = {name: (len(names), joints_of(names)) for name, names in NAMES.items()}
COUNTS = tuple(sorted({count for count, _ in SETS.values()}))
