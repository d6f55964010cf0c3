"""Dropout that costs a CPU next to nothing, and compiled code as little."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.machine.compiled import compiled

# By size of a number: the type whose bits are written.
BITS = {2: torch.uint16, 4: torch.uint32, 8: torch.uint64}
STEP, MIX_A, MIX_B = (np.uint64(each) for each in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def dropout(x: Float[Tensor, "*size"], rate: float) -> Float[Tensor, "*size"]:
    """`x` with a share `rate` of its numbers set to zero and the others scaled up, as torch's dropout.

    On a CPU torch draws one Bernoulli number at a time, a fifth of a whole training step. Here one 64-bit draw decides
    four numbers, so the rate is rounded to a multiple of 2^-16 (0.1 becomes 0.100006); the scale knows the rounded one.
    The draws follow one seed from torch's generator.
    """
    if not rate:
        return x
    return x * mask_like(x, rate) if is_ours(x) else F.dropout(x, rate)


def add_dropped(
    x: Float[Tensor, "*#batch T C"], branch: Float[Tensor, "*#batch #T C"], rate: float
) -> Float[Tensor, "*batch T C"]:
    """`x` + dropout(`branch`), in one pass over memory."""
    if not rate:
        return x + branch
    branch = branch.expand_as(x)
    return torch.addcmul(x, branch, mask_like(x, rate)) if is_ours(x) else x + F.dropout(branch, rate)


def is_ours(x: Tensor) -> bool:
    """Whether the mask is drawn here: on a CPU, and in what is compiled."""
    return x.device.type == "cpu" or torch.compiler.is_compiling()


def mask_like(x: Tensor, rate: float) -> Tensor:
    """What `x` is multiplied with: zeros and the scale."""
    return hashed_mask(x, rate) if torch.compiler.is_compiling() else filled_mask(x, rate)


def hashed_mask(x: Tensor, rate: float) -> Tensor:
    """A mask that is computed from each number's place and two seeds, so that a compiler fuses it with what it is for.

    A compiler's own dropout takes Philox for every number, which on a GPU costs more than all that it is fused with.
    This is triple32 (Wellons, 2018), a hash of three rounds, with a second seed after the first. Torch's whole numbers
    wrap around. Backward computes it again, so no mask is kept.
    """
    seed_a, seed_b = torch.ops.mclip.two_seeds(x.device)
    bits = torch.arange(x.numel(), dtype=torch.int32, device=x.device).view(x.shape) ^ seed_a
    bits = folded(bits, 17) * (0xED5AD4BB - 2**32) + seed_b
    bits = folded(bits, 11) * (0xAC4C1B51 - 2**32)
    bits = folded(bits, 15) * 0x31848BAB
    return torch.where(folded(bits, 14) < round((rate - 0.5) * 2**32), 0.0, 1 / (1 - rate)).to(x.dtype)


# An operator, or the code of every number would draw them again; tagged, or two calls would be taken for one.
torch.library.define("mclip::two_seeds", "(Device device) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))


@torch.library.impl("mclip::two_seeds", "default")
def two_seeds(device: torch.device) -> Tensor:
    """Two 32-bit draws of torch's generator of a device."""
    return torch.randint(-(2**31), 2**31 - 1, (2,), dtype=torch.int32, device=device)


torch.library.register_fake("mclip::two_seeds", lambda device: torch.empty(2, dtype=torch.int32, device=device))


def folded(bits: Tensor, by: int) -> Tensor:
    """32 bits, with the upper ones on the lower ones; `>>` keeps a sign, whose copies are cut off."""
    return bits ^ (bits >> by & (1 << 32 - by) - 1)


def filled_mask(x: Tensor, rate: float) -> Tensor:
    """A mask of which one 64-bit draw decides four numbers, written by compiled code."""
    dropped = round(rate * 2**16)
    either = torch.tensor([0, 2**16 / (2**16 - dropped)], dtype=x.dtype)
    mask, seed = torch.empty_like(x, memory_format=torch.contiguous_format), torch.randint(2**63 - 1, ())
    bits, either_bits = (each.view(BITS[x.element_size()]).numpy() for each in (mask.flatten(), either))
    fill(bits, either_bits, np.uint64(seed.item()), np.uint16(dropped))
    return mask


@compiled
def fill(out_N, either_2, seed, dropped):  # type: ignore[no-untyped-def]
    """Write the first of two numbers in a share dropped / 2^16 of the places, else the second.

    The draws are splitmix64 (Steele et al. 2014) of a counter.
    """
    drawn = np.empty(512, np.uint64)
    quarters = drawn.view(np.uint16)
    zero, kept = either_2[0], either_2[1]  # in a loop's own variables, or it is no vector loop: 14 times as long
    for start in range(0, len(out_N), 2048):
        first = seed + np.uint64(start) * STEP
        for i in range(512):
            z = first + np.uint64(i) * STEP
            z = (z ^ (z >> np.uint64(30))) * MIX_A
            z = (z ^ (z >> np.uint64(27))) * MIX_B
            drawn[i] = z ^ (z >> np.uint64(31))
        part = out_N[start : start + 2048]
        for i in range(len(part)):
            part[i] = kept if quarters[i] >= dropped else zero
