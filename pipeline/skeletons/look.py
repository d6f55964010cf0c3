"""What `mclip skeleton` shows of a BVH file: its tree and what each joint is taken for, the check, a map, a picture."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mclip.pipeline.geometry.recording import MotionError
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS
from mclip.pipeline.skeletons.bvh_text import read_bvh
from mclip.pipeline.skeletons.check import account_of, floor_shift, nearest
from mclip.pipeline.skeletons.frames import hips_line, placed, unit
from mclip.pipeline.skeletons.joints import UP, Understood, map_text, read_map, told_tree, understand
from mclip.pipeline.skeletons.kinematics import moving_of, seen_places, tree_of
from mclip.pipeline.skeletons.names import joints_by_name
from mclip.pipeline.skeletons.solve import Solved, solve

SHOWN = 6  # frames, evenly spaced
LEFT, RIGHT, MIDDLE = "tab:blue", "tab:red", "0.3"


@dataclass(frozen=True)
class Seen:
    """A file's tree in words, a map to edit, and its motion as it was solved, or the reason why it was not."""

    text: str
    map: str
    solved: Solved | None = None
    reason: str = ""

    def draw(self, path: Path) -> None:
        """The file's skeleton and SMPL's in it, some frames side by side, as a PNG."""
        assert self.solved
        draw(self.solved, path)


def look(file: Path, joint_map: str = "") -> Seen:
    """A BVH file as it is understood, with a map or without. MotionError where it is no BVH at all."""
    try:
        bvh = read_bvh(file.read_bytes())
    except MotionError as error:
        raise MotionError(f"{file}: {error}") from error
    tree = tree_of(bvh)
    found = Understood(joints_by_name(tree.names, tree.parents), {}, "names", "")
    try:
        mapped = read_map(joint_map)
        found = understand(tree, seen_places(bvh), mapped)
        solved = solve(moving_of(bvh, found), up=mapped.get(UP, ""))
        told = [f"{name}: {value}" for name, value in account_of(found, solved).items() if value != []]
    except MotionError as error:
        return Seen(told_tree(tree, found), map_text(tree, found.joints), reason=f"{file}: {error}")
    return Seen("\n".join([told_tree(tree, found), "", *told]), map_text(tree, found.joints), solved)


def draw(solved: Solved, path: Path) -> None:
    """Write a PNG: above each frame from the front, below from the body's left; the file's bones wide, ours thin."""
    from matplotlib.figure import Figure

    ours = placed(solved.turns, solved.root_T3)
    frames = np.linspace(0, len(solved.root_T3) - 1, min(SHOWN, len(solved.root_T3))).astype(int)
    figure = Figure(figsize=(2 * len(frames), 7), layout="constrained")
    panels = figure.subplots(2, len(frames), squeeze=False, sharey=True)
    lift = floor_shift(solved)
    for column, frame in enumerate(frames):
        across = unit(hips_line(solved.target)[frame] * [1, 1, 0])
        ahead = np.cross(across, [0, 0, 1])
        for row, way in enumerate((across, ahead)):
            panel = panels[row, column]
            for place, width, shade in ((solved.target, 5.0, 0.3), (ours, 1.5, 1.0)):
                away = solved.root_T3[frame] * [1, 1, 0] - [0, 0, lift]
                at = {name: each[frame] - away for name, each in place.items()}
                bones(panel, at, way, width=width, shade=shade)
            panel.axhline(0, color="0.8", zorder=0)
            panel.set(aspect="equal", xlim=(-1, 1), xticks=[], title=f"frame {frame}" if not row else "")
    panels[0, 0].set_ylabel("from the front, m")
    panels[1, 0].set_ylabel("from the left, m")
    figure.savefig(path, dpi=80)


def bones(panel, at, way, *, width, shade):  # type: ignore[no-untyped-def]
    """Draw the bones between joints at some places, as seen along the ground across `way`."""
    for joint, name in enumerate(JOINTS[1:], start=1):
        parent = nearest(JOINTS[PARENTS[joint]], at)
        if name in at:
            ends = np.stack((at[name], at[parent]))
            colour = {"left": LEFT, "right": RIGHT}.get(name.split("_")[0], MIDDLE)
            panel.plot(ends @ way, ends[:, 2], color=colour, linewidth=width, alpha=shade, solid_capstyle="round")
