"""inspect: one sequence in words and in a picture."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mclip.cli import cli
from mclip.pipeline.labels.spans import Labels, Span
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.render.inspect import describe, draw, find_sequence
from mclip.pipeline.store.schema import StoreError
from mclip.pipeline.store.store import Store, open_store


@pytest.fixture
def store(tmp_path, amass_folder) -> Store:
    spans = (Span("walks", 0.5, 3.0), Span("all of it", source="own.csv"), Span("never seen", 90.0, 91.0))
    store = open_store(tmp_path / "s.zarr", create=True)
    prepare(amass_folder, store, labels=Labels({"CMU/01/01_01": spans}), options=PrepareOptions())
    return store


def test_a_sequence_is_told_with_its_times_labels_and_sources(store):
    assert describe(store, find_sequence(store, "01_01")).splitlines() == [
        "CMU/01/01_01_poses.npz: done, split train",
        "120 frames at 30 fps (4.00 s), from 120 fps; rows 0 on; 1 windows",
        "     0.00 to the end s  all of it  [own.csv]",
        "     0.50 to    3.00 s  walks  [babel]",
    ]
    assert describe(store, find_sequence(store, "kick")).splitlines()[2] == "  no label that a crop carries"


def test_a_name_that_is_none_or_several_is_refused_with_the_names(store):
    with pytest.raises(StoreError, match="no sequence whose name holds 'dance', among 5: first"):
        find_sequence(store, "dance")
    with pytest.raises(StoreError, match="2 sequences hold 'CMU': CMU/01/01_01_poses.npz, CMU/01/01_02_poses.npz"):
        find_sequence(store, "CMU")


def test_the_picture_shows_bodies_and_another_one_for_another_motion(store, tmp_path):
    result = CliRunner().invoke(cli, ["inspect", store.url, "01_01", "--out", str(tmp_path / "a.png")])
    assert result.exit_code == 0, result.output
    assert "walks  [babel]" in result.output
    draw(store, 4, tmp_path / "b.png")
    one, other = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"), float) for name in "ab")
    assert one.shape == other.shape
    assert (one[:200] < 250).mean() > 0.02  # the strip is not blank
    assert np.abs(one - other).mean() > 1


def test_what_failed_is_told_and_not_drawn(store, tmp_path):
    store.array("sequences/done")[0] = 2
    store.set_attributes("prepare", failures={"sequences/done[0]": "cut short"})
    assert "failed: cut short" in describe(store, 0)
    with pytest.raises(StoreError, match="has no motion to draw"):
        draw(store, 0, tmp_path / "a.png")
