"""The training data on the device: a batch of crops is a gather, without workers or copies.

Motion that does not fit there lies in a memory-mapped file on the host, and what a batch needs of it is sent.
"""

# B batch, T frames of a crop, R rows (25), D rotation numbers (6), W windows, S shifts, C CLIP width

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.embed.vectors import text_vectors, window_vectors
from mclip.pipeline.geometry.continuation import continue_motion
from mclip.pipeline.machine.compiled import compiled, run_parts
from mclip.pipeline.machine.devices import send
from mclip.pipeline.store.middle import middle_shift
from mclip.pipeline.store.schema import FRAME_CHUNK, SPLITS, StoreError
from mclip.pipeline.store.store import Store
from mclip.training.data.rows import ankle_places
from mclip.training.model.run import Run
from mclip.training.model.run_documents import ANKLE_PATH


@dataclass(frozen=True)
class Batch:
    """A batch of crops with the CLIP vectors that belong to each."""

    motion_BTRD: Float[Tensor, "B T 25 6"]
    mask_BT: Bool[Tensor, "B T"]
    text_B: Int64[Tensor, " B"]  # number of the text in the store
    text_BC: Float[Tensor, "B C"]
    has_text_B: Bool[Tensor, " B"]
    label_B: Int64[Tensor, " B"]  # one of the crop's labels; where there is a text there is a label
    label_BC: Float[Tensor, "B C"]
    image_BC: Float[Tensor, "B C"]
    has_image_B: Bool[Tensor, " B"]
    window_B: Int64[Tensor, " B"]
    middle_B: Bool[Tensor, " B"]  # whether the crop is the middle one of its window
    padded: bool = True  # whether there may be padding at all: without, attention needs no mask

    @property
    def attended_BT(self) -> Bool[Tensor, "B T"] | None:
        """The mask for the model; None where nothing is padded."""
        return self.mask_BT if self.padded else None

    def part(self, number: int, of: int) -> "Batch":
        """The crops of one worker among several."""
        parts = {name: each.tensor_split(of)[number] for name, each in vars(self).items() if isinstance(each, Tensor)}
        return Batch(**parts, padded=self.padded)

    @property
    def counts(self) -> dict[str, Tensor]:
        """Over how many frames or items each term of the loss is a mean."""
        frames, steps = self.mask_BT.sum(), self.mask_BT[:, 1:].sum()
        items = {"text": self.has_text_B.sum(), "image": self.has_image_B.sum()}
        world = {"places": frames, "steps": steps, "feet": steps}
        return {"rot6d": frames, "vertices": frames, "velocity": steps, **world, **items}


@dataclass
class Choice:
    """Texts to choose from by label set: flat, where a set's begin, and how many it has."""

    text: Int64[Tensor, " N"]
    offset: Int64[Tensor, " L"]
    count: Int64[Tensor, " L"]

    def pick(
        self, labelset_B: Int64[Tensor, " B"], chance_B: Float[Tensor, " B"]
    ) -> tuple[Int64[Tensor, " B"], Bool[Tensor, " B"]]:
        """A text of each label set, which one by `chance_B` in [0, 1), and whether the set has any."""
        count = self.count[labelset_B]
        place = self.offset[labelset_B] + (chance_B * count).long()
        return self.text[place.clamp(max=len(self.text) - 1)], count > 0

    @classmethod
    def of(cls, store: Store, target: str, device: torch.device) -> "Choice":
        """The choice that a target of TrainConfig stands for."""
        return cls(*(torch.from_numpy(array).to(device) for array in text_choices(store, target)))


