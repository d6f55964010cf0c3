"""What several test files need: files of AMASS's layout, stores, the offline encoder, and a small trained run."""

import contextlib
import json
import os
import resource
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch

from mclip.pipeline.files.assets import MOTIONS

# Third-party imports that warn on today's Python; ours stay errors.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import open_clip  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

from mclip.pipeline.embed import embed
from mclip.pipeline.embed.encoder import Encoder
from mclip.pipeline.embed.loading import load_encoder
from mclip.pipeline.geometry.continuation import continue_motion
from mclip.pipeline.geometry.joining import Track
from mclip.pipeline.geometry.resample import resample
from mclip.pipeline.geometry.rotations import rot6d_to_matrix
from mclip.pipeline.labels.label_files import read_labels
from mclip.pipeline.labels.spans import Labels
from mclip.pipeline.prepare.amass import read_motion
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.render import render
from mclip.pipeline.render.options import RenderOptions
from mclip.pipeline.store.store import Store, open_store
from mclip.training.model.config import ModelConfig, TrainConfig
from mclip.training.model.run import Run, load_run
from mclip.training.train.train import train

EMBEDDED = MOTIONS
CLIPS = ("/walk/", "/kick/", "/getup_facedown/")

WriteAmass = Callable[..., Path]
ReadClip = Callable[[str], Track]
FullDisk = Callable[[int], contextlib.AbstractContextManager[None]]


def smooth_motion(frames: int, fps: float, *, width: int, seed: int) -> dict[str, Any]:
    """Arrays of an AMASS file: every angle swings slowly by itself, the root walks off."""
    generator = np.random.default_rng(seed)
    time_T = np.arange(frames)[:, None] / fps
    swing, phase, speed = (
        generator.uniform(0.1, 0.8, width),
        generator.uniform(0, 6, width),
        generator.uniform(0.3, 2, width),
    )
    return {
        "poses": swing * np.sin(speed * time_T + phase),
        "trans": np.concatenate((time_T, 0.1 * np.sin(time_T), np.full_like(time_T, 0.9)), axis=1),
        "betas": generator.normal(size=16),
        "gender": "female",
        "mocap_framerate": fps,
        "dmpls": np.zeros((frames, 8)),
    }


@pytest.fixture
def write_amass() -> WriteAmass:
    """A function that writes an AMASS-layout .npz; `changes` replace its arrays, None leaves one out."""

    def write(
        path: Path, frames: int = 120, fps: float = 30.0, *, width: int = 156, seed: int = 0, **changes: Any
    ) -> Path:
        arrays = smooth_motion(frames, fps, width=width, seed=seed) | changes
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
        return path

    return write


@pytest.fixture
def amass_folder(tmp_path: Path, write_amass: WriteAmass) -> Path:
    """Five recordings in three data sets, of several rates and lengths, and a shape.npz."""
    folder = tmp_path / "AMASS"
    for seed, (name, frames, fps) in enumerate(
        [
            ("CMU/01/01_01_poses.npz", 480, 120.0),
            ("CMU/01/01_02_poses.npz", 130, 30.0),
            ("KIT/3/kick_poses.npz", 250, 100.0),
            ("SFU/0005/jog_poses.npz", 100, 59.99998856),
            ("SSM_synced/20/hop_stageii.npz", 700, 120.0),
        ]
    ):
        write_amass(folder / name, frames, fps, seed=seed)
    np.savez(folder / "CMU/01/shape.npz", betas=np.zeros(16))
    return folder


@pytest.fixture
def prepared(tmp_path: Path, amass_folder: Path) -> Store:
    """A store of `amass_folder`."""
    store = open_store(tmp_path / "prepared.zarr", create=True)
    summary = prepare(amass_folder, store, labels=Labels(), options=PrepareOptions())
    assert (summary.done, summary.failed) == (5, 0)
    return store


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """The offline encoder."""
    return load_encoder("offline")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Store:
    """Three embedded clips, prepared, drawn and embedded. Read only: tests that write make their own."""
    made = open_store(tmp_path_factory.mktemp("store") / "store.zarr", create=True)
    labels = read_labels((EMBEDDED / "babel",), None)
    prepare(EMBEDDED, made, labels=labels, options=PrepareOptions(), only=CLIPS)
    render.render(made, RenderOptions(body="low", size=64))
    embed.embed(made, encoder)
    return made


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Run:
    """A small model trained on `store` for 12 steps. Read only."""
    folder = tmp_path_factory.mktemp("run") / "run"
    config = TrainConfig(epochs=8.0, batch=2, precision="float32", log_every=2, validate_every=6, save_every=6)
    sizes = ModelConfig(layers=1, feed_forward=64, unit_latent=True)
    train(store, folder, config, sizes, device=torch.device("cpu"))
    return load_run(folder)


