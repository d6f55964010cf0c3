"""One sequence of a store, looked at: what it is and says, a strip of its frames, and its joints' angles over time."""

# T frames, J joints (24)

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch

from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.rotations import matrix_to_axis_angle, rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import JOINTS
from mclip.pipeline.machine.words import visible_lines
from mclip.pipeline.render.scene import render_clip
from mclip.pipeline.render.sheets import tile
from mclip.pipeline.store.schema import DONE, OUTCOME, SPLITS, StoreError
from mclip.pipeline.store.store import Store

STRIP = 10  # frames of the strip


def find_sequence(store: Store, clip: str) -> int:
    """Number of the one sequence whose name holds `clip`, or is it. StoreError when there is none, or several."""
    names = store.strings("sequences/name")
    holding = [item for item, name in enumerate(names) if clip in name]
    found = [item for item in holding if names[item] == clip] or holding
    if not found:
        raise StoreError(f"{store.url}: no sequence whose name holds {clip!r}, among {len(names)}: first {names[:3]}")
    if len(found) > 1:
        told = ", ".join(names[item] for item in found[:5])
        raise StoreError(f"{store.url}: {len(found)} sequences hold {clip!r}: {told}: name more of one")
    return found[0]


def describe(store: Store, item: int) -> str:
    """What a sequence is, in lines: file, times, split, windows, labels with their seconds and source."""
    told = {name: store.read(f"sequences/{name}")[item] for name in ("frames", "fps", "split", "done", "row")}
    fps = store.fps
    lines = [
        f"{store.strings('sequences/name')[item]}: {OUTCOME[int(told['done'])]}, split {SPLITS[int(told['split'])]}",
        f"{told['frames']} frames at {fps:g} fps ({told['frames'] / fps:.2f} s), from {told['fps']:g} fps; "
        f"rows {told['row']} on; {(store.read('windows/sequence') == item).sum()} windows",
    ]
    if reason := store.attributes("prepare").get("failures", {}).get(f"sequences/done[{item}]"):
        lines.append(f"failed: {reason}")
    return visible_lines([*lines, *labels_of(store, item)])


def labels_of(store: Store, item: int) -> list[str]:
    """A line for each label: seconds, text, sources."""
    texts, sources = store.strings("texts"), store.attributes("prepare")["sources"]
    bits = store.read("texts/source").tolist()
    spans = np.flatnonzero(store.read("spans/sequence") == item)
    start, end, text = (store.read(f"spans/{name}")[spans].tolist() for name in ("start", "end", "text"))
    lines = []
    for a, b, number in sorted(zip(start, end, text, strict=True)):
        of = ", ".join(source for place, source in enumerate(sources) if bits[number] >> place & 1)
        lines.append(f"  {a:7.2f} to {'the end' if np.isinf(b) else f'{b:7.2f}'} s  {texts[number]}  [{of}]")
    return lines or ["  no label that a crop carries"]


def draw(store: Store, item: int, path: Path) -> None:
    """Write a PNG: the body at ten moments, its root's path, and every joint's angle over time."""
    if store.array("sequences/done")[item] != DONE:
        raise StoreError(f"{store.url}: sequence {item} has no motion to draw: it is not done")
    row, frames = (int(store.read(f"sequences/{name}")[item]) for name in ("row", "frames"))
    rot6d, trans = map(torch.from_numpy, store.motion(slice(row, row + frames)))
    fps = store.fps
    rotmat = rot6d_to_matrix(rot6d)
    shown = torch.linspace(0, frames - 1, STRIP).round().long()
    pictures = render_clip(load_body("low"), rotmat[shown], trans[shown], fps=fps, size=160, backend="cpu")
    figure, (strip, path_axes, angles) = plt.subplots(
        3, 1, figsize=(13, 10), height_ratios=(2, 2, 5), layout="constrained"
    )
    strip.imshow(tile(pictures.numpy(), columns=STRIP))
    strip.set_axis_off()
    time_T = np.arange(frames) / fps
    path_axes.plot(time_T, trans.numpy(), label=["x", "y", "z"])
    path_axes.set(ylabel="root, metres")
    path_axes.legend(loc="upper right")
    degrees_TJ = torch.rad2deg(matrix_to_axis_angle(rotmat).norm(dim=-1)).numpy()
    image = angles.imshow(degrees_TJ.T, aspect="auto", interpolation="nearest", extent=(0, frames / fps, 23.5, -0.5))
    angles.set(yticks=range(24), yticklabels=JOINTS, xlabel="seconds")
    figure.colorbar(image, label="angle from rest, degrees")
    figure.savefig(path, dpi=80)
    plt.close(figure)
