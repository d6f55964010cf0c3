"""Rotations -> pictures in the store: one neutral body on white, seen from the front, K frames a window."""

# B pictures, J joints, S picture side in pixels

import functools
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from mclip.pipeline.backends import choose_backend, render_bodies
from mclip.pipeline.body import Body, load_body
from mclip.pipeline.camera import follow_camera, front_camera, orbit
from mclip.pipeline.rotations import rot6d_to_matrix
from mclip.pipeline.stage import Result, Summary, run_stage
from mclip.pipeline.store import DONE, SCHEMA, Store, StoreError, open_store

BATCH = 32  # pictures drawn at once: 32 bodies of 13.5k vertices and their pictures are about 10 MB
SHARD_PICTURES = SCHEMA["pictures/rgb"].chunk * SCHEMA["pictures/rgb"].shard


@dataclass(frozen=True)
class RenderOptions:
    """What the pictures show."""

    frames: int = 1  # pictures a window, evenly spaced; one is the middle frame
    views: int = 1  # cameras around the body, the front one first
    size: int = 224  # pixels
    antialias: int = 1  # draw this many times as large, then average
    body: str = "default"

    def __post_init__(self) -> None:
        for name in ("frames", "views"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}: expected at least 1")


def picture_frames(valid: int, count: int) -> list[int]:
    """Frames of a window of `valid` frames that are drawn: the middles of `count` equal parts."""
    return [int((2 * part + 1) * valid / (2 * count)) for part in range(count)]


def plan_pictures(store: Store, options: RenderOptions) -> int:
    """Add the pictures of windows that have none to the store's index; returns the number of pictures.

    Pictures are numbered by window, then frame, then view, so an index that ends early is a beginning of the whole.
    """
    valid = store.read("windows/frames")
    columns = np.array(
        [
            (window, frame, view)
            for window, frames in enumerate(valid.tolist())
            for frame in picture_frames(frames, options.frames)
            for view in range(options.views)
        ],
        np.int64,
    ).reshape(-1, 3)
    total = len(columns)
    for name, values in zip(("window", "frame", "view"), columns.T, strict=True):
        store.write(f"pictures/{name}", values)
    store.grow("pictures/rgb", total, size=options.size)
    store.grow("pictures/done", total)
    return total


def render(store: Store, options: RenderOptions, *, backend: str = "auto", limit: int | None = None) -> Summary:
    """Draw every picture that is not there yet. StoreError when the store has other pictures, or no windows."""
    if not store.attributes("prepare").get("indexed"):
        raise StoreError(f"{store.url}: no windows in this store; run `mclip prepare SOURCE {store.url}` first")
    body = load_body(options.body)
    chosen = choose_backend(backend, device())
    store.fix_options("render", asdict(options) | {"body": body.fingerprint})
    total = plan_pictures(store, options)
    blocks = [range(start, min(start + SHARD_PICTURES, total)) for start in range(0, total, SHARD_PICTURES)]
    compute = functools.partial(render_block, store.url, body.to(device()), options, chosen)
    return run_stage(
        store, "render", marks="pictures/done", blocks=blocks, compute=compute, unit="pictures", limit=limit
    )


def device() -> torch.device:
    """CUDA where there is a device."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def render_block(url: str, body: Body, options: RenderOptions, backend: str, block: range) -> Result:
    """Draw and write the pictures of a block, which is a shard."""
    store = open_store(url)
    at = slice(block.start, block.stop)
    window, frame, view = (np.asarray(store.array(f"pictures/{name}")[at]) for name in ("window", "frame", "view"))
    rows = store.read("windows/row")[window] + frame
    rotmat = rot6d_to_matrix(torch.from_numpy(rows_of(store, "motion/rot6d", rows)))
    yaw = torch.tensor(orbit(options.views))[torch.from_numpy(view)]
    pictures = [draw(body, rotmat[part], yaw[part], options, backend) for part in torch.arange(len(block)).split(BATCH)]
    store.array("pictures/rgb")[at] = torch.cat(pictures).numpy()
    return Result()


def rows_of(store: Store, path: str, rows: np.ndarray) -> np.ndarray:
    """The given rows of an array, read as one contiguous piece: rows of a block lie close together."""
    first = int(rows.min())
    return np.asarray(store.array(path)[first : int(rows.max()) + 1])[rows - first]


def draw(
    body: Body, rotmat_BJ33: Float[Tensor, "B 24 3 3"], yaw_B: Float[Tensor, " B"], options: RenderOptions, backend: str
) -> UInt8[Tensor, "B size size 3"]:
    """Pictures (B, S, S, 3) on the CPU of poses with the root at its rest place; `yaw_B` walks the camera around."""
    rotmat, yaw = (tensor.to(body.v_template_V3.device) for tensor in (rotmat_BJ33, yaw_B))
    vertices = body.pose(rotmat)
    camera = front_camera(rotmat[:, 0], vertices, yaw_offset=yaw)
    pictures = render_bodies(
        vertices, body.faces_F3, camera, size=options.size, backend=backend, antialias=options.antialias
    )
    return pictures.cpu()


def render_clip(
    body: Body,
    rotmat_TJ33: Float[Tensor, "T 24 3 3"],
    trans_T3: Float[Tensor, "T 3"],
    *,
    fps: float,
    size: int = 224,
    backend: str = "auto",
) -> UInt8[Tensor, "T size size 3"]:
    """Pictures (T, S, S, 3) of a motion under a camera that glides along with the body."""
    vertices = body.pose(rotmat_TJ33, trans_B3=trans_T3)
    camera = follow_camera(rotmat_TJ33[:, 0], vertices, fps=fps)
    parts = torch.arange(len(vertices)).split(BATCH)
    return torch.cat(
        [render_bodies(vertices[p], body.faces_F3, camera[p], size=size, backend=backend, antialias=2) for p in parts]
    )


def window_pictures(store: Store, windows: np.ndarray) -> np.ndarray:
    """The first picture (B, S, S, 3) of every given window."""
    window, rgb = store.read("pictures/window"), store.array("pictures/rgb")
    return np.stack([np.asarray(rgb[int(np.argmax(window == each))]) for each in windows])


def contact_sheet(store: Store, path: Path, *, most: int = 64) -> int:
    """Write a PNG with up to `most` of the store's pictures, evenly chosen; returns how many it shows."""
    drawn = np.flatnonzero(store.read("pictures/done") == DONE)
    shown = drawn[np.linspace(0, len(drawn) - 1, min(most, len(drawn))).astype(int)]
    rgb = store.array("pictures/rgb")
    tile(np.stack([np.asarray(rgb[int(item)]) for item in shown])).save(path)
    return len(shown)


def tile(pictures_BSS3: np.ndarray, *, columns: int | None = None, side: int = 160) -> Image.Image:
    """Pictures (B, S, S, 3) side by side in rows, as near a square as they make, each `side` pixels."""
    columns = columns or math.ceil(math.sqrt(len(pictures_BSS3)))
    sheet = Image.new("RGB", (columns * side, math.ceil(len(pictures_BSS3) / columns) * side), "white")
    for item, picture in enumerate(pictures_BSS3):
        small = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(small, (item % columns * side, item // columns * side))
    return sheet
