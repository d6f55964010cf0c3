"""The training data on the device: a batch of crops is a gather, without workers or copies."""

# B batch, T frames of a crop, R rows (25), D rotation numbers (6), W windows, S shifts, C CLIP width

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.embed import window_vectors
from mclip.pipeline.store import SPLITS, Store, StoreError


@dataclass(frozen=True)
class Batch:
    """A batch of crops with the CLIP vectors that belong to each."""

    motion_BTRD: Float[Tensor, "B T 25 6"]
    mask_BT: Bool[Tensor, "B T"]
    text_BC: Float[Tensor, "B C"]
    has_text_B: Bool[Tensor, " B"]
    image_BC: Float[Tensor, "B C"]
    has_image_B: Bool[Tensor, " B"]
    window_B: Int64[Tensor, " B"]


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
    labelset: Int64[Tensor, "W S"]
    # Texts to choose from, flat, by label set; a set without any has count 0.
    choice: Int64[Tensor, " N"]
    choice_offset: Int64[Tensor, " L"]
    choice_count: Int64[Tensor, " L"]
    text: Float[Tensor, "X C"]
    image: Float[Tensor, "W C"]
    has_image: Bool[Tensor, " W"]

    def __len__(self) -> int:
        return len(self.window)

    @property
    def bytes(self) -> int:
        """Size of all tensors."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, Tensor))

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
        motion = torch.cat((self.rot6d[row_BT], F.pad(trans_BT3, (0, 3))[:, :, None]), dim=2)
        labelset = self.labelset[item_B, shift_B]
        count = self.choice_count[labelset]
        pick = self.choice_offset[labelset] + (chance_B * count).long()
        text = self.choice[pick.clamp(max=len(self.choice) - 1)]
        return Batch(
            motion * mask_BT[..., None, None], mask_BT, self.text[text], count > 0,
            self.image[item_B], self.has_image[item_B], self.window[item_B],
        )  # fmt: skip


def load_crops(store: Store, *, split: str, encoder: str, target: str, device: torch.device) -> Crops:
    """The crops of a split. StoreError when the split is empty or the encoder's vectors are missing."""
    in_split = store.read("windows/split") == SPLITS.index(split)
    if not in_split.any():
        counts = dict(zip(SPLITS, np.bincount(store.read("windows/split"), minlength=3).tolist(), strict=True))
        raise StoreError(f"{store.url}: no window in split {split}; windows by split: {counts}")
    image, has_image = window_vectors(store, encoder)
    choice, offset, count = text_choices(store, target)
    arrays = {
        "rot6d": store.read("motion/rot6d"),
        "trans": store.read("motion/trans"),
        "window": np.flatnonzero(in_split),
        "row": store.read("windows/row")[in_split],
        "frames": store.read("windows/frames")[in_split],
        "labelset": store.read("windows/labelset")[in_split].astype(np.int64),
        "choice": choice,
        "choice_offset": offset,
        "choice_count": count,
        "text": store.read(f"embeddings/{encoder}/text"),
        "image": image[in_split],
        "has_image": has_image[in_split],
    }
    crop = store.attributes("prepare")["options"]["crop"]
    return Crops(crop, target, **{name: torch.from_numpy(array).to(device) for name, array in arrays.items()})


def text_choices(store: Store, target: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(texts flat, offset, count) by label set: the joined text, or every label, or every category."""
    if target == "joined":
        text = store.read("labelsets/text")
        return np.maximum(text, 0), np.arange(len(text)), (text >= 0).astype(np.int64)
    name = {"label": "labels", "category": "categories"}[target]
    offset = store.read(f"labelsets/{name}_offset")
    # One more entry, never chosen, so that an empty list can be indexed.
    return np.append(store.read(f"labelsets/{name}"), 0), offset[:-1], np.diff(offset)
