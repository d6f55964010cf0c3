"""What the user says of motion files that do not say it themselves, and whose joints places may be of.

Light: the command line's options are made of it.
"""

from dataclasses import dataclass

# SMPL's name of each joint of a set, `-` for what is no joint of SMPL's.
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
UPS = ("y", "z", "-y", "-z", "x", "-x")
SET_NAMES = ("smpl22", "smpl24", *WRITTEN)


@dataclass(frozen=True)
class Asked:
    """What the user says of files that do not say it themselves."""

    fps: float | None = None
    joints: str = ""  # which set of joints places are of
    rot6d: str = ""  # whether 6D numbers are rows or columns
    joint_map: str = ""  # a .toml that says what a skeleton's joints are called
    up: str = ""  # the file's axis that points up; of glTF it is y


NOTHING = Asked()
