"""A store of three embedded clips and a model trained on it for a few steps, made once for all tests."""

import warnings
from pathlib import Path

import pytest
import torch

# Third-party imports that warn on today's Python; ours stay errors.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import open_clip  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

from mclip.pipeline import embed, prepare, render
from mclip.pipeline.encoder import Encoder, load_encoder
from mclip.pipeline.labels import read_babel
from mclip.pipeline.store import Store, open_store
from mclip.training.config import ModelConfig, TrainConfig
from mclip.training.run import Run, load_run
from mclip.training.train import train

EMBEDDED = Path(prepare.__file__).parent / "data" / "motions"
CLIPS = ("/walk/", "/kick/", "/getup_facedown/")


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """The offline encoder."""
    return load_encoder("offline")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Store:
    """Three embedded clips, prepared, drawn and embedded. Read only: tests that write make their own."""
    made = open_store(tmp_path_factory.mktemp("store") / "store.zarr", create=True)
    labels = read_babel(EMBEDDED / "babel")
    prepare.prepare(EMBEDDED, made, labels=labels, options=prepare.PrepareOptions(), only=CLIPS)
    render.render(made, render.RenderOptions(body="low", size=64))
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
