"""The render stage: which pictures there are, that each is drawn once, and that each shows its own frame."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from mclip.cli import cli
from mclip.pipeline.geometry.body import Body, load_body
from mclip.pipeline.geometry.rotations import rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import PARENTS
from mclip.pipeline.labels.spans import Labels
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.render import render
from mclip.pipeline.render.options import RenderOptions
from mclip.pipeline.render.scene import Shot, draw_shots, render_clip, setting_of
from mclip.pipeline.render.sheets import contact_sheet
from mclip.pipeline.store.schema import DONE, FAILED, PENDING, StoreError
from mclip.pipeline.store.store import Store, open_store
from mclip.pipeline.store.validate import validate


@pytest.fixture
def undrawn(store: Store, tmp_path: Path) -> Store:
    """A copy of the store without pictures."""
    copy = tmp_path / "copy.zarr"
    shutil.copytree(store.url, copy)
    made = open_store(copy)
    made.forget("pictures", "render")
    made.forget("embeddings", "embed")
    return made


SMALL = RenderOptions(frames=2, views=3, size=48, body="low")


def mclip(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def shot(store: Store, item: int, body: Body, *, view: int, options: RenderOptions | None = None) -> Shot:
    """Picture `item` of a store as one that stands alone."""
    window = int(store.read("pictures/window")[item])
    row, frames = (int(store.read(f"windows/{name}")[window]) for name in ("row", "frames"))
    rot6d, trans = (torch.from_numpy(store.read(f"motion/{name}")[row : row + frames]) for name in ("rot6d", "trans"))
    rotmat, frame = rot6d_to_matrix(rot6d), int(store.read("pictures/frame")[item])
    setting = setting_of(body, rotmat, trans, options) if options else None
    return Shot(body, rotmat[frame], trans[frame], view, setting)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_frames_are_the_middles_of_equal_parts() -> None:
    assert render.picture_frames(100, 1).tolist() == [50]
    assert render.picture_frames(100, 2).tolist() == [25, 75]
    assert render.picture_frames(3, 3).tolist() == [0, 1, 2]
    assert render.picture_frames(1, 2).tolist() == [0, 0]
    assert render.picture_frames(np.array([100, 3]), 1).tolist() == [[50], [1]]


def test_a_share_just_under_one_is_still_a_frame_of_the_window() -> None:
    almost = np.nextafter(1.0, 0.0)
    assert render.picture_frames(np.array([7, 100]), 3, place=np.full((2, 3), almost)).max(1).tolist() == [6, 99]


def windows_of(tmp_path: Path, frames: list[int]) -> Store:
    store = open_store(tmp_path / f"{len(frames)}.zarr", create=True)
    store.write("windows/frames", np.array(frames))
    return store


def test_random_frames_are_one_of_each_part_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    store = windows_of(tmp_path, [100] * 50 + [60, 3, 1])
    options = RenderOptions(pick="random", frames=2)
    frame = render.picture_index(store, options)["frame"].reshape(-1, 2)
    assert (frame[:50, 0] < 50).all()
    assert (frame[:50, 1] >= 50).all()
    assert (frame >= 0).all()
    assert (frame < store.read("windows/frames")[:, None]).all()
    assert len(np.unique(frame[:50, 0])) > 20
    assert (render.picture_index(store, options)["frame"] == frame.ravel()).all()
    other = render.picture_index(store, RenderOptions(pick="random", frames=2, seed=1))["frame"]
    assert (other != frame.ravel()).mean() > 0.8


@pytest.mark.parametrize("options", [RenderOptions(pick="all", views=2), RenderOptions(pick="random", frames=2)])
def test_the_index_of_a_store_that_grows_keeps_its_beginning(tmp_path: Path, options: RenderOptions) -> None:
    short = render.picture_index(windows_of(tmp_path, [5, 3]), options)
    long = render.picture_index(windows_of(tmp_path, [5, 3, 4]), options)
    for name, values in short.items():
        assert long[name][: len(values)].tolist() == values.tolist()
        assert len(long[name]) > len(values)


def test_all_frames_are_the_valid_ones_of_every_window(tmp_path: Path) -> None:
    index = render.picture_index(windows_of(tmp_path, [3, 2]), RenderOptions(pick="all", views=2))
    assert index["window"].tolist() == [0] * 6 + [1] * 4
    assert index["frame"].tolist() == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1]
    assert index["view"].tolist() == [0, 1] * 5


def test_more_views_than_memory_are_refused_before_anything_is_written(undrawn: Store) -> None:
    told = mclip("render", undrawn.url, "--views", 10_000_000)
    assert told.exit_code == 1
    assert "30,000,000 pictures (3 frames of 3 windows, 10,000,000 views) are more than 20,000,000" in told.output
    assert "pictures" not in undrawn


def test_the_index_says_which_picture_is_which(undrawn: Store) -> None:
    assert render.render(undrawn, SMALL, backend="cpu").done == 3 * 2 * 3
    assert undrawn.read("pictures/window").tolist() == [w for w in range(3) for _ in range(6)]
    assert undrawn.read("pictures/view").tolist() == [0, 1, 2] * 6
    frames = undrawn.read("windows/frames")
    assert undrawn.read("pictures/frame")[::6].tolist() == [int(n / 4) for n in frames]


@pytest.mark.parametrize(
    "look", [{}, {"camera": "fixed"}, {"ground": True, "colour": "tomato", "background": "#102030"}]
)
def test_every_picture_equals_its_own_frame_drawn_alone(undrawn: Store, look: dict) -> None:
    options = RenderOptions(frames=2, views=3, size=48, body="low", **look)
    render.render(undrawn, options, backend="cpu")
    body, rgb, views = load_body("low"), undrawn.read("pictures/rgb"), undrawn.read("pictures/view")
    for item in (0, 4, 17):
        one = shot(undrawn, item, body, view=int(views[item]), options=options if look else None)
        alone = draw_shots([one], options, backend="cpu")[0][0]
        assert np.abs(alone.astype(int) - rgb[item]).max() <= 1
    assert np.abs(rgb[0].astype(int) - rgb[4]).max() > 50
    if "colour" in look:
        assert rgb[0, 0, 0].tolist() == [16, 32, 48]


def test_a_fixed_camera_stands_still_while_a_window_lasts(undrawn: Store) -> None:
    looks = {}
    for camera in ("fixed", "front"):
        options = RenderOptions(frames=4, size=64, body="low", ground=True, camera=camera)
        render.render(undrawn, options, backend="cpu", replace=camera == "front")
        looks[camera] = undrawn.read("pictures/rgb").astype(int)
    rim = np.ones((64, 64), bool)
    rim[4:-4, 4:-4] = False  # floor and background: the body is inside
    walk = slice(8, 12)
    fixed, front = (looks[name][walk][:, rim] for name in ("fixed", "front"))
    assert np.abs(np.diff(fixed, axis=0)).max() == 0
    assert np.abs(np.diff(front, axis=0)).max() > 20
    assert np.abs(np.diff(looks["fixed"][walk], axis=0)).max() > 50


def test_second_run_draws_nothing(undrawn: Store) -> None:
    render.render(undrawn, SMALL, backend="cpu")
    again = render.render(undrawn, SMALL, backend="cpu")
    assert (again.done, again.skipped, again.failed) == (0, 18, 0)


def test_other_options_are_refused_with_the_remedy(store: Store) -> None:
    with pytest.raises(StoreError, match=r"render stage was made with .*'size': 64.*asks for .*'size': 96.*--replace"):
        render.render(store, RenderOptions(body="low", size=96))


@pytest.mark.parametrize(
    "change", [{"ground": True}, {"camera": "fixed"}, {"colour": "red"}, {"background": "black"}, {"body": "default"}]
)
def test_every_option_is_recorded_and_refused_by_its_difference(store: Store, change: dict) -> None:
    (name,) = change
    with pytest.raises(StoreError, match=rf"was made with {{'{name}': .*}}, this command asks for {{'{name}': "):
        render.render(store, RenderOptions(**{"body": "low", "size": 64} | change))


def test_a_store_without_windows_names_prepare(tmp_path: Path) -> None:
    empty = open_store(tmp_path / "s.zarr", create=True)
    with pytest.raises(StoreError, match="run `mclip prepare SOURCE"):
        render.render(empty, RenderOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frames", "101"], "--frames is 101, a window has 100 frames: expected at most as many"),
        (["--size", "0"], "picture size: found 0 px, expected 16 to 4096"),
        (["--size", "100000"], "picture size: found 100000 px"),
        (["--antialias", "100"], "antialias: found 100 at 224 px"),
        (["--colour", "claay"], "found 'claay', expected clay, a CSS name as tomato, or #rrggbb"),
        (["--pick", "all", "--frames", "3"], "--frames is 3 with --pick all"),
        (["--seed", "3"], "--seed is 3 with --pick even"),
        (["--body", "nobody.npz"], "body nobody.npz: no such file"),
        (["--betas", "sequence"], "body default has no shape directions"),
        (["--backend", "blender"], "backend: found 'blender'"),
        (["--scheduler", "thread"], "--scheduler is 'thread'"),
    ],
)
def test_a_bad_option_is_named_and_costs_no_picture(store: Store, options: list[str], message: str) -> None:
    before = files_below(Path(store.url))
    told = mclip("render", store.url, "--replace", *options)
    assert told.exit_code == 1
    assert message in told.output
    assert files_below(Path(store.url)) == before


def test_dry_run_counts_and_writes_nothing(undrawn: Store) -> None:
    before = files_below(Path(undrawn.url))
    told = mclip("render", undrawn.url, "--dry-run", "--views", 4, "--size", 100)
    assert told.output == (
        "dry run, nothing is written: 12 pictures to draw of 12, 100 px, 0.4 MB before compression; 0 done already\n"
    )
    assert files_below(Path(undrawn.url)) == before


# --- motions and bodies that cannot be drawn


def test_a_frame_without_numbers_fails_by_name_and_the_rest_is_drawn(undrawn: Store) -> None:
    whole = RenderOptions(frames=2, size=48, body="low")
    render.render(undrawn, whole, backend="cpu")
    expected = undrawn.read("pictures/rgb")
    row = int(undrawn.read("windows/row")[1] + undrawn.read("pictures/frame")[3])
    undrawn.array("motion/rot6d")[row] = np.nan
    told = mclip("render", undrawn.url, "--frames", 2, "--size", 48, "--body", "low", "--replace")
    assert told.exit_code == 1
    assert "5 pictures done, 0 skipped, 1 failed" in told.output
    assert undrawn.read("pictures/done").tolist() == [DONE, DONE, DONE, FAILED, DONE, DONE]
    name = undrawn.strings("sequences/name")[1]
    (reason,) = open_store(undrawn.url).attributes("render")["failures"].values()
    assert reason.startswith(f"{name}: frame {undrawn.read('pictures/frame')[3]} of window 1 has NaN or infinity")
    others = [0, 1, 2, 4, 5]
    assert np.array_equal(undrawn.read("pictures/rgb")[others], expected[others])


def test_a_store_of_which_no_picture_can_be_drawn_says_so(undrawn: Store) -> None:
    undrawn.array("motion/trans")[...] = np.nan
    undrawn.array("motion/rot6d")[...] = np.nan
    told = mclip("render", undrawn.url, "--size", 48, "--body", "low")
    assert told.exit_code == 1
    assert "0 pictures done, 0 skipped, 3 failed" in told.output
    assert "contact sheet" not in told.output


def write_body(path: Path, *, tall: float) -> None:
    """The low body `tall` times as high; its first beta makes it wider by a fifth, its second lower by a tenth."""
    low, stretch = load_body("low"), np.array([1, tall, 1], np.float32)
    template = low.v_template_V3.numpy() * stretch
    regressor = np.zeros((24, len(template)), np.float32)
    regressor[np.arange(24), torch.cdist(low.joints_J3, low.v_template_V3).argmin(1)] = 1
    shapedirs = np.stack((template * [0.2, 0, 0.2], template * [0, -0.1, 0]), axis=-1).astype(np.float32)
    np.savez(
        path,
        v_template=template,
        faces=low.faces_F3.int().numpy(),
        weights=low.weights_VJ.numpy(),
        joints=low.joints_J3.numpy() * stretch,
        parents=np.array(PARENTS),
        shapedirs=shapedirs,
        J_regressor=regressor,
    )


@pytest.fixture
def genders(tmp_path: Path) -> Path:
    """A folder with a body for each gender, of different heights."""
    folder = tmp_path / "bodies"
    folder.mkdir()
    for name, tall in (("SMPL_NEUTRAL", 1.0), ("SMPL_FEMALE", 0.8), ("SMPL_MALE", 1.2)):
        write_body(folder / f"{name}.npz", tall=tall)
    return folder


def test_a_folder_of_bodies_gives_each_sequence_that_of_its_gender(prepared: Store, genders: Path) -> None:
    options = RenderOptions(size=48, body=str(genders))
    gender = np.array([0, 1, 2, 1, 1], np.uint8)
    prepared.array("sequences/gender")[...] = gender
    render.render(prepared, options, backend="cpu")
    rgb, sequence = prepared.read("pictures/rgb"), prepared.read("windows/sequence")
    bodies = [load_body(genders / f"SMPL_{name}.npz") for name in ("NEUTRAL", "FEMALE", "MALE")]
    assert len(rgb) > 5
    for item in range(len(rgb)):
        window = prepared.read("pictures/window")[item]
        right, wrong = (
            draw_shots([shot(prepared, item, bodies[code], view=0)], options, backend="cpu")[0][0].astype(int)
            for code in (gender[sequence[window]], (gender[sequence[window]] + 1) % 3)
        )
        assert np.abs(right - rgb[item]).max() <= 1
        assert np.abs(wrong - rgb[item]).max() > 20


def test_a_gender_without_a_body_is_refused_with_the_count(prepared: Store, genders: Path) -> None:
    (genders / "SMPL_FEMALE.npz").unlink()
    with pytest.raises(ValueError, match=r"found male, neutral, but 5 sequences are female: add its file"):
        render.render(prepared, RenderOptions(body=str(genders)))
    assert "pictures" not in prepared


def test_betas_of_the_sequence_shape_the_body(prepared: Store, genders: Path) -> None:
    betas = np.zeros((5, 16), np.float32)
    betas[:, :2] = [[5, -5], [-3, 5], [0, 0], [5, 5], [-4, -5]]  # extreme: half the girth to twice it
    prepared.array("sequences/betas")[...] = betas
    file = genders / "SMPL_NEUTRAL.npz"
    options = RenderOptions(size=48, body=str(file), betas="sequence")
    render.render(prepared, options, backend="cpu")
    rgb, sequence = prepared.read("pictures/rgb"), prepared.read("windows/sequence")
    plain = load_body(file)
    for item, window in enumerate(prepared.read("pictures/window")):
        body = plain.shaped(torch.from_numpy(betas[sequence[window], :2]))
        alone = draw_shots([shot(prepared, item, body, view=0)], options, backend="cpu")[0][0]
        assert np.abs(alone.astype(int) - rgb[item]).max() <= 1
        seen = (rgb[item] < 250).any(-1)
        assert 0.01 < seen.mean() < 0.6
        assert not seen[[0, -1]].any()
        assert not seen[:, [0, -1]].any()


def test_shapes_of_smplx_are_not_drawn_on_smpl(tmp_path: Path, write_amass: Callable[..., Path], genders: Path) -> None:
    source, body = tmp_path / "AMASS", genders / "SMPL_NEUTRAL.npz"
    for seed, (name, width) in enumerate((("a", 165), ("b", 165), ("c", 156))):
        write_amass(source / f"SET/1/{name}_poses.npz", width=width, seed=seed)
    made = open_store(tmp_path / "s.zarr", create=True)
    prepare(source, made, labels=Labels(), options=PrepareOptions())
    told = r"the shapes of 2 sequences are of SMPL-X, --body .* is none of it: name a body of that model, or --betas"
    with pytest.raises(ValueError, match=told):
        render.render(made, RenderOptions(body=str(body), betas="sequence"))
    assert "pictures" not in made
    render.render(made, RenderOptions(size=32, body=str(body)), backend="cpu")  # one shape for all is all right


def test_a_body_file_that_changes_in_the_middle_of_a_run_is_refused(undrawn: Store, genders: Path) -> None:
    file = genders / "SMPL_MALE.npz"
    options = RenderOptions(size=48, body=str(file))
    render.render(undrawn, options, backend="cpu", limit=1)
    write_body(file, tall=0.9)
    with pytest.raises(StoreError, match=r"was made with {'body': '\w+'}, this command asks for {'body': '\w+'}"):
        render.render(undrawn, options, backend="cpu")


# --- kills, workers, full disks


WHOLE = ("--pick", "all", "--views", "8", "--size", "64", "--body", "low")


def started(*words: object, **settings: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "mclip.cli", "render", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **settings,
    )


def picture_files(store: Store) -> dict[str, bytes]:
    return files_below(Path(store.url) / "pictures")


def test_killed_and_continued_by_processes_gives_the_bytes_of_one_run(undrawn: Store, tmp_path: Path) -> None:
    killed = tmp_path / "killed.zarr"
    shutil.copytree(undrawn.url, killed)
    process = started(killed, *WHOLE)
    deadline, done = time.monotonic() + 60, killed / "pictures/done/c/0"
    while not done.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    state = open_store(killed).read("pictures/done")
    assert 0 < (state == DONE).sum() < len(state)
    process = started(killed, *WHOLE, "--scheduler", "processes", "--workers", 1)
    told, _ = process.communicate(timeout=600)
    assert process.returncode == 0, told
    assert mclip("render", undrawn.url, *WHOLE).exit_code == 0
    assert picture_files(open_store(killed)) == picture_files(undrawn)
    assert (undrawn.read("pictures/done") == DONE).all()
    assert validate(open_store(killed)) == []


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # as a disk that is full: the write itself fails


def test_a_write_that_fails_stops_by_name_and_loses_nothing(undrawn: Store) -> None:
    process = started(undrawn.url, *WHOLE, "--limit", 1, preexec_fn=limit_files)
    told, _ = process.communicate(timeout=600)
    assert process.returncode == 1, told
    assert "Error: " in told
    assert "File too large" in told
    assert "Traceback" not in told
    assert (undrawn.read("pictures/done") == PENDING).all()
    again = mclip("render", undrawn.url, *WHOLE, "--limit", 300)
    assert again.exit_code == 0
    assert validate(undrawn) == []


def test_no_egl_is_named_and_nothing_is_lost(undrawn: Store) -> None:
    pytest.importorskip("pyrender")
    broken = os.environ | {"__EGL_VENDOR_LIBRARY_FILENAMES": "/nowhere.json", "PYOPENGL_PLATFORM": "egl"}
    process = started(undrawn.url, "--body", "low", "--size", 48, "--backend", "pyrender", env=broken)
    told, _ = process.communicate(timeout=600)
    assert process.returncode == 1, told
    assert "backend pyrender: found no working EGL" in told
    assert "use backend cpu" in told
    assert mclip("render", undrawn.url, "--body", "low", "--size", 48).exit_code == 0


def test_large_pictures_come_in_smaller_shards(undrawn: Store) -> None:
    render.plan_pictures(undrawn, RenderOptions(size=4096))
    assert undrawn.array("pictures/rgb").shards[0] * 3 * 4096**2 < 200e6
    undrawn.forget("pictures", "render")
    render.plan_pictures(undrawn, RenderOptions(size=224))
    assert undrawn.array("pictures/rgb").shards[0] == 256


@pytest.mark.cuda
def test_pictures_drawn_on_cuda_are_nearly_those_of_the_cpu(undrawn: Store) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pictures = []
    for device in ("cuda", "cpu"):
        render.render(undrawn, RenderOptions(size=112, ground=True, camera="fixed"), device=device, replace=True)
        pictures.append(undrawn.read("pictures/rgb").astype(int))
    assert (np.abs(pictures[0] - pictures[1]).max(-1) > 2).mean() < 2e-3


def test_the_contact_sheet_shows_bodies(store: Store, tmp_path: Path) -> None:
    from PIL import Image

    assert contact_sheet(store, tmp_path / "sheet.png") == 3
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("L"))
    line = sheet.size[1] // 2 - 160  # of words above each row of pictures
    assert sheet.size[0] == 320
    assert line > 0
    for top, left in ((line, 0), (line, 160), (160 + 2 * line, 0)):
        assert 0.02 < (pixels[top : top + 160, left : left + 160] < 250).mean() < 0.6
    assert (pixels[160 + line :, 160:] == 255).all()


def test_a_walking_body_strides_through_the_video_and_stays_in_it(store: Store) -> None:
    walk = next(i for i, name in enumerate(store.strings("sequences/name")) if "/walk/" in name)
    at = slice(store.read("sequences/row")[walk], store.read("sequences/row")[walk] + 30)
    rotmat = rot6d_to_matrix(torch.from_numpy(store.read("motion/rot6d")[at]))
    trans = torch.from_numpy(store.read("motion/trans")[at])
    frames = render_clip(load_body("low"), rotmat, trans, fps=30.0, size=64).numpy()
    dark = (frames < 250).any(-1)
    border = np.concatenate([dark[:, 0], dark[:, -1], dark[:, :, 0], dark[:, :, -1]], axis=1)
    assert not border.any()
    assert np.abs(np.diff(frames.astype(int), axis=0)).max(axis=(1, 2, 3)).min() > 20