@dataclass
class Crops:
    """Windows of one split, and everything that a crop of them needs, as tensors on one device."""

    crop: int
    target: str  # which text of a crop's label set is its target, as TrainConfig.target
    rot6d: Float[Tensor, "F 24 6"]
    trans: Float[Tensor, "F 3"]
    window: Int64[Tensor, " W"]  # number of the window in the store
    row: Int64[Tensor, " W"]
    frames: Int64[Tensor, " W"]
    own_frames: Int64[Tensor, " W"]  # those that the source has; fewer where a short window was continued
    labelset: Int64[Tensor, "W S"]
    targets: Choice
    labels: Choice
    text: Float[Tensor, "X C"]
    image: Float[Tensor, "W C"]
    has_image: Bool[Tensor, " W"]
    padded: bool = True  # whether any window is shorter than a crop
    mapped: bool = False  # whether rot6d and trans lie in a memory-mapped file on the host

    def __len__(self) -> int:
        return len(self.window)

    @property
    def bytes(self) -> int:
        """Size of all tensors."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, Tensor))

    def told(self, storage: str) -> str:
        """A line about what lies on the device."""
        motion = self.rot6d.nbytes + self.trans.nbytes
        mapped = f"; {motion / 1e6:,.1f} MB of it memory-mapped on the host: more than is free" if self.mapped else ""
        return f"{len(self):,} windows on {self.row.device}: {self.bytes / 1e6:,.1f} MB, rotations in {storage}{mapped}"

    def some(self, most: int) -> "Crops":
        """Up to `most` of the windows, evenly chosen."""
        if len(self) <= most:
            return self
        at = torch.linspace(0, len(self) - 1, most, device=self.row.device).long()
        names = ("window", "row", "frames", "own_frames", "labelset", "image", "has_image")
        return replace(self, **{name: getattr(self, name)[at] for name in names})

    def sample(self, item_B: Int64[Tensor, " B"], generator: torch.Generator, *, middle: float = 0.0) -> Batch:
        """Random crops of the windows `item_B`, with a random text of each crop's choice.

        A share of `middle` are the middle crops of their windows, the others begin anywhere in them.
        """
        chance_2B = torch.rand(2, len(item_B), generator=generator, device=item_B.device)
        return self.by_chance(item_B, chance_2B, middle=middle)

    def by_chance(self, item_B: Int64[Tensor, " B"], chance_2B: Float[Tensor, "2 B"], *, middle: float = 0.0) -> Batch:
        """What `sample` gives where it draws these: two numbers in [0, 1) for each crop, of its place and its text."""
        frames_B, (place_B, text_B) = self.frames[item_B], chance_2B
        room_B = (frames_B - self.crop).clamp_min(0) + 1
        anywhere_B = ((place_B - middle) / max(1 - middle, 1e-6) * room_B).long().minimum(room_B - 1)
        shift_B = torch.where(place_B < middle, middle_shift(frames_B, self.crop), anywhere_B)
        return self.gather(item_B, shift_B, text_B)

    def middle(self, item_B: Int64[Tensor, " B"]) -> Batch:
        """The crops in the middle of the windows `item_B`, with the first text of each: the same every time."""
        return self.gather(item_B, self.middle_shift(item_B), torch.zeros(len(item_B), device=item_B.device))

    def middle_shift(self, item_B: Int64[Tensor, " B"]) -> Int64[Tensor, " B"]:
        """Where the middle crops of windows begin."""
        return middle_shift(self.frames[item_B], self.crop)

    def gather(self, item_B: Int64[Tensor, " B"], shift_B: Int64[Tensor, " B"], chance_B: Float[Tensor, " B"]) -> Batch:
        """Crops that begin `shift_B` frames into their windows; `chance_B` in [0, 1) picks the text."""
        on_cpu = self.rot6d.device.type == item_B.device.type == "cpu" and self.rot6d.dtype == torch.float32
        cut = cut_compiled if on_cpu else cut_by_index
        row_B, frames_B = self.row[item_B] + shift_B, self.frames[item_B] - shift_B
        motion, mask_BT = cut(self.rot6d, self.trans, row_B, frames_B, crop=self.crop)
        labelset = self.labelset[item_B, shift_B]
        text, has_text = self.targets.pick(labelset, chance_B)
        label, _ = self.labels.pick(labelset, chance_B)
        return Batch(
            motion,
            mask_BT,
            text,
            vectors_of(self.text, text),
            has_text,
            label,
            vectors_of(self.text, label),
            self.image.index_select(0, item_B),
            self.has_image[item_B],
            self.window[item_B],
            shift_B == middle_shift(self.frames[item_B], self.crop),
            self.padded,
        )


def vectors_of(text_XC: Float[Tensor, "X C"], text_B: Int64[Tensor, " B"]) -> Float[Tensor, "B C"]:
    """The vectors of texts; zeros for a store without any, where no crop has a text."""
    return text_XC.index_select(0, text_B) if len(text_XC) else text_XC.new_zeros(len(text_B), text_XC.shape[1])


def cut_by_index(
    rot6d_FJD: Float[Tensor, "F 24 6"],
    trans_F3: Float[Tensor, "F 3"],
    row_B: Int64[Tensor, " B"],
    frames_B: Int64[Tensor, " B"],
    *,
    crop: int,
) -> tuple[Float[Tensor, "B T 25 6"], Bool[Tensor, "B T"]]:
    """The model's rows of crops that begin at `row_B` and have `frames_B` frames, zeros behind those; and which have.

    The 25th row is the root's path, from where the crop begins; the release has its right ankle there. The motion may
    lie on another device than the rows.
    """
    time_T = torch.arange(crop, device=row_B.device)
    mask_BT = time_T < frames_B[:, None]
    row_BT = row_B[:, None] + torch.where(mask_BT, time_T, 0)
    at_BT = row_BT.to(rot6d_FJD.device)
    rot6d, trans_BT3 = (each[at_BT].to(row_BT.device) for each in (rot6d_FJD, trans_F3))
    motion = torch.cat((rot6d.float(), F.pad(trans_BT3 - trans_BT3[:, :1], (0, 3))[:, :, None]), dim=2)
    return motion * mask_BT[..., None, None], mask_BT


def cut_compiled(
    rot6d_FJD: Float[Tensor, "F 24 6"],
    trans_F3: Float[Tensor, "F 3"],
    row_B: Int64[Tensor, " B"],
    frames_B: Int64[Tensor, " B"],
    *,
    crop: int,
) -> tuple[Float[Tensor, "B T 25 6"], Bool[Tensor, "B T"]]:
    """What `cut_by_index` gives, of float32 rotations on a CPU, in one pass: each number is read and written once.

    IndexError when a crop leads out of the motion: compiled code would read whatever lies there.
    """
    if len(row_B) and (int(row_B.min()) < 0 or int((row_B + frames_B.clamp(0, crop)).max()) > len(rot6d_FJD)):
        raise IndexError(f"crops lead out of the {len(rot6d_FJD):,} rows of motion: run `mclip validate` on the store")
    motion, mask_BT = torch.empty(len(row_B), crop, 25, 6), torch.empty(len(row_B), crop, dtype=torch.bool)
    arrays = [each.numpy() for each in (row_B, frames_B, motion.view(len(row_B), crop, -1), mask_BT)]
    source = rot6d_FJD.view(len(rot6d_FJD), -1).numpy(), trans_F3.numpy()

    def copy(part: slice) -> None:
        copy_crops(*source, *(each[part] for each in arrays))

    # A thread costs as much as copying a few crops.
    run_parts(copy, items=len(row_B), threads=min(torch.get_num_threads(), 1 + len(row_B) // 32))
    return motion, mask_BT


@compiled
def copy_crops(rot6d_FD, trans_F3, row_B, frames_B, motion_BTD, mask_BT):  # type: ignore[no-untyped-def]
    """Fill the rows and masks of crops; D is all numbers of a frame."""
    width = rot6d_FD.shape[1]
    for b in range(len(row_B)):
        for t in range(motion_BTD.shape[1]):
            row = row_B[b] + t
            mask_BT[b, t] = t < frames_B[b]
            if t < frames_B[b]:
                for d in range(width):
                    motion_BTD[b, t, d] = rot6d_FD[row, d]
                for axis in range(3):
                    motion_BTD[b, t, width + axis] = trans_F3[row, axis] - trans_F3[row_B[b], axis]
                    motion_BTD[b, t, width + 3 + axis] = 0
            else:
                for d in range(motion_BTD.shape[2]):
                    motion_BTD[b, t, d] = 0


def load_crops(
    store: Store,
    *,
    split: str,
    encoder: str,
    target: str,
    device: torch.device,
    storage: str = "float32",
    short: str = "mask",
    room: int | None = None,
    folder: Path | None = None,
) -> Crops:
    """The crops of a split, rotations in float32 or float16; `short` as in TrainConfig.

    Motion of more than `room` bytes is memory-mapped from a file in `folder`, which has no name and goes with the
    process. StoreError when the split is empty, the encoder's vectors are missing, or a number is not finite.
    """
    in_split = store.read("windows/split") == SPLITS.index(split)
    if not in_split.any():
        counts = dict(zip(SPLITS, np.bincount(store.read("windows/split"), minlength=3).tolist(), strict=True))
        raise StoreError(
            f"{store.url}: no window in split {split}; windows by split: {counts}: "
            "`mclip prepare --split FILE` says which sequences are which"
        )
    image, has_image = window_vectors(store, encoder)
    arrays = {
        "window": np.flatnonzero(in_split),
        "row": store.read("windows/row")[in_split],
        "frames": store.read("windows/frames")[in_split],
        "labelset": store.read("windows/labelset")[in_split].astype(np.int64),
        "text": text_vectors(store, encoder),
        "image": image[in_split],
        "has_image": has_image[in_split],
    }
    for name in ("text", "image"):
        if not np.isfinite(arrays[name]).all():
            raise StoreError(
                f"{store.url}: a {name} vector of {encoder} is not finite: run `mclip embed --replace` again"
            )
    arrays["own_frames"] = arrays["frames"]
    crop = store.crop
    keep_F = frames_of(arrays["row"], arrays["frames"], store.array("motion/trans").shape[0])
    more = int((arrays["frames"] < crop).sum()) * crop if short == "continue" else 0
    bytes_of_motion = (int(keep_F.sum()) + more) * (24 * 6 * np.dtype(storage).itemsize + 3 * 4)
    mapped = room is not None and bytes_of_motion > room
    # What continues short windows works on the host.
    place = torch.device("cpu") if mapped or more else device
    folder = folder if mapped else None
    rot6d, trans = load_motion(store, keep_F, more=more, storage=storage, folder=folder, device=place)
    arrays["row"] = (np.cumsum(keep_F) - 1)[arrays["row"]]
    if short == "continue":
        arrays |= continue_short(rot6d.numpy(), trans.numpy(), arrays["row"], arrays["frames"], crop)
    tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    rot6d, trans = (each.to(place if mapped else device) for each in (rot6d, trans))
    targets, labels = (Choice.of(store, each, device) for each in (target, "label"))
    padded = bool((arrays["frames"] < crop).any())
    return Crops(crop, target, rot6d, trans, targets=targets, labels=labels, **tensors, padded=padded, mapped=mapped)


def frames_of(row_W: np.ndarray, frames_W: np.ndarray, frames: int) -> np.ndarray:
    """Which of a store's frames (F,) lie in any of the windows."""
    edge = np.zeros(frames + 1, np.int64)
    np.add.at(edge, row_W, 1)
    np.add.at(edge, row_W + frames_W, -1)
    inside: np.ndarray = edge.cumsum()[:-1] > 0
    return inside


