"""What a run keeps of its training motions: z to which texts are carried, and what those motions are called."""

# N windows, P pairs of a window and a text of it, C latent width

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mclip.pipeline.geometry.body import load_body
from mclip.training.data.crops import Crops
from mclip.training.measure.metrics import mpjpe_mm
from mclip.training.measure.reconstruction import BATCH, rotmats
from mclip.training.model.network import MotionClip

KEPT = 4096  # vectors that a run keeps of its training windows: 8 MB at a width of 512
ASKED = 128  # pairs by which is measured whether the decoder understands texts
# How much further than from its z a motion may be decoded from its text. Models that were decoded from many texts, of
# one motion each, have 1.5 to 2.1; one whose labels stand on many windows of different phases has 7.
UNDERSTOOD = 3.0


@torch.inference_mode()
def kept_of(model: MotionClip, crops: Crops, most: int = KEPT) -> dict[str, Float[Tensor, "_ C"]]:
    """`z` (N, C) of the middle crops of up to `most` windows, evenly chosen, on the CPU.

    Where the decoder does not understand texts there is `told` besides, and both have a row for every text of a crop:
    a z, and the vector of a text that training showed with it.
    """
    was_training = model.training
    model.eval()
    items = torch.linspace(0, len(crops) - 1, min(most, len(crops)), device=crops.row.device).long()
    z_NC = z_of(model, crops, items)
    number_P, text_P = pairs(crops, items)
    chosen = torch.linspace(0, len(text_P) - 1, min(most, len(text_P)), device=text_P.device).long()
    number_P, text_P = number_P[chosen], text_P[chosen]
    kept = {"z": z_NC}
    if len(text_P) and not understands(model, crops, items[number_P], z_NC[number_P], crops.text[text_P]):
        kept = {"z": z_NC[number_P], "told": crops.text[text_P].float()}
    model.train(was_training)
    return {name: vectors.cpu() for name, vectors in kept.items()}


def z_of(model: MotionClip, crops: Crops, item_N: Int64[Tensor, " N"]) -> Float[Tensor, "N C"]:
    """z of the middle crops of windows."""
    batches = (crops.middle(item_B) for item_B in item_N.split(BATCH))
    return torch.cat([model.encode(batch.motion_BTRD, batch.mask_BT).float() for batch in batches])


def pairs(crops: Crops, item_N: Int64[Tensor, " N"]) -> tuple[Int64[Tensor, " P"], Int64[Tensor, " P"]]:
    """Every text that training shows with the middle crops of windows: which of the windows, and which text."""
    labelset_N = crops.labelset[item_N, crops.middle_shift(item_N)]
    count_N = crops.targets.count[labelset_N]
    number_P = torch.arange(len(item_N), device=item_N.device).repeat_interleave(count_N)
    before_P = (count_N.cumsum(0) - count_N)[number_P]
    place_P = crops.targets.offset[labelset_N][number_P] + torch.arange(len(number_P), device=item_N.device) - before_P
    return number_P, crops.targets.text[place_P]


def understands(
    model: MotionClip,
    crops: Crops,
    item_P: Int64[Tensor, " P"],
    z_PC: Float[Tensor, "P C"],
    text_PC: Float[Tensor, "P C"],
) -> bool:
    """Whether motions come out of their texts at most UNDERSTOOD times as far off as out of their z, by the median."""
    some = torch.linspace(0, len(item_P) - 1, min(ASKED, len(item_P)), device=item_P.device).long()
    length = z_PC.norm(dim=-1).mean()
    at_length_PC = torch.nn.functional.normalize(text_PC.to(z_PC), dim=-1) * length
    own, told = (errors(model, crops, item_P[some], each[some]).median() for each in (z_PC, at_length_PC))
    return bool(told <= UNDERSTOOD * own)


def errors(
    model: MotionClip, crops: Crops, item_B: Int64[Tensor, " B"], vector_BC: Float[Tensor, "B C"]
) -> Float[Tensor, " B"]:
    """MPJPE in millimetres of what is decoded from vectors to the middle crops of windows, frames of padding out."""
    batch = crops.middle(item_B)
    decoded = model.decode(vector_BC, crops.crop, batch.attended_BT)
    found, source = (rotmats(each, batch) for each in (decoded, batch.motion_BTRD))
    mm_BT = mpjpe_mm(found, source, load_body().joints_J3.to(found.device))
    return (mm_BT * batch.mask_BT).sum(1) / batch.mask_BT.sum(1)
