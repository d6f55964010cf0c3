"""MP4 videos, frame by frame: a sequence of a store, or any pictures."""

# T frames, S picture side in pixels

import itertools
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from jaxtyping import UInt8

from mclip.pipeline.draw.backends import choose_backend
from mclip.pipeline.files.atomic import by_rename
from mclip.pipeline.geometry.body import fingerprint_of, load_bodies
from mclip.pipeline.geometry.rotations import rot6d_to_matrix
from mclip.pipeline.machine.devices import pick_device
from mclip.pipeline.machine.terminal import tracked
from mclip.pipeline.render.options import RenderOptions
from mclip.pipeline.render.render import body_for_sequence, check_bodies
from mclip.pipeline.render.scene import clip_pictures
from mclip.pipeline.store.store import Store


def write_video(
    store: Store,
    item: int,
    path: Path,
    *,
    options: RenderOptions,
    backend: str = "auto",
    device: torch.device | str = "auto",
) -> str:
    """Write a sequence of the store as an MP4, its views side by side; returns what was written, in words.

    StoreError for a sequence without motion; ValueError for another ending than .mp4.
    """
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"{path}: expected a name that ends in .mp4 for a video")
    name = store.strings("sequences/name")[item]
    rows = store.rows_of(item)
    bodies, device = load_bodies(options.body), pick_device(device)
    check_bodies(store, options, bodies)
    body = body_for_sequence(store, options, fingerprint_of(bodies), device)(item)
    rot6d, trans = (torch.from_numpy(each).to(device) for each in store.motion(rows))
    frames, fps = len(trans), store.fps
    batches = clip_pictures(
        body, rot6d_to_matrix(rot6d), trans, fps=fps, options=options, backend=choose_backend(backend, device)
    )
    pictures = (picture for batch in batches for picture in batch.cpu().numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    with by_rename(path) as aside:
        write_mp4(aside, (next(pictures) for _ in tracked(range(frames), "video", "frames")), fps)
    return f"{path}: {name}, {frames:,} frames at {fps:g} fps"


def write_mp4(path: Path, pictures: Iterable[UInt8[np.ndarray, "height width 3"]], fps: float) -> None:
    """H.264 in MP4, even sides, playable in every browser; one picture in memory at a time."""
    pictures = iter(pictures)
    first = next(pictures)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = (side // 2 * 2 for side in first.shape[:2])
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "23", "preset": "veryfast"}
        stream.thread_count = 1  # more of them give other bytes every time
        for picture in itertools.chain((first,), pictures):
            even = np.ascontiguousarray(picture[: stream.height, : stream.width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())
