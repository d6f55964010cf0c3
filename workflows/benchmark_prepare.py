"""How fast prepare and the store are, as one table: the floor, prepare, crops, opening a store of AMASS's size.

    python -m mclip.workflows.make_amass_like SOURCE BIG --gigabytes 2
    python -m mclip.workflows.benchmark_prepare BIG SCRATCH          # and --codecs for the table of codecs and chunks

The floor is a loop that only opens each file and reads `poses` and `trans`. Both read from the page cache.
"""

import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
import torch
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from mclip.pipeline import sources
from mclip.pipeline.store import FRAME_CHUNK, Store, open_store
from mclip.training.crops import Crops

RELEASE = 1114  # source frames a second of the release's own parser, on the machine that issue 3 was written on
AMASS_HOURS, AMASS_FILES = 43.0, 14_000

CHILD = """
import json, sys, time
from pathlib import Path
from mclip.pipeline.labels import Labels
from mclip.pipeline.prepare import PrepareOptions, prepare
from mclip.pipeline.stage import peak_memory
from mclip.pipeline.store import open_store
from mclip.pipeline.amass import Motion, resample
import numpy as np
# Compiled, as after a first run.
resample(Motion(np.zeros((3, 24, 3)), np.zeros((3, 3)), 50.0, np.zeros(16), "", b""), 30.0)
source, url, scheduler, workers = sys.argv[1:]
if __name__ == "__main__":
    begun = time.perf_counter()
    summary = prepare(Path(source), open_store(url, create=True), labels=Labels(), options=PrepareOptions(),
                      scheduler=scheduler, workers=int(workers))
    print(json.dumps([time.perf_counter() - begun, summary.done, peak_memory()]))
"""


def read_only(path: Path) -> int:
    """Frames of a file, whose poses and trans are read and thrown away."""
    with np.load(path, allow_pickle=False) as arrays:
        return len(arrays["poses"]) + 0 * len(arrays["trans"])


def floor_of(paths: list[Path], workers: int) -> tuple[float, int]:
    """Seconds and frames of the bare loop, on so many threads."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        frames = sum(map(read_only, paths) if workers == 1 else pool.map(read_only, paths))
    return time.perf_counter() - begun, frames


def prepare_apart(source: Path, url: Path, scheduler: str, workers: int) -> tuple[float, int, str]:
    """Seconds, sequences and peak memory of prepare in a process of its own."""
    shutil.rmtree(url, ignore_errors=True)
    words = [sys.executable, "-c", CHILD, str(source), str(url), scheduler, str(workers)]
    seconds, done, memory = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return seconds, done, memory


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
    windows = rows // 100
    for name, values in (("row", np.arange(windows) * 100), ("frames", np.full(windows, 100))):
        store.write(f"windows/{name}", values)
    store.write("windows/labelset", np.zeros((windows, 41), np.int32), shifts=41)
    return store


def crops_of(store: Store, width: int = 512) -> Crops:
    """The store's windows as training holds them, with vectors of the usual width."""
    windows = store.array("windows/row").shape[0]
    generator = torch.Generator().manual_seed(0)
    table = {name: torch.from_numpy(store.read(f"windows/{name}")).long() for name in ("row", "frames", "labelset")}
    motion = {name: torch.from_numpy(store.read(f"motion/{name}")) for name in ("rot6d", "trans")}
    zero = torch.zeros(1, dtype=torch.int64)
    return Crops(
        60, "joined", window=torch.arange(windows), choice=zero, choice_offset=zero, choice_count=zero + 1,
        text=torch.randn(1000, width, generator=generator), image=torch.zeros(windows, width),
        has_image=torch.ones(windows, dtype=torch.bool), own_frames=table["frames"], padded=False, **motion, **table,
    )  # fmt: skip


def crops_a_second(crops: Crops, batch: int = 256, seconds: float = 5.0) -> float:
    """Random crops gathered in a second."""
    generator, done, begun = torch.Generator().manual_seed(0), 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        crops.sample(torch.randint(len(crops), (batch,), generator=generator), generator)
        done += batch
    return done / (time.perf_counter() - begun)


def rows(source: Path, scratch: Path, workers: int) -> Iterator[tuple[str, str]]:
    """The table, row by row, each as soon as it is measured."""
    paths = [source / recording.name for recording in sources.recordings(source)]
    size = sum(path.stat().st_size for path in paths)
    floor_of(paths, workers)  # into the page cache
    (alone, frames), (together, _) = floor_of(paths, 1), floor_of(paths, workers)
    yield "input", f"{len(paths):,} files, {size / 1e9:.2f} GB, {frames:,} frames"
    yield "floor: open, read poses and trans, one thread", f"{alone:.2f} s, {size / alone / 1e9:.2f} GB/s"
    yield f"floor on {workers} threads", f"{together:.2f} s, {size / together / 1e9:.2f} GB/s"
    for scheduler in ("threads", "processes"):
        seconds, done, memory = prepare_apart(source, scratch / f"{scheduler}.zarr", scheduler, workers)
        store = open_store(scratch / f"{scheduler}.zarr")
        hours = store.read("sequences/frames").sum() / 30 / 3600
        yield (
            f"prepare, {workers} {scheduler}",
            f"{seconds:.2f} s, {done:,} sequences, {hours:.2f} h of motion, {memory}",
        )
        yield "  against the floor", f"{seconds / alone:.2f} x one thread, {seconds / together:.2f} x {workers} threads"
        yield "  against the release's parser (1,114 frames/s)", f"{frames / seconds / RELEASE:,.0f} times"
        yield "  motion", f"{hours * 60 / seconds:.1f} h a minute, {hours * 3600 / seconds:,.0f} s a second"
        yield f"  all of AMASS ({AMASS_HOURS:g} h, from the page cache)", f"{AMASS_HOURS / hours * seconds:,.0f} s"
    yield "crops from memory", f"{crops_a_second(crops_of(store)):,.0f} a second"
    big = grow_to_amass(store, scratch / "amass.zarr")
    files = sum(path.is_file() for path in (scratch / "amass.zarr").rglob("*"))
    begun = time.perf_counter()
    crops = crops_of(open_store(big.url))
    crops.sample(torch.arange(20), torch.Generator())
    yield "store of AMASS's size: open to first batch", f"{time.perf_counter() - begun:.2f} s, {files:,} files"
    yield "crops from that store in memory", f"{crops_a_second(crops):,.0f} a second"


def codec_rows(store: Store, scratch: Path) -> Iterator[tuple[str, str]]:
    """Size, write and read of one shard's rotations, by chunk length and codec."""
    rot6d = store.read("motion/rot6d")[:FRAME_CHUNK]
    codecs = {
        "none": [], "zstd-1 bitshuffle": [BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")],
        "zstd-3 bitshuffle": [BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")],
        "zstd-3 shuffle": [BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")],
        "lz4-5 bitshuffle": [BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")],
        "lz4-5 shuffle": [BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")],
    }  # fmt: skip
    for chunk, (name, codec) in itertools.product((128, 512, 2048), codecs.items()):
        path = scratch / "codec.zarr"
        shutil.rmtree(path, ignore_errors=True)
        array = zarr.create_array(
            str(path), shape=rot6d.shape, dtype="f4", chunks=(chunk, 24, 6), shards=(len(rot6d), 24, 6),
            compressors=[*codec, Crc32cCodec()],
        )  # fmt: skip
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
    table = codec_rows(open_store(scratch / "threads.zarr"), scratch) if codecs else rows(source, scratch, workers)
    for name, value in table:
        click.echo(f"{name:<52} {value}")


if __name__ == "__main__":
    benchmark()
