"""The embed stage beside a bare loop of the same open_clip model on ready tensors, one table from one run.

    python workflows/benchmark_embed.py
    python workflows/benchmark_embed.py --clip offline --pictures 10000 --texts 500 --rounds 1

Speed needs no trained weights: the model's are random. Pictures are those of the embedded clips, texts are labels as
BABEL's; the bare loop has them resized, normalised and tokenised before the clock starts, in batches of 32. The stage
begins at the store and ends there. Rounds take turns, so that a busy machine slows both alike; figures are medians.
Memory is the highest up to the end of a first round of the stage: torch, the model and making the store are in it.
"""

# B pictures, N texts

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import open_clip
import torch
from torch import Tensor

from mclip.pipeline.embed import embed
from mclip.pipeline.embed.classes import BABEL_60
from mclip.pipeline.embed.embed import BLOCK
from mclip.pipeline.embed.encoder import BATCH, PRECISIONS, Encoder, quiet
from mclip.pipeline.embed.loading import load_encoder
from mclip.pipeline.embed.offline import OFFLINE
from mclip.pipeline.embed.vectors import blocks
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.labels.spans import Labels
from mclip.pipeline.machine.terminal import peak_memory
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.render import render
from mclip.pipeline.render.options import RenderOptions
from mclip.pipeline.store.schema import DONE
from mclip.pipeline.store.store import Store, open_store


def encoder_of(clip: str, precision: str) -> Encoder:
    """The encoder `offline`, or a model of open_clip with random weights."""
    if clip == OFFLINE:
        return load_encoder(clip, precision=precision)
    with quiet():
        model = open_clip.create_model(clip).eval().requires_grad_(False)
        return Encoder(clip, clip, None, model, open_clip.get_tokenizer(clip), precision=precision)


def labels(count: int) -> list[str]:
    """That many texts: BABEL's classes, then two of them joined, and so on."""
    joined = (" and ".join(each) for many in itertools.count(1) for each in itertools.permutations(BABEL_60, many))
    return list(itertools.islice(joined, count))


def store_of(folder: Path, pictures: int, texts: int) -> Store:
    """A store of the embedded clips, drawn, with as many pictures and texts as asked."""
    store = open_store(folder / "store.zarr", create=True)
    prepare(MOTIONS, store, labels=Labels(), options=PrepareOptions())
    render.render(store, RenderOptions(frames=3))
    drawn = store.read("pictures/rgb")
    rgb = store.grow("pictures/rgb", pictures)
    for block in blocks(pictures, BLOCK):
        rgb[block.start : block.stop] = drawn[np.arange(block.start, block.stop) % len(drawn)]
    for name in ("window", "frame", "view"):
        store.write(f"pictures/{name}", np.arange(pictures) % store.array("windows/row").shape[0])
    store.write("pictures/done", np.full(pictures, DONE, np.uint8))
    store.write_strings("texts", labels(texts))
    return store


def bare(encode: Callable[[Tensor], Tensor], ready: Tensor, encoder: Encoder) -> float:
    """Items a second of nothing but the model."""
    started = time.perf_counter()
    with torch.inference_mode(), encoder.computing():
        for batch in ready.split(BATCH):
            encode(batch)
    return len(ready) / (time.perf_counter() - started)


def stage(store: Store, encoder: Encoder) -> list[float]:
    """Pictures and texts a second of the stage, from the store to the store."""
    if encoder.name in store.attributes("embed").get("encoders", {}):
        embed.forget(store, encoder.name)
    return [summary.done / summary.seconds for summary in embed.embed(store, encoder)]


def rounds_of(store: Store, encoder: Encoder, rounds: int) -> Iterator[tuple[list[float], list[float]]]:
    """What each round measures: the bare loop's pictures and texts a second, and the stage's."""
    # At most 512 of each are ready at once: memory does not hold all of a large store's.
    ready = encoder.preprocess(torch.from_numpy(np.asarray(store.array("pictures/rgb")[:512])))
    tokens = encoder.tokenize(store.strings("texts")[:512])
    for _ in range(rounds):
        loops = ((encoder.model.encode_image, ready), (encoder.model.encode_text, tokens))
        yield [bare(encode, tensors, encoder) for encode, tensors in loops], stage(store, encoder)


@click.command(help=__doc__)
@click.option("--clip", default="ViT-B-32", show_default=True, help="A model of open_clip, or offline.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True)
@click.option("--pictures", default=256, show_default=True, help="Pictures in the store.")
@click.option("--texts", default=256, show_default=True, help="Texts in the store.")
@click.option("--rounds", default=3, show_default=True, help="Rounds; the table shows medians.")
def benchmark(clip: str, precision: str, pictures: int, texts: int, rounds: int) -> None:
    encoder = encoder_of(clip, precision)
    with tempfile.TemporaryDirectory() as folder:
        store = store_of(Path(folder), pictures, texts)
        stage(store, encoder)
        peak = peak_memory()
        found = np.array(list(rounds_of(store, encoder, rounds)))
    click.echo(f"{clip}, {precision}, {torch.get_num_threads()} threads, {pictures:,} pictures, {texts:,} texts")
    click.echo("| | bare loop | stage | stage / bare loop |\n| --- | --- | --- | --- |")
    for kind, name in enumerate(("pictures/s", "texts/s")):
        loop, ours = (statistics.median(found[:, who, kind]) for who in (0, 1))
        share = statistics.median(found[:, 1, kind] / found[:, 0, kind])
        click.echo(f"| {name} | {loop:.1f} | {ours:.1f} | {100 * share:.0f} % |")
    click.echo(f"stage: {peak}")


if __name__ == "__main__":
    benchmark()
