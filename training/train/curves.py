"""What a run measured on its way, as curves: by unit, and only what moved."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mclip.pipeline.files.atomic import by_rename
from mclip.training.train.journal import CURVES, METRICS, points, read_journal

COLUMNS, WIDTH, HEIGHT = 3, 4.4, 3.0  # panels of a row, and inches of each
STILL = 1e-3  # what varies by less than this share of its size has not moved
# Panels in the order of what one looks for: title, unit, what a name without its split begins with, whether in decades.
PANELS = (
    ("losses, not weighted", "", ("loss/",), True),
    ("distance from the source", "mm", ("mpjpe_mm", "pa_mpjpe_mm", "vertex_mm", "root_", "floor_"), True),
    ("angle between joints", "degrees", ("geodesic_deg",), True),
    ("cosine with CLIP", "cosine", ("text_cosine", "image_cosine"), False),
    ("movement and spread", "share of the source's", ("movement_ratio", "variety_ratio", "z_spread"), False),
    ("texts that find their motion", "share among the first k", ("text_to_motion_R",), False),
    ("motions that find their text", "share among the first k", ("motion_to_text_R",), False),
    ("median rank", "rank", ("text_to_motion_MedR", "motion_to_text_MedR"), False),
    ("gradient", "norm", ("gradient_norm",), True),
)


def draw_curves(folder: Path) -> None:
    """Write curves.png of a run."""
    with by_rename(folder / CURVES) as aside:
        figure_of(read_journal(folder / METRICS)).savefig(aside, dpi=100)


def figure_of(lines: list[dict[str, Any]]) -> Figure:
    """A figure with a panel a unit, over steps; those that measured nothing that moved are left out."""
    panels = [(*panel[:2], panel[3], moved(lines, panel[2])) for panel in PANELS]
    panels = [panel for panel in panels if panel[3]]
    rows = math.ceil(max(len(panels), 1) / COLUMNS)
    figure = Figure(figsize=(WIDTH * min(COLUMNS, max(len(panels), 1)), HEIGHT * rows), layout="constrained")
    for place, (title, unit, in_decades, names) in enumerate(panels, 1):
        draw_panel(figure.add_subplot(rows, min(COLUMNS, len(panels)), place), lines, names, in_decades=in_decades)
        figure.axes[-1].set(title=title, ylabel=unit, xlabel="step")
    return figure


def draw_panel(axes: Axes, lines: list[dict[str, Any]], names: Sequence[str], *, in_decades: bool) -> None:
    """A curve for every name, and beside several what they are called."""
    for name in names:
        steps, values = points(lines, name)
        axes.plot(steps, values, marker="." if len(steps) < 20 else "", linewidth=1.4, label=called(name))
    known = np.concatenate([points(lines, name)[1] for name in names])
    if in_decades and 0 < 10 * known.min() < known.max():  # a scale of decades that shows none is hard to read
        axes.set_yscale("log")
    axes.grid(True, which="both", alpha=0.15)
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)


def moved(lines: list[dict[str, Any]], beginnings: Sequence[str]) -> list[str]:
    """Names with such a beginning whose values differ from one another, in the order of the beginnings."""
    names = sorted({name for line in lines for name in line if name != "step"})
    begun = [name for start in beginnings for name in names if start in (name[: len(start)], bare(name)[: len(start)])]
    values = {name: points(lines, name)[1] for name in begun}
    return [name for name, known in values.items() if np.ptp(known) > STILL * abs(known).max()]


def bare(name: str) -> str:
    """A measured name without the split it was measured on."""
    return name.partition("/")[2] or name


def called(name: str) -> str:
    """What people call a measured name: its unit stands at the axis."""
    words = bare(name).removeprefix("text_to_motion_").removeprefix("motion_to_text_") if "_R@" in name else bare(name)
    for key, word in (("pa_mpjpe_mm", "PA-MPJPE"), ("mpjpe_mm", "MPJPE"), ("vertex_mm", "vertices"), ("z_spread", "z")):
        words = words.replace(key, word)
    for ending in ("_mm", "_deg", "_ratio", "_cosine"):
        words = words.removesuffix(ending)
    return words.replace("_", " ")
