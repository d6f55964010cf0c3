"""Arithmetic of latent vectors: vary, style, edit, interpolate."""

import hashlib
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def varied(vector_C: Float[Tensor, " C"], text: str, *, seed: int, share: float) -> Float[Tensor, " C"]:
    """The vector led away in a random direction by `share` of its length: another motion of the same text.

    The direction comes from the seed and the text alone, so it is the same whatever else is asked for beside it.
    """
    drawn = int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:7])
    noise_C = torch.randn(len(vector_C), generator=torch.Generator().manual_seed(drawn))
    return vector_C + share * vector_C.norm() * F.normalize(noise_C.to(vector_C.device), dim=0)


def styled(
    content_C: Float[Tensor, " C"], style_C: Float[Tensor, " C"], scales: Sequence[float]
) -> Float[Tensor, "N C"]:
    """content + scale * style for every scale, at the length of `content` (paper, section 4.2: a style is added).

    The length is given back because two vectors of a narrow cone add up to one of twice the length.
    """
    return torch.stack([F.normalize(content_C + scale * style_C, dim=0) * content_C.norm() for scale in scales])


def edited(
    base_C: Float[Tensor, " C"], from_C: Float[Tensor, " C"], to_C: Float[Tensor, " C"], scales: Sequence[float]
) -> Float[Tensor, "N C"]:
    """base + scale (to - from) for every scale (paper, section 4.2: editing by arithmetic in the latent space)."""
    return torch.stack([base_C + scale * (to_C - from_C) for scale in scales])


def between(
    a_C: Float[Tensor, " C"], b_C: Float[Tensor, " C"], steps: int, *, path: str = "line"
) -> Float[Tensor, "N C"]:
    """`steps` vectors from a to b, both included: on the straight line (paper, section 4.2), or on the great circle.

    On the circle the direction turns evenly and the length changes evenly. ValueError where a and b are opposite: then
    every great circle leads from one to the other.
    """
    if steps < 2:
        raise ValueError(f"--steps is {steps}: expected at least 2, the two ends")
    share_N1 = torch.linspace(0, 1, steps, device=a_C.device)[:, None]
    if path == "line":
        return a_C + (b_C - a_C) * share_N1
    a, b = F.normalize(a_C, dim=0), F.normalize(b_C, dim=0)
    angle = 2 * torch.atan2((b - a).norm(), (b + a).norm())
    if angle > math.pi - 1e-3:
        raise ValueError("the two ends are opposite vectors, and no great circle is the shortest: pass --path line")
    # Shoemake 1985; by sinc, which is smooth where the ends are one.
    parts = [share * torch.sinc(share * angle / math.pi) for share in (1 - share_N1, share_N1)]
    direction = (parts[0] * a + parts[1] * b) / torch.sinc(angle / math.pi)
    return direction * (a_C.norm() + (b_C.norm() - a_C.norm()) * share_N1)
