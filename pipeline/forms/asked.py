"""What the user says of motion files that do not say it themselves; light, since the command line's options hold it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """What the user says of files that do not say it themselves."""

    fps: float | None = None
    joints: str = ""  # which set of joints places are of
    rot6d: str = ""  # whether 6D numbers are rows or columns
    joint_map: str = ""  # a .toml that says what a skeleton's joints are called


NOTHING = Asked()
