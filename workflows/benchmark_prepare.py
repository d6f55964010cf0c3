"""How fast prepare and the store are, as one table: the floor, prepare, crops, opening a store of AMASS's size.

    python -m mclip.workflows.make_amass_like SOURCE BIG --gigabytes 2
    python -m mclip.workflows.benchmark_prepare BIG SCRATCH          # and --codecs for the table of codecs and chunks
    python -m mclip.workflows.benchmark_prepare FILE.bvh SCRATCH     # the parser, and all of BONES-SEED at its rate

The floor is a loop that only opens each file and reads `poses` and `trans`. Both read from the page cache; with SCRATCH
on a tmpfs, prepare writes to memory too. Both are measured in a process of their own, once and again: what a process
pays once (compiled code, first touch of memory) is the difference.
"""

import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import torch
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from mclip.pipeline.prepare import bvh, sources
from mclip.pipeline.skeletons.bvh_text import read_bvh
from mclip.pipeline.store.schema import FRAME_CHUNK
from mclip.pipeline.store.store import Store, open_store
from mclip.training.data.crops import Crops, load_crops

RELEASE = 1114  # source frames a second of the release's own parser, on the machine that issue 3 was written on
AMASS_HOURS, AMASS_FILES = 43.0, 14_000
SEED_HOURS = 288  # at 120 frames a second, in 142,220 files

ENCODER = "offline"

CHILD = """
import json, shutil, sys, time
from pathlib import Path
import numpy as np
from mclip.pipeline.labels.spans import Labels
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.machine.terminal import peak_memory
from mclip.pipeline.store.store import open_store
source, url, scheduler, workers = sys.argv[1:]

def floor():
    for path in sorted(Path(source).rglob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            arrays["poses"], arrays["trans"]

def whole():
    prepare(Path(source), open_store(url, create=True), labels=Labels(), options=PrepareOptions(), scheduler=scheduler,
            workers=int(workers))

if __name__ == "__main__":
    seconds = []
    for _ in range(4):
        shutil.rmtree(url, ignore_errors=True)
        begun, cpu = time.perf_counter(), time.process_time()
        floor() if scheduler == "floor" else whole()
        seconds.append((time.perf_counter() - begun, time.process_time() - cpu))
    print(json.dumps([*seconds, peak_memory()]))
"""


def apart(source: Path, url: Path, scheduler: str, workers: int) -> tuple[float, float, float, str]:
    """First seconds, best seconds and CPU seconds after, and peak memory, of a process that does a job four times."""
    words = [sys.executable, "-c", CHILD, str(source), str(url), scheduler, str(workers)]
    (first, _), *again, memory = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return first, *min(again), memory


def grow_to_amass(small: Store, url: Path) -> Store:
    """A store of AMASS's size: the small one's frames and windows, over and over."""
    shutil.rmtree(url, ignore_errors=True)
    store = open_store(url, create=True)
    rows, shard = int(AMASS_HOURS * 3600 * 30), FRAME_CHUNK
    for name in ("rot6d", "trans"):
        source, target = small.read(f"motion/{name}")[:shard], store.grow(f"motion/{name}", rows)
        for start in range(0, rows, shard):
            end = min(start + shard, rows)
            target[start:end] = np.resize(source, (end - start, *source.shape[1:]))
    windows, width = rows // 100, 512
    vectors = np.random.default_rng(0).normal(size=(windows, width)).astype(np.float32)
    columns = {
        "windows/row": np.arange(windows) * 100,
        "windows/frames": np.full(windows, 100),
        "windows/split": np.zeros(windows),
        "pictures/window": np.arange(windows),
        "labelsets/text": np.arange(1000),
        "labelsets/labels": np.arange(1000),
        "labelsets/labels_offset": np.arange(1001),
        f"embeddings/{ENCODER}/image_done": np.ones(windows),
    }
    for path, values in columns.items():
        store.write(path, values)
    store.write("windows/labelset", np.arange(windows)[:, None] % 1000 + np.zeros((1, 41), np.int32), shifts=41)
    store.write(f"embeddings/{ENCODER}/image", vectors, width=width)
    store.write(f"embeddings/{ENCODER}/text", vectors[:1000], width=width)
    store.set_attributes("prepare", options={"crop": 60})
    store.set_attributes("embed", encoders={ENCODER: {}})
    return store


def opened(url: str) -> Crops:
    """The windows of a store as training holds them."""
    return load_crops(open_store(url), split="train", encoder=ENCODER, target="joined", device=torch.device("cpu"))


def crops_a_second(crops: Crops, batch: int, seconds: float = 3.0) -> float:
    """Random crops gathered in a second."""
    generator, done, begun = torch.Generator().manual_seed(0), -batch, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        crops.sample(torch.randint(len(crops), (batch,), generator=generator), generator)
        if (done := done + batch) == 0:  # compiled
            begun = time.perf_counter()
    return done / (time.perf_counter() - begun)


def memory_rate() -> float:
    """Bytes a second that numpy copies in this process, read once and written once."""
    source = np.ones(1 << 28, np.uint8)
    target = source.copy()
    return source.nbytes / best(lambda: np.copyto(target, source))