def load_motion(
    store: Store, keep_F: np.ndarray, *, more: int, storage: str, folder: Path | None, device: torch.device
) -> tuple[Float[Tensor, "N 24 6"], Float[Tensor, "N 3"]]:
    """Rotations and translations of the frames to keep, on a device, with `more` rows free behind them.

    Read chunk by chunk, so that no more than one lies in memory beside the result; while a chunk is copied to a GPU,
    the next is read.
    """
    rows, end = int(keep_F.sum()) + more, 0
    shapes = (((rows, 24, 6), storage), ((rows, 3), "float32"))
    rot6d, trans = (new_tensor(shape, dtype, folder, device) for shape, dtype in shapes)
    for start in range(0, len(keep_F), FRAME_CHUNK):
        kept = np.flatnonzero(keep_F[start : start + FRAME_CHUNK])
        if not len(kept):
            continue
        for name, array in zip(("rot6d", "trans"), (rot6d, trans), strict=True):
            values = store.read(f"motion/{name}", slice(start, start + FRAME_CHUNK))[kept]
            if not np.isfinite(values).all():
                broken = start + int(kept[~np.isfinite(values).reshape(len(kept), -1).all(1)][0])
                raise StoreError(f"{store.url}: {not_finite_message(store, name, broken)}")
            array[end : end + len(kept)].copy_(send(torch.from_numpy(values), device))
        end += len(kept)
    return rot6d, trans


