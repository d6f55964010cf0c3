"""Which joints of a body people write places of, and in which order: the sets of data sets, cameras and pose networks.

A name that stands in a set twice is the mean of both, as a head between two ears.
"""

from collections.abc import Mapping, Sequence

from mclip.pipeline.forms.asked import WRITTEN
from mclip.pipeline.geometry.skeleton import JOINTS

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
