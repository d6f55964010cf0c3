"""curves.png: by unit, only what moved, in words."""

import json
from pathlib import Path

from PIL import Image

from mclip.training.train.curves import draw_curves, figure_of

STILL = {"val/text_to_motion_R@1": 1.0, "val/text_to_motion_R@3": 1.0, "val/z_spread": 0.5}
LINES = [
    {"step": step, "loss/total": 1 / step, "loss/rot6d": 2 / step, "val/mpjpe_mm": 100 / step}
    | {"val/vertex_mm": 90 / step, "val/geodesic_deg": 20 - step}
    | STILL
    for step in range(1, 9)
]


def test_what_did_not_move_is_left_out_and_units_stand_at_the_axes() -> None:
    panels = {axes.get_title(): axes for axes in figure_of(LINES).axes}
    assert list(panels) == ["losses, not weighted", "distance from the source", "angle between joints"]
    assert [axes.get_ylabel() for axes in panels.values()] == ["", "mm", "degrees"]
    assert {axes.get_xlabel() for axes in panels.values()} == {"step"}
    legend = panels["distance from the source"].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["MPJPE", "vertices"]


def test_a_run_in_which_nothing_moved_has_a_picture(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss/total": 1.0}) + "\n")
    draw_curves(tmp_path)
    with Image.open(tmp_path / "curves.png") as picture:
        assert min(picture.size) > 100
