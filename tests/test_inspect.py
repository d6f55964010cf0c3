"""inspect: one sequence in words and in a picture."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mclip.cli import cli
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.labels.spans import Labels, Span
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.render.inspect import describe, draw, figure_of, source_of
from mclip.pipeline.store.schema import StoreError
from mclip.pipeline.store.store import Store, open_store
from mclip.training.show.export import write
from mclip.training.show.motion import read


@pytest.fixture
def store(tmp_path, amass_folder) -> Store:
    spans = (Span("walks", 0.5, 3.0), Span("all of it", source="own.csv"), Span("never seen", 90.0, 91.0))
    store = open_store(tmp_path / "s.zarr", create=True)
    prepare(amass_folder, store, labels=Labels({"CMU/01/01_01": spans}), options=PrepareOptions())
    return store


def test_a_sequence_is_told_with_its_times_labels_and_sources(store):
    assert describe(store, store.find_sequence("01_01")).splitlines() == [
        "CMU/01/01_01_poses.npz: done, split train",
        "120 frames at 30 fps (4.00 s), from 120 fps; rows 0 on; 1 windows",
        "     0.00 to the end s  all of it  [own.csv]",
        "     0.50 to    3.00 s  walks  [babel]",
    ]
    assert describe(store, store.find_sequence("kick")).splitlines()[2] == "  no label that a crop carries"


def test_a_name_that_is_none_or_several_is_refused_with_the_names(store):
    with pytest.raises(StoreError, match="no sequence whose name holds 'dance', among 5: first"):
        store.find_sequence("dance")
    with pytest.raises(StoreError, match="2 sequences hold 'CMU': CMU/01/01_01_poses.npz, CMU/01/01_02_poses.npz"):
        store.find_sequence("CMU")


def test_the_picture_shows_bodies_and_another_one_for_another_motion(store, tmp_path):
    result = CliRunner().invoke(cli, ["inspect", store.url, "01_01", "--out", str(tmp_path / "a.png")])
    assert result.exit_code == 0, result.output
    assert "walks  [babel]" in result.output
    draw(store, 4, tmp_path / "b.png")
    one, other = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"), float) for name in "ab")
    assert one.shape == other.shape
    assert (one[:200] < 250).mean() > 0.02  # the strip is not blank
    assert np.abs(one - other).mean() > 1


def test_the_picture_says_what_it_shows_and_in_which_units(store):
    figure = figure_of(store, store.find_sequence("01_01"))
    strip, said, root, angles = figure.axes[:4]
    assert strip.get_title() == "CMU/01/01_01_poses.npz, 4.00 s at 30 fps"
    assert [text.get_text() for text in said.texts] == [" all of it", " walks"]
    (whole,), (part,) = (bar.get_paths() for bar in said.collections)
    assert (whole.vertices[:, 0].min(), whole.vertices[:, 0].max()) == (0, 4)  # to the end of the motion
    assert (part.vertices[:, 0].min(), part.vertices[:, 0].max()) == (0.5, 3)
    assert (root.get_ylabel(), angles.get_xlabel(), angles.get_ylabel()) == ("root (m)", "time (s)", "joint")
    assert figure.axes[4].get_xlabel() == "angle from the rest pose (degrees)"
    assert {axes.get_xlim() for axes in (strip, said, root, angles)} == {(0, 4)}


def test_labels_of_any_script_and_number_are_drawn(tmp_path, amass_folder):
    spans = tuple(Span(f"$x^{number}$ 跳舞 \x1b[31m", 0.1 * number, 1 + 0.1 * number) for number in range(9))
    made = open_store(tmp_path / "s.zarr", create=True)
    prepare(amass_folder, made, labels=Labels({"CMU/01/01_01": spans}), options=PrepareOptions(), only=["01_01"])
    said = figure_of(made, 0).axes[1]
    assert len(said.texts) == 8
    assert said.get_ylabel() == "labels\nfirst 8 of 9"
    draw(made, 0, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as drawn:
        assert drawn.size == (1040, 800)


def test_what_failed_is_told_and_not_drawn(store, tmp_path):
    store.array("sequences/done")[0] = 2
    store.set_attributes("prepare", failures={"sequences/done[0]": "cut short"})
    assert "failed: cut short" in describe(store, 0)
    with pytest.raises(StoreError, match="has no motion: it is failed, and not done"):
        draw(store, 0, tmp_path / "a.png")


def test_a_file_of_its_own_joints_stands_below_what_became_of_it_as_long_as_it_is_there(tmp_path):
    clip = read(sorted(MOTIONS.rglob("walk/*.npz"))[0])
    (tmp_path / "bvh").mkdir()
    write(tmp_path / "bvh" / "walk.bvh", clip)
    store = tmp_path / "bvh.zarr"
    CliRunner().invoke(cli, ["prepare", str(tmp_path / "bvh"), str(store), "--workers", "1"], catch_exceptions=False)
    opened = open_store(str(store))
    assert source_of(opened, 0).source.keys() >= {"pelvis", "left_knee"}
    figure = figure_of(opened, 0)
    assert [axes.get_ylabel() for axes in figure.axes[:2]] == ["", "its file"]
    strip = np.asarray(figure.axes[1].images[0].get_array())
    drawn = (strip.reshape(len(strip), 10, -1, 3) != 255).any(-1).sum((0, 2))
    assert (drawn > 100).all()  # pixels of a stick figure in each of the ten places
    (tmp_path / "bvh" / "walk.bvh").write_text("another")
    assert source_of(opened, 0) is None
    assert len(figure_of(opened, 0).axes) == len(figure.axes) - 1
