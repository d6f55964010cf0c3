"""The training data on the device: a batch of crops is a gather, without workers or copies."""

# B batch, T frames of a crop, R rows (25), D rotation numbers (6), W windows, S shifts, C CLIP width

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.embed import text_vectors, window_vectors
from mclip.pipeline.store import SPLITS, Store, StoreError
from mclip.training.continuation import continued


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
        return {"rot6d": frames, "vertices": frames, "velocity": steps, **items}


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

    def __len__(self) -> int:
        return len(self.window)

    @property
    def bytes(self) -> int:
        """Size of all tensors."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, Tensor))

    def told(self, storage: str) -> str:
        """A line about what lies on the device."""
        return f"{len(self):,} windows on {self.row.device}: {self.bytes / 1e6:,.1f} MB, rotations in {storage}"

    def some(self, most: int) -> "Crops":
        """Up to `most` of the windows, evenly chosen."""
        if len(self) <= most:
            return self
        at = torch.linspace(0, len(self) - 1, most, device=self.row.device).long()
        names = ("window", "row", "frames", "own_frames", "labelset", "image", "has_image")
        return replace(self, **{name: getattr(self, name)[at] for name in names})

    def sample(self, item_B: Int64[Tensor, " B"], generator: torch.Generator) -> Batch:
        """Random crops of the windows `item_B`, with a random text of each crop's choice."""
        chance = torch.rand(2, len(item_B), generator=generator, device=item_B.device)
        room = (self.frames[item_B] - self.crop).clamp_min(0) + 1
        return self.gather(item_B, (chance[0] * room).long(), chance[1])

    def middle(self, item_B: Int64[Tensor, " B"]) -> Batch:
        """The crops in the middle of the windows `item_B`, with the first text of each: the same every time."""
        shift = (self.frames[item_B] - self.crop).clamp_min(0) // 2
        return self.gather(item_B, shift, torch.zeros(len(item_B), device=item_B.device))

    def gather(self, item_B: Int64[Tensor, " B"], shift_B: Int64[Tensor, " B"], chance_B: Float[Tensor, " B"]) -> Batch:
        """Crops that begin `shift_B` frames into their windows; `chance_B` in [0, 1) picks the text."""
        time_BT = shift_B[:, None] + torch.arange(self.crop, device=item_B.device)
        mask_BT = time_BT < self.frames[item_B, None]
        row_BT = self.row[item_B, None] + torch.where(mask_BT, time_BT, 0)
        # The root's path, from where the crop begins; the release has its right ankle here.
        trans_BT3 = self.trans[row_BT] - self.trans[row_BT[:, :1]]
        motion = torch.cat((self.rot6d[row_BT].float(), F.pad(trans_BT3, (0, 3))[:, :, None]), dim=2)
        labelset = self.labelset[item_B, shift_B]
        text, has_text = self.targets.pick(labelset, chance_B)
        label, _ = self.labels.pick(labelset, chance_B)
        return Batch(
            motion * mask_BT[..., None, None], mask_BT, text, self.text[text], has_text, label, self.text[label],
            self.image[item_B], self.has_image[item_B], self.window[item_B], self.padded,
        )  # fmt: skip


def load_crops(
    store: Store, *, split: str, encoder: str, target: str, device: torch.device, storage: str = "float32",
    short: str = "mask",
) -> Crops:  # fmt: skip
    """The crops of a split, rotations in float32 or float16; `short` as in TrainConfig.

    StoreError when the split is empty or the encoder's vectors are missing.
    """
    in_split = store.read("windows/split") == SPLITS.index(split)
    if not in_split.any():
        counts = dict(zip(SPLITS, np.bincount(store.read("windows/split"), minlength=3).tolist(), strict=True))
        raise StoreError(f"{store.url}: no window in split {split}; windows by split: {counts}")
    image, has_image = window_vectors(store, encoder)
    arrays = {
        "rot6d": store.read("motion/rot6d").astype(storage),
        "trans": store.read("motion/trans"),
        "window": np.flatnonzero(in_split),
        "row": store.read("windows/row")[in_split],
        "frames": store.read("windows/frames")[in_split],
        "labelset": store.read("windows/labelset")[in_split].astype(np.int64),
        "text": text_vectors(store, encoder),
        "image": image[in_split],
        "has_image": has_image[in_split],
    }
    crop = store.attributes("prepare")["options"]["crop"]
    arrays["own_frames"] = arrays["frames"]
    if short == "continue":
        arrays |= continue_short(arrays, crop)
    tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    targets, labels = (Choice.of(store, each, device) for each in (target, "label"))
    return Crops(crop, target, targets=targets, labels=labels, **tensors, padded=bool((arrays["frames"] < crop).any()))


def continue_short(arrays: dict[str, np.ndarray], crop: int) -> dict[str, np.ndarray]:
    """The arrays of motion and windows with every window that is shorter than a crop continued to a whole one.

    The longer copies lie behind the store's own rows, and the windows point to them.
    """
    rot6d, trans = [arrays["rot6d"]], [arrays["trans"]]
    row, frames, end = arrays["row"].copy(), arrays["frames"].copy(), len(arrays["rot6d"])
    for window in np.flatnonzero(frames < crop):
        at = slice(row[window], row[window] + frames[window])
        longer = continued(torch.from_numpy(arrays["rot6d"][at]).float(), torch.from_numpy(trans[0][at]), crop)
        rot6d.append(longer[0].numpy().astype(arrays["rot6d"].dtype))
        trans.append(longer[1].numpy())
        row[window], frames[window], end = end, crop, end + crop
    return {"rot6d": np.concatenate(rot6d), "trans": np.concatenate(trans), "row": row, "frames": frames}


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
