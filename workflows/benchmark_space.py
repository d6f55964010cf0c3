"""How long the latent space takes at full size: decode, encode and evaluate, search.

    python -m mclip.workflows.benchmark_space FOLDER

A model of the paper's size with random weights (what it decodes is no motion, and costs the same). FOLDER gets a store
of 10,000 windows of made-up swinging motion, a label every five seconds, and random vectors where pictures and texts
would have been embedded: it is made once, and not timed.
"""

import csv
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from torch.nn import functional as F

from mclip.pipeline.embed.classes import BABEL_60
from mclip.pipeline.labels.label_files import read_labels
from mclip.pipeline.machine.devices import multiplies_bfloat16
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.store.schema import DONE
from mclip.pipeline.store.store import Store, open_store
from mclip.training.evaluate.evaluate import evaluate
from mclip.training.latent.search import Index
from mclip.training.latent.space import decode
from mclip.training.model.config import ModelConfig
from mclip.training.model.network import MotionClip
from mclip.training.model.run import Run

FRAMES, SEQUENCES = 10_000, 100  # of a sequence at 30 fps, so that 100 of them are 10,000 windows
WIDTH, ENCODER = 512, "random"


def write_sequence(path: Path, generator: np.random.Generator) -> None:
    """An SMPL file whose joints swing slowly, each by itself."""
    time_T1 = np.arange(FRAMES)[:, None] / 30
    swing, phase, speed = (generator.uniform(*span, 72) for span in ((0.1, 0.6), (0, 6), (0.3, 2)))
    trans = np.concatenate((0.1 * np.sin(time_T1), 0.1 * np.cos(time_T1), np.full_like(time_T1, 0.9)), axis=1)
    poses = swing * np.sin(speed * time_T1 + phase)
    np.savez(path, poses=poses, trans=trans, betas=np.zeros(16), gender="neutral", mocap_framerate=30.0)


def make_store(folder: Path) -> Store:
    """The store, made in `folder` unless it is there."""
    done = folder / "done"
    if done.exists():
        return open_store(folder / "store.zarr")
    generator, files = np.random.default_rng(0), folder / "motions/SET/one"
    files.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(("path", "start", "end", "text", "category"))
        for number in range(SEQUENCES):
            write_sequence(files / f"{number:03}_poses.npz", generator)
            for start in range(0, FRAMES // 30, 5):
                kind = BABEL_60[int(generator.integers(60))]
                told = f"{kind}, way {generator.integers(50)}"
                rows.writerow((f"SET/one/{number:03}_poses.npz", start, start + 5, told, kind))
    store = open_store(folder / "store.zarr", create=True)
    prepare(folder / "motions", store, labels=read_labels((folder / "labels.csv",)), options=PrepareOptions())
    add_vectors(store, generator)
    done.touch()
    return store


def add_vectors(store: Store, generator: np.random.Generator) -> None:
    """Random vectors for a picture a window and for every text."""
    windows, texts = len(store.read("windows/row")), len(store.strings("texts"))
    store.write("pictures/window", np.arange(windows))
    for kind, count in (("image", windows), ("text", texts)):
        vectors = generator.normal(size=(count, WIDTH)).astype(np.float32)
        store.write(f"embeddings/{ENCODER}/{kind}", vectors, width=WIDTH)
        store.write(f"embeddings/{ENCODER}/{kind}_done", np.full(count, DONE, np.uint8))
    store.set_attributes("embed", encoders={ENCODER: {"width": WIDTH}})


def random_run(folder: Path, precision: str) -> Run:
    """A run of the paper's size whose weights nobody trained."""
    torch.manual_seed(0)
    model = MotionClip(ModelConfig(latent=WIDTH)).eval().requires_grad_(False)
    config = {
        "train": {"precision": precision, "target": "joined", "short": "mask"},
        "data": {"fps": 30.0, "crop": 60},
        "encoder": {"name": ENCODER, "weights_sha256": None},
    }
    return Run(folder, config, model, {"step": 0, "z_length": 20.0})


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def search_ms(generator: torch.Generator, *, repeats: int = 20) -> float:
    """Median milliseconds to find the best ten of 100,000 sequences, one window each."""
    index = Index(F.normalize(torch.randn(100_000, WIDTH, generator=generator), dim=1), np.arange(100_000))
    times = [seconds(lambda: index.best(torch.randn(WIDTH, generator=generator), 10)) for _ in range(repeats)]
    return 1000 * float(np.median(times))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--threads", default=2, show_default=True, help="Threads of torch.")
@click.option("--make", is_flag=True, help="Only make the store.")
@click.option("--precision", type=click.Choice(("auto", "float32", "bfloat16")), default="auto", show_default=True)
def benchmark(folder: Path, threads: int, make: bool, precision: str) -> None:
    """Print how long each takes, beside what is asked of two cores."""
    store = make_store(folder)
    if make:
        return
    torch.set_num_threads(threads)
    if precision == "auto":
        precision = "bfloat16" if multiplies_bfloat16(torch.device("cpu")) else "float32"
    generator = torch.Generator().manual_seed(0)
    run = random_run(folder, precision)
    vectors = torch.randn(1000, WIDTH, generator=generator)
    click.echo(f"search 100,000 motions: {search_ms(generator):.1f} ms, asked 50")
    click.echo(f"decode 1,000 vectors, float32: {seconds(lambda: decode(run, vectors, 60)):.1f} s, asked 20")
    took = seconds(lambda: evaluate(run, store, split="train", queries=None, encoder=None))
    click.echo(f"encode and evaluate 10,000 windows, {precision}: {took:.1f} s, asked 180")


if __name__ == "__main__":
    benchmark()