def new_tensor(shape: tuple[int, ...], dtype: str, folder: Path | None, device: torch.device) -> Tensor:
    """A tensor on a device, or in a file of the folder that has no name: it goes with the process, also when killed."""
    if folder is None:
        return torch.empty(shape, dtype=getattr(torch, dtype), device=device)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and would be a crash at the first write
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                raise StoreError(
                    f"{folder}: no room for the {size / 1e9:,.1f} GB of motion that do not fit the memory "
                    f"({error.strerror}): make room, name a run on a larger disk, or pass --storage float16"
                ) from error
        return torch.from_numpy(np.memmap(file, dtype, "w+", shape=shape))


def not_finite_message(store: Store, name: str, row: int) -> str:
    """Where a number of the store is none, and what to do."""
    first, frames = store.read("sequences/row"), store.read("sequences/frames")
    owner = np.flatnonzero((first <= row) & (row < first + frames))
    whose = store.strings("sequences/name")[owner[0]] if len(owner) else "no sequence"
    return (
        f"motion/{name}[{row}], of {whose}, is not finite: `mclip validate` lists all; repair the files and run "
        "`mclip prepare` with --replace"
    )


def continue_short(
    rot6d: np.ndarray, trans: np.ndarray, row: np.ndarray, frames: np.ndarray, crop: int
) -> dict[str, np.ndarray]:
    """Rows and frames of windows, every one that is shorter than a crop continued to a whole one.

    The longer copies are written behind the store's own rows, and the windows point to them.
    """
    row, frames, short = row.copy(), frames.copy(), np.flatnonzero(frames < crop)
    end = len(rot6d) - len(short) * crop
    for window in short:
        at = slice(row[window], row[window] + frames[window])
        longer = continue_motion(torch.from_numpy(rot6d[at]).float(), torch.from_numpy(trans[at]), crop)
        rot6d[end : end + crop], trans[end : end + crop] = (each.numpy() for each in longer)
        row[window], frames[window], end = end, crop, end + crop
    return {"row": row, "frames": frames}


