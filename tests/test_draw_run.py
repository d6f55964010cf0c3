"""The pictures of a record: source above, reconstruction below, and curves beside the neighbour's lines."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mclip.pipeline.store.store import Store
from mclip.training.model.run import Run
from mclip.workflows import draw_run


def test_a_source_stands_above_what_is_decoded_of_it(run: Run, store: Store, tmp_path: Path) -> None:
    draw_run.draw_motions(run, store, "train", ("/kick/", "/walk/"), tmp_path / "motions.png")
    sheet = np.asarray(Image.open(tmp_path / "motions.png").convert("L"))
    side = draw_run.SIDE
    assert sheet.shape == (4 * side, draw_run.FRAMES * side)
    kick, decoded, walk, _ = (sheet[row * side : (row + 1) * side].astype(int) for row in range(4))
    for strip in (kick, decoded, walk):
        assert (strip < 200).mean() > 0.02  # somebody is there
    first, last = kick[:, :side], kick[:, -side:]
    assert np.abs(first - last).mean() > 3  # and moves
    assert np.abs(kick - walk).mean() > 3


def test_a_strange_word_is_refused(run: Run, store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file called waltz in split train"):
        draw_run.draw_motions(run, store, "train", ("waltz",), tmp_path / "motions.png")


def test_the_neighbours_figures_are_drawn_where_they_were_measured(run: Run, tmp_path: Path) -> None:
    copy = replace(run, folder=Path(shutil.copytree(run.folder, tmp_path / "run")))
    (copy.folder / "baselines.json").unlink(missing_ok=True)
    drawn = []
    for neighbour in (None, {"mpjpe_mm": 100.0, "t2m_R@1": 0.5, "movement_ratio": 1.0}):
        if neighbour:
            (copy.folder / "baselines.json").write_text(json.dumps({"nearest neighbour": neighbour}))
        draw_run.draw_curves(copy, "train", tmp_path / "curves.png")
        drawn.append(np.asarray(Image.open(tmp_path / "curves.png").convert("L")).astype(int))
    assert (drawn[0] < 250).mean() > 0.02
    assert (drawn[0] != drawn[1]).mean() > 0.001