def rows(source: Path, scratch: Path, workers: int) -> Iterator[tuple[str, str]]:
    """The table, row by row, each as soon as it is measured."""
    found = list(sources.recordings(source))
    size = sum(each.size for each in found)
    apart(source, scratch / "none", "floor", 1)  # into the page cache
    floor, floor_again, _, _ = apart(source, scratch / "none", "floor", 1)
    frames = sum(sources.probe(source, each)[0] for each in found)
    yield "input", f"{len(found):,} files, {size / 1e9:.2f} GB, {frames:,} frames"
    yield "floor: open, read poses and trans, one thread", f"{floor:.2f} s, again {floor_again:.2f} s"
    for scheduler in ("threads", "processes"):
        url = scratch / f"{scheduler}.zarr"
        first, again, cpu, memory = apart(source, url, scheduler, workers)
        hours = open_store(url).read("sequences/frames").sum() / 30 / 3600
        yield f"prepare, {workers} {scheduler}", f"{first:.2f} s, again {again:.2f} s ({cpu:.2f} s of CPU), {memory}"
        yield "  against the floor", f"{first / floor:.2f} times, again {again / floor_again:.2f} times"
        yield "  against the release's parser (1,114 frames/s)", f"{frames / again / RELEASE:,.0f} times"
        yield "  motion", f"{hours * 60 / again:.1f} h a minute, {hours * 3600 / again:,.0f} s a second"
        yield f"  all of AMASS ({AMASS_HOURS:g} h, from the page cache)", f"{AMASS_HOURS / hours * again:,.0f} s"
    big = grow_to_amass(open_store(scratch / "threads.zarr"), scratch / "amass.zarr")
    files = sum(path.is_file() for path in (scratch / "amass.zarr").rglob("*"))
    begun = time.perf_counter()
    crops = opened(big.url)
    crops.sample(torch.arange(20), torch.Generator())
    yield "store of AMASS's size: open to first batch", f"{time.perf_counter() - begun:.2f} s, {files:,} files"
    yield "copying memory, one thread", f"{memory_rate() / 1e9:.1f} GB/s"
    for batch in (20, 256, 1024):
        rate, each = crops_a_second(crops, batch), 4 * (25 * 6 * 60 + 3 * 512)
        yield f"crops from that store in memory, {batch} a batch", f"{rate:,.0f} a second, {rate * each / 1e9:.1f} GB/s"


def codec_rows(store: Store, scratch: Path) -> Iterator[tuple[str, str]]:
    """Size, write and read of one shard's rotations, by chunk length and codec."""
    rot6d = store.read("motion/rot6d")[:FRAME_CHUNK]
    codecs = {
        "none": [],
        "zstd-1 bitshuffle": [BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")],
        "zstd-3 bitshuffle": [BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")],
        "zstd-3 shuffle": [BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")],
        "lz4-5 bitshuffle": [BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")],
        "lz4-5 shuffle": [BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")],
    }
    for chunk, (name, codec) in itertools.product((128, 512, 2048), codecs.items()):
        path = scratch / "codec.zarr"
        shutil.rmtree(path, ignore_errors=True)
        array = zarr.create_array(
            str(path),
            shape=rot6d.shape,
            dtype="f4",
            chunks=(chunk, 24, 6),
            shards=(len(rot6d), 24, 6),
            compressors=[*codec, Crc32cCodec()],
        )
        written, read = (
            best(lambda array=array: array.__setitem__(slice(None), rot6d)),
            best(lambda array=array: array[...]),
        )
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        speed = f"write {rot6d.nbytes / written / 1e6:,.0f} MB/s, read {rot6d.nbytes / read / 1e6:,.0f} MB/s"
        yield f"{chunk} rows, {name}", f"{size / rot6d.nbytes:.3f} of {rot6d.nbytes / 1e6:.1f} MB, {speed}"


def best(work: object, times: int = 4) -> float:
    """Shortest seconds of a few tries."""
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        work()  # type: ignore[operator]
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def bvh_rows(file: Path) -> Iterator[tuple[str, str]]:
    """The rows of one BVH file of 120 frames a second, in CPU time of one thread, best of eight."""
    content = file.read_bytes()
    numbers = content[content.index(b"Frame Time") :].split(b"\n", 1)[1].decode()
    megabytes, frames = len(content) / 1e6, len(read_bvh(content).values_TC)
    seconds = {
        "the parser": cpu_seconds(lambda: read_bvh(content)),
        "np.fromstring, numbers alone": cpu_seconds(lambda: np.fromstring(numbers, sep=" ")),
        "all of it, of which 30 frames a second are kept": cpu_seconds(lambda: bvh.parse_motion(content, fps=30.0)),
    }
    yield from ((name, f"{megabytes / each:.0f} MB/s") for name, each in seconds.items())
    whole = list(seconds.values())[-1] / frames
    yield f"BONES-SEED, {SEED_HOURS} h, two cores, frames alone", f"{whole * SEED_HOURS * 3600 * 120 / 2 / 60:.0f} min"


def cpu_seconds(work: Callable[[], object]) -> float:
    """The least CPU time that some work takes, after a first time."""
    work()
    taken = []
    for _ in range(8):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return min(taken)


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.argument("scratch", type=click.Path(path_type=Path))
@click.option("--workers", default=2)
@click.option(
    "--codecs", is_flag=True, help="The table of codecs and chunks, of the store that a first run left in SCRATCH."
)
def benchmark(source: Path, scratch: Path, workers: int, codecs: bool) -> None:
    """Print the table for the files below SOURCE; stores are written below SCRATCH."""
    scratch.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(workers)
    if source.suffix == ".bvh":
        table = bvh_rows(source)
    else:
        table = codec_rows(open_store(scratch / "threads.zarr"), scratch) if codecs else rows(source, scratch, workers)
    for name, value in table:
        click.echo(f"{name:<52} {value}")


if __name__ == "__main__":
    benchmark()
