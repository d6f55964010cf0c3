"""One sequence of a store, looked at: its words, a strip of its frames over its file's own, its joints' angles."""

# T frames, J joints (24)

import contextlib
import warnings
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mclip.pipeline.files.atomic import by_rename
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.recording import Recording
from mclip.pipeline.geometry.rotations import matrix_to_axis_angle, rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import JOINTS
from mclip.pipeline.machine.words import visible, visible_lines
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.plan import MIRROR
from mclip.pipeline.prepare.sources import read_recording, root_of
from mclip.pipeline.render.scene import render_clip
from mclip.pipeline.render.sheets import stick_figures, tile
from mclip.pipeline.store.schema import OUTCOME, SPLITS
from mclip.pipeline.store.store import Store

STRIP = 10  # frames of the strip
MOST_LABELS = 8  # that the picture has room for


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
    start, end, text = (values.tolist() for values in spans_of(store, item))
    lines = []
    for a, b, number in sorted(zip(start, end, text, strict=True)):
        of = ", ".join(source for place, source in enumerate(sources) if bits[number] >> place & 1)
        lines.append(f"  {a:7.2f} to {'the end' if np.isinf(b) else f'{b:7.2f}'} s  {texts[number]}  [{of}]")
    return lines or ["  no label that a crop carries"]


def draw(store: Store, item: int, path: Path) -> None:
    """Write a PNG of `figure_of` a sequence."""
    figure = figure_of(store, item)
    with by_rename(path) as aside, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a script that the font has none of: drawn as boxes
        figure.savefig(aside, dpi=80)


def figure_of(store: Store, item: int) -> Figure:
    """Over one axis of seconds: the body, its file's joints, its labels, its root's path, and every joint's angle."""
    rot6d, trans = map(torch.from_numpy, store.motion(store.rows_of(item)))
    frames, fps = len(trans), store.fps
    rotmat = rot6d_to_matrix(rot6d)
    shown = ((torch.arange(STRIP) + 0.5) * frames / STRIP).long()  # each picture is of the middle of its place
    pictures = render_clip(load_body("low"), rotmat[shown], trans[shown], fps=fps, size=160, backend="cpu")
    source = source_of(store, item)
    figure = Figure(figsize=(13, 12 if source else 10), layout="constrained")
    strip, *below, said, root, angles = figure.subplots(
        5 if source else 4, 1, sharex=True, height_ratios=(5, *[5] * bool(source), 4, 7, 20)
    )
    seconds = frames / fps
    if source:
        their_frames = (shown / fps * source.fps).round().long().clamp(max=len(source.trans_T3) - 1).tolist()
        figures = tile(stick_figures(source.source, their_frames, side=160), columns=STRIP)
        below[0].imshow(figures, aspect="auto", extent=(0, seconds, 0, 1))
        below[0].set(yticks=[], ylabel="its file")
    strip.imshow(tile(pictures.numpy(), columns=STRIP), aspect="auto", extent=(0, seconds, 0, 1))
    strip.set(yticks=[], title=shown_text(f"{store.strings('sequences/name')[item]}, {seconds:.2f} s at {fps:g} fps"))
    draw_labels(said, store, item, seconds)
    root.plot(np.arange(frames) / fps, trans.numpy(), label=["x", "y", "z (up)"])
    root.set(ylabel="root (m)")
    root.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    # Without the pelvis: its angle is that of the whole body to the world, and would take most of the colours.
    degrees_TJ = torch.rad2deg(matrix_to_axis_angle(rotmat[:, 1:]).norm(dim=-1)).numpy()
    image = angles.imshow(degrees_TJ.T, aspect="auto", interpolation="nearest", extent=(0, seconds, 23.5, 0.5))
    angles.set(yticks=range(1, 24), yticklabels=JOINTS[1:], xlabel="time (s)", ylabel="joint")
    figure.colorbar(image, ax=angles, orientation="horizontal", aspect=60, label="angle from the rest pose (degrees)")
    return figure


def source_of(store: Store, item: int) -> Recording | None:
    """The file that a sequence was made of, where it is still there, the same, and of joints of its own; else None."""
    name, told = store.strings("sequences/name")[item], store.attributes("prepare")
    if name.endswith(MIRROR):
        return None
    options = {key: value for key, value in told["options"].items() if key in PrepareOptions.__dataclass_fields__}
    asked, sha256 = PrepareOptions(**options).asked, store.read("sequences/sha256")[item].tobytes()
    for folder in told.get("folders", []):
        with contextlib.suppress(ValueError):  # gone, or another than it was
            found = read_recording(root_of(Path(folder)) / name, asked)
            if found.sha256 == sha256 and found.source:
                return found
    return None


def draw_labels(axes: Axes, store: Store, item: int, seconds: float) -> None:
    """Bars of a sequence's labels over seconds, one below the other, with their first words."""
    texts = store.strings("texts")
    start, end, text = (values.tolist() for values in spans_of(store, item))
    bars = sorted((max(a, 0.0), min(b, seconds), texts[number]) for a, b, number in zip(start, end, text, strict=True))
    bars = [bar for bar in bars if bar[0] < bar[1]]
    for line, (a, b, words) in enumerate(bars[:MOST_LABELS]):
        axes.broken_barh([(a, b - a)], (line - 0.4, 0.8), color=f"C{line % 10}", alpha=0.4)
        axes.text(a, line, shown_text(f" {words}"), fontsize=8, verticalalignment="center", clip_on=True)
    more = f"\nfirst {MOST_LABELS} of {len(bars)}" if len(bars) > MOST_LABELS else ""
    axes.set(yticks=[], ylim=(max(len(bars[:MOST_LABELS]), 1) - 0.5, -0.5), ylabel=f"labels{more}")


def shown_text(text: str) -> str:
    """A text for a picture: its first letters, and no $ that would begin a formula."""
    return visible(text[:100], keep="").replace("$", r"\$")


def spans_of(store: Store, item: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start and end in seconds of every label of a sequence, and the number of its text."""
    owned = store.read("spans/sequence") == item
    start, end, text = (store.read(f"spans/{name}")[owned] for name in ("start", "end", "text"))
    return start, end, text