@pytest.fixture(scope="session")
def models(run: Run, encoder: Encoder) -> dict[str, Any]:
    """The graphs of `run` and of a page of it, as ONNX by name; traced once, which takes its time."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    from mclip.training.portable.graphs import graphs_of, traced
    from mclip.training.portable.model_page import traced_for_page

    jaxtyping.config.update("jaxtyping_disable", True)  # a size that is traced is no int
    try:
        return traced_for_page(run, encoder) | {"encoder": traced(graphs_of(run, None)["encoder"])}
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def clip() -> ReadClip:
    """A function that reads a shipped clip by its name, at 30 fps in float64, as long as a training crop at least."""

    def read_clip(name: str) -> Track:
        rot6d, trans = resample(read_motion(EMBEDDED / f"EMBEDDED/{name}/{name}_poses.npz"), 30.0)
        rot6d, trans = continue_motion(rot6d, trans, max(60, len(trans)))
        return Track(rot6d_to_matrix(rot6d.double()), trans.double())

    return read_clip


# Sequences of `long_store`: frames at 30 fps, and labels by their seconds.
LONG = {
    # Windows 0 to 100, 100 to 200, 200 to 260. Middle crops 20 to 80, 120 to 180, 200 to 260.
    "SET/01/changing": (260, [("stand still", 0, 0.5), ("walk", 0.5, 5), ("Kick [left]", 5.2, 8.7)]),
    # One window of 80 frames, whose middle crop, 10 to 70, ends before the last label begins.
    "SET/02/the end": (80, [("walk", 0, 2.3), ("bow", 2.34, 2.6)]),
    "SET/03/hop": (15, [("hop", 0, 0.5)]),  # under 20 frames: a crop 20 frames into the window is beyond its end
    "SET/04/nobody_said": (130, []),
}


def babel_entry(name: str, frames: int, labels: list[tuple[str, float, float]]) -> dict[str, Any]:
    """An entry of BABEL's train.json whose labels are frame labels."""
    spans = [
        {"raw_label": text, "proc_label": text, "act_cat": [text.lower()], "start_t": start, "end_t": end}
        for text, start, end in labels
    ]
    annotation = {"labels": spans} if spans else None
    return {"feat_p": f"SET/{name}_poses.npz", "dur": frames / 30, "seq_ann": None, "frame_ann": annotation}


def labelled_store(
    folder: Path, clips: dict[str, tuple[int, list[tuple[str, float, float]]]], encoder: Encoder
) -> Store:
    """Clips of so many frames with BABEL's labels, prepared, drawn and embedded."""
    for seed, (name, (frames, _)) in enumerate(clips.items()):
        file = folder / f"AMASS/{name}_poses.npz"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **smooth_motion(frames, 30.0, width=156, seed=seed))
    entries = {str(number): babel_entry(name, *told) for number, (name, told) in enumerate(clips.items())}
    (folder / "babel").mkdir()
    (folder / "babel/train.json").write_text(json.dumps(entries))
    made = open_store(folder / "store.zarr", create=True)
    prepare(folder / "AMASS", made, labels=read_labels((folder / "babel",), None), options=PrepareOptions())
    render.render(made, RenderOptions(body="low", size=64))
    embed.embed(made, encoder)
    return made


@pytest.fixture(scope="session")
def long_store(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Store:
    """The sequences LONG, prepared, drawn and embedded: several windows each, labels that change. Read only."""
    return labelled_store(tmp_path_factory.mktemp("long"), LONG, encoder)


# Words that would run, or be markup, where somebody forgot that they are words; what runs leaves window.__hit.
HOSTILE = (
    "<script>window.__hit=1</script>",
    "<img src=x onerror=window.__hit=1>",
    "javascript:window.__hit=1",
    '"><svg onload=window.__hit=1>',
    "[red]walk[/red][a](javascript:window.__hit=1)",
    "${window.__hit=1}",
    "{{constructor.constructor('window.__hit=1')()}}",
    "</textarea><script>window.__hit=1</script>",
    "x:expression(window.__hit=1)",
)


@pytest.fixture(scope="session")
def hostile() -> tuple[str, ...]:
    """Words that nothing may take for more than words."""
    return HOSTILE


@pytest.fixture(scope="session")
def hostile_store(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Store:
    """A clip for each of the words HOSTILE, called and labelled so. Read only."""
    clips = {f"SET/01/{word.replace('/', '')}": (60, [(word, 0.0, 2.0)]) for word in HOSTILE}
    return labelled_store(tmp_path_factory.mktemp("hostile"), clips, encoder)


@pytest.fixture
def hostile_run(run: Run, tmp_path: Path) -> Run:
    """`run` in a folder that is called by such a word."""
    return load_run(shutil.copytree(run.folder, tmp_path / HOSTILE[1]))


CHROMIUM = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Callable[..., Any]]:
    """A function that opens a headless Chromium with more switches; skips by name where there is none.

    They are closed after their file of tests: a page that goes on moving takes half a core from all tests after it.
    """
    webdriver = pytest.importorskip("selenium.webdriver")
    found, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not found or not driver:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    from selenium.webdriver.chrome.service import Service

    os.environ |= {"SE_OFFLINE": "true", "SE_AVOID_STATS": "true"}  # selenium looks for nothing to download
    opened = []

    def open_browser(*switches: str) -> Any:
        options = webdriver.ChromeOptions()
        options.binary_location = found
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        for switch in (*CHROMIUM, *switches):
            options.add_argument(switch)
        opened.append(webdriver.Chrome(options=options, service=Service(driver)))
        opened[-1].set_script_timeout(30)
        return opened[-1]

    yield open_browser
    for browser in opened:
        browser.quit()


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes, as on a disk that is full then: writing more is an OSError.

    For as short as can be: whoever reports on the tests writes to a file of its own.
    """
    before, (soft, hard) = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.fixture
def full_disk() -> FullDisk:
    """`files_up_to`, for tests."""
    return files_up_to
