"""What `mclip skeleton` shows of a BVH or glTF file: its tree, whose joint is whose, the check, a map, a picture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mclip.pipeline.characters import gltf_clips
from mclip.pipeline.characters.gltf_clips import clip_names
from mclip.pipeline.characters.gltf_file import GLTF, beside, is_gltf, read_gltf
from mclip.pipeline.characters.gltf_nodes import nodes_of, understood
from mclip.pipeline.geometry.recording import MotionError, file_and_member
from mclip.pipeline.geometry.skeleton import JOINTS, PARENTS
from mclip.pipeline.skeletons.bvh_text import read_bvh
from mclip.pipeline.skeletons.check import account_of, floor_shift, nearest
from mclip.pipeline.skeletons.frames import hips_line, placed, unit
from mclip.pipeline.skeletons.joints import UP, Tree, Understood, map_text, read_map, told_tree, understand
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
    """A BVH or glTF file (FILE/CLIP for another clip than the first) as it is understood, with a map or without.

    A model without an animation is looked at as it is at rest. MotionError where it is neither kind at all.
    """
    path, clip = file_and_member(file.as_posix(), (*GLTF, ".bvh"))
    try:
        read = read_skeleton_gltf if is_gltf(path) else read_skeleton_bvh
        skeleton = read(Path(path), clip)
    except OSError as error:
        raise MotionError(f"{file}: {error.strerror or error}") from error
    except MotionError as error:
        raise MotionError(f"{file}: {error}") from error
    tree = skeleton.tree
    found = Understood({}, {}, "names", "")
    try:
        found = replace(found, joints=joints_by_name(tree.names, tree.parents))
        mapped = read_map(joint_map)
        found = skeleton.understand(mapped)
        solved = skeleton.solve(found, mapped.get(UP, ""))
        told = [f"{name}: {value}" for name, value in account_of(found, solved).items() if value != []]
    except MotionError as error:
        return Seen(told_tree(tree, found), map_text(tree, found.joints), reason=f"{file}: {error}")
    return Seen("\n".join([told_tree(tree, found), "", *told]), map_text(tree, found.joints), solved)


@dataclass(frozen=True)
class Skeleton:
    """A file's tree, and how it is understood and solved."""

    tree: Tree
    understand: Callable[[Mapping[str, str]], Understood]
    solve: Callable[[Understood, str], Solved]  # and which axis is said to be up


def read_skeleton_bvh(file: Path, clip: str) -> Skeleton:
    """The skeleton of a BVH file. MotionError."""
    bvh = read_bvh(file.read_bytes())
    tree = tree_of(bvh)
    return Skeleton(
        tree,
        lambda mapped: understand(tree, seen_places(bvh), mapped),
        lambda found, up: solve(moving_of(bvh, found), up=up),
    )


def read_skeleton_gltf(file: Path, clip: str) -> Skeleton:
    """The skeleton of a glTF file, in a clip's motion or at rest. MotionError."""
    try:
        gltf = read_gltf(file.read_bytes(), beside(file.parent))
        nodes = nodes_of(gltf)
        clips = clip_names(gltf)
        move = gltf_clips.clip_of(gltf, nodes, clip or clips[0]) if clips else gltf_clips.at_rest(nodes)
    except Exception as error:
        raise gltf_clips.refused(error) from error
    return Skeleton(
        nodes.tree,
        lambda mapped: understood(nodes, gltf_clips.seen_places(move, nodes), mapped),
        lambda found, up: solve(gltf_clips.moving_of(move, nodes, found), up=up or "y"),
    )


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
