"""The Zarr store: one schema as data, and the few ways to touch it.

Arrays are flat: the frames of all sequences lie one after the other, and a table says where each begins. Every stage
keeps a mark per item (0 pending, 1 done, 2 failed, 3 replaced) that is written after the payload, because a chunk that
was never written reads as zeros, not as an error.
"""

import math
from dataclasses import dataclass

import numpy as np

FORMAT = 1
LARGEST_SHARD = 128 << 20  # bytes before compression: what a writer holds in memory
PENDING, DONE, FAILED, REPLACED = 0, 1, 2, 3

CONVENTIONS = {
    "rot6d": "first two ROWS of the rotation matrix, row by row (PyTorch3D, MotionCLIP)",
    "joints": "SMPL's 24, parent before child; AMASS joints 0-21, 22 and 37",
    "axes": "world z up, as in AMASS",
    "units": "metres, seconds, radians; RGB 0..255",
    "marks": "0 pending, 1 done, 2 failed, 3 replaced by a later item; a missing chunk reads as zeros: trust the marks",
}


@dataclass(frozen=True)
class Spec:
    """One array: element type, the sizes after the first axis, rows a chunk, chunks a shard (0: not sharded)."""

    dtype: str
    row: tuple[str | int, ...]
    chunk: int
    shard: int
    doc: str
    also: tuple[str, ...] = ()  # other element types that a user may choose

    def fitting(self, row: tuple[int, ...]) -> tuple[int, int]:
        """Rows a chunk and chunks a shard: as stated, or as many as LARGEST_SHARD holds where rows are large."""
        fit = max(1, LARGEST_SHARD // (math.prod(row) * np.dtype(self.dtype).itemsize))
        chunk = min(self.chunk, fit)
        return chunk, min(self.shard, fit // chunk)


# Every array of the store. A name in `row` is a size that the stage fixes when it makes the array. A chunk (a shard
# where there are shards) is a file and has one writer. Frames: 9 MB a chunk, so that AMASS at 30 fps is about 280 files
# an array; shards of smaller chunks took two to three times as long to read and to write (records/prepare.md).
FRAME_CHUNK = 16384
VECTORS = ("float16",)
SCHEMA: dict[str, Spec] = {
    "sequences/row": Spec("int64", (), 65536, 0, "first row of the sequence in motion/*"),
    "sequences/frames": Spec(
        "int64", (), 65536, 0, "frames at the store's fps; its rows are zeros where the file failed"
    ),
    "sequences/block": Spec("int64", (), 65536, 0, "block of work; sequences of a block share its chunks"),
    "sequences/fps": Spec("float64", (), 65536, 0, "frames per second of the source file"),
    "sequences/source_frames": Spec("int64", (), 65536, 0, "frames of the source file"),
    "sequences/size": Spec("int64", (), 65536, 0, "bytes of the file that holds the source"),
    "sequences/modified": Spec("int64", (), 65536, 0, "when that file was last changed, nanoseconds since 1970"),
    "sequences/betas": Spec("float32", (16,), 4096, 0, "SMPL shape of the source"),
    "sequences/gender": Spec("uint8", (), 65536, 0, "0 neutral, 1 female, 2 male"),
    "sequences/sha256": Spec("uint8", (32,), 4096, 0, "of the source file"),
    "sequences/account": Spec("uint8", (1024,), 4096, 0, "how the source was understood: JSON, then zeros"),
    "sequences/split": Spec("uint8", (), 65536, 0, "0 train, 1 val, 2 test"),
    "sequences/done": Spec("uint8", (), 65536, 0, "mark of prepare"),
    "motion/rot6d": Spec("float32", (24, 6), FRAME_CHUNK, 0, "local joint rotations, 6D rows"),
    "motion/trans": Spec("float32", (3,), FRAME_CHUNK, 0, "root translation, metres, z up"),
    "spans/sequence": Spec("int64", (), 65536, 0, "sequence the label belongs to"),
    "spans/start": Spec("float64", (), 65536, 0, "seconds into the sequence"),
    "spans/end": Spec("float64", (), 65536, 0, "seconds into the sequence; infinity: to its end"),
    "spans/text": Spec("int64", (), 65536, 0, "text of the label"),
    "spans/labelset": Spec("int64", (), 65536, 0, "label set of the label alone, for its categories"),
    "windows/sequence": Spec("int64", (), 65536, 0, "sequence the window is cut from"),
    "windows/row": Spec("int64", (), 65536, 0, "first row in motion/*"),
    "windows/frames": Spec("int64", (), 65536, 0, "valid frames, at most the window; the rest is padding"),
    "windows/split": Spec("uint8", (), 65536, 0, "0 train, 1 val, 2 test"),
    "windows/labelset": Spec("int32", ("shifts",), 4096, 0, "label set of the crop at each shift"),
    "labelsets/text": Spec("int64", (), 65536, 0, "text of all labels joined by ' and '; -1: no label"),
    "labelsets/labels": Spec("int64", (), 65536, 0, "texts of the labels, flat"),
    "labelsets/labels_offset": Spec("int64", (), 65536, 0, "where a set's labels begin; one more at the end"),
    "labelsets/categories": Spec("int64", (), 65536, 0, "texts of the categories, flat"),
    "labelsets/categories_offset": Spec("int64", (), 65536, 0, "as labels_offset"),
    "texts/source": Spec("uint32", (), 65536, 0, "bit i: the text is from source i of prepare's `sources`"),
    "pictures/window": Spec("int64", (), 65536, 0, "window the picture shows"),
    "pictures/frame": Spec("int64", (), 65536, 0, "frame within the window"),
    "pictures/view": Spec("int64", (), 65536, 0, "camera, counted around the body from the front"),
    "pictures/done": Spec("uint8", (), 65536, 0, "mark of render"),
    "pictures/rgb": Spec("uint8", ("size", "size", 3), 8, 32, "pictures, RGB, white background"),
    # One group an encoder: embeddings/<encoder>/...
    "embeddings/*/image": Spec("float32", ("width",), 1024, 0, "image vectors as the encoder gives them", VECTORS),
    "embeddings/*/image_done": Spec("uint8", (), 65536, 0, "mark of embed, one a picture"),
    "embeddings/*/text": Spec("float32", ("width",), 1024, 0, "text vectors as the encoder gives them", VECTORS),
    "embeddings/*/text_cut": Spec("uint8", (), 65536, 0, "1 where the text is longer than the encoder reads"),
    "embeddings/*/text_done": Spec("uint8", (), 65536, 0, "mark of embed, one a text"),
    # One group a trained model, by the fingerprint of its weights. The attribute `latents` says which store it was.
    "latents/*/z": Spec("float32", ("width",), 1024, 0, "a model's vector of every window's middle crop"),
}
# Lists of strings are two arrays each: <name>/utf8 and <name>/offset.
STRINGS = {
    "sequences/name": "source path below the input folder, '/' between folders, '!/' before a path in an archive",
    "texts": "every distinct string that gets a vector: labels, joined labels, categories",
}
for _name, _doc in STRINGS.items():
    SCHEMA[f"{_name}/utf8"] = Spec("uint8", (), 1 << 20, 0, _doc)
    SCHEMA[f"{_name}/offset"] = Spec("int64", (), 65536, 0, "where a string begins in utf8; one more at the end")
SPLITS = ("train", "val", "test")


def spec_of(path: str) -> Spec:
    """The schema's entry for an array path; an encoder's or a model's name stands for the star."""
    parts = path.split("/")
    if parts[0] in ("embeddings", "latents"):
        parts[1] = "*"
    return SCHEMA["/".join(parts)]


class StoreError(ValueError):
    """A store that is not there, is of another kind, or was made with other options."""


OUTCOME = {PENDING: "pending", DONE: "done", FAILED: "failed", REPLACED: "replaced"}
