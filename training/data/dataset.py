"""Crops of a store for a trainer of your own, as torch's DataLoader takes them."""

# T frames, C width of CLIP's vectors

from typing import TypedDict

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset

from mclip.pipeline.store.schema import StoreError
from mclip.pipeline.store.store import Store
from mclip.training.data.crops import load_crops


class Crop(TypedDict):
    """A piece of a motion, and what CLIP makes of it."""

    motion: Float[Tensor, "T 25 6"]  # 24 rotations in 6D, by rows of matrices, and the root's way in metres, z up
    mask: Bool[Tensor, " T"]  # which frames there are; others are zero
    text: str  # that the store says of it, or ""
    text_vector: Float[Tensor, " C"]  # zeros without a text
    picture_vector: Float[Tensor, " C"]  # zeros without a picture
    clip: str  # the sequence that it is of


class CropDataset(Dataset[Crop]):
    """A crop of every window of a split, as `mclip train` is fed: it begins anywhere in its window, with any text.

    Chance is torch's own: `torch.manual_seed` decides it, and DataLoader gives each worker another. `middle` takes the
    middle crop and the first text, the same every time. The root's way begins at zero; no frame is turned.
    """

    def __init__(
        self,
        store: Store,
        split: str = "train",
        *,
        encoder: str | None = None,
        target: str = "label",
        middle: bool = False,
    ) -> None:
        """`encoder` is one that embedded the store, and may be left out where there is one; `target` is whether texts
        are label, category, any of both, or joined. StoreError where the split or the vectors are missing."""
        known = [*store.encoders]
        if encoder is None and len(known) != 1:
            raise StoreError(
                f"{store.url}: embedded by {', '.join(known) or 'none'}: "
                + ("name one as encoder" if known else "run `mclip embed` first")
            )
        self.crops = load_crops(
            store, split=split, encoder=encoder or known[0], target=target, device=torch.device("cpu")
        )
        sequence_W, names = store.read("windows/sequence"), store.sequences
        self.clips = [names[sequence] for sequence in sequence_W[self.crops.window.numpy()]]
        self.texts, self.middle = store.strings("texts"), middle

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, number: int) -> Crop:
        if not 0 <= number < len(self):
            raise IndexError(f"crop {number} of {len(self)}")
        item = torch.tensor([number])
        if self.middle:
            batch = self.crops.middle(item)
        else:
            batch = self.crops.sample(item, torch.default_generator)
        return {
            "motion": batch.motion_BTRD[0],
            "mask": batch.mask_BT[0],
            "text": self.texts[int(batch.text_B[0])] if batch.has_text_B[0] else "",
            "text_vector": batch.text_BC[0] * batch.has_text_B[0],
            "picture_vector": batch.image_BC[0] * batch.has_image_B[0],
            "clip": self.clips[number],
        }