def text_choices(store: Store, target: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(texts flat, offset, count) by label set: the joined text, or every label, category, or both."""
    if target == "joined":
        text = store.read("labelsets/text")
        return np.maximum(text, 0), np.arange(len(text)), (text >= 0).astype(np.int64)
    kinds = {"label": ("labels",), "category": ("categories",), "any": ("labels", "categories")}[target]
    counts = [np.diff(store.read(f"labelsets/{kind}_offset")) for kind in kinds]
    owner = np.concatenate([np.repeat(np.arange(len(count)), count) for count in counts])
    flat = np.concatenate([store.read(f"labelsets/{kind}") for kind in kinds])[np.argsort(owner, kind="stable")]
    count = np.sum(counts, axis=0)
    # One more entry, never chosen, so that an empty list can be indexed.
    return np.append(flat, 0), np.cumsum(count) - count, count


def default_split(store: Store) -> str:
    """`val` where the store has validation windows, else `train`."""
    return "val" if (store.read("windows/split") == SPLITS.index("val")).any() else "train"


def crops_of(run: Run, store: Store, split: str) -> Crops:
    """The crops of a split as the run was trained on them; StoreError when another encoder made the store's vectors."""
    described = run.config["encoder"]
    embedded = store.encoders.get(described["name"], {})
    was, now = described["weights_sha256"], embedded.get("weights_sha256")
    if now and was not in (None, now):  # None: an imported run, nobody recorded it
        raise StoreError(
            f"{store.url}: its vectors of {described['name']} come from weights {now[:12]}, {run.folder} was trained "
            f"with {was[:12]}: embed the store again with those (`mclip embed --replace`), or use another store"
        )
    options = run.config["train"]
    crops = load_crops(
        store,
        split=split,
        encoder=described["name"],
        target=options.get("target", "joined"),
        short=options.get("short", "mask"),
        device=run.device,
    )
    if run.row25 == ANKLE_PATH:
        parts = [ankle_places(part) for part in crops.rot6d.split(FRAME_CHUNK)]
        crops = replace(crops, trans=torch.cat(parts))
    return crops
