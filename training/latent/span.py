"""Texts carried to where motions lie: the decoder was never asked about any other direction.

Texts and motions do not fill one region of CLIP's space (the modality gap, Liang et al. 2022): most of an unlike
text's length lies outside the span of all training motions' z, and what is decoded from there is no motion. A text is
therefore carried to a mean of the z of training motions that are like it, and like one another, the more the further
it is.
"""

# N texts, M training motions, C latent width

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

FAR, NEAR = 0.6, 0.8  # best cosine of a text with any z, up to which it is carried wholly, and from which not at all
SHARP = 0.02  # temperature of the softmax over cosines
ALIKE = 0.1  # how fast a motion's weight falls as its z turns away from the nearest one's, 1 - cosine
TOLD = 3.0  # weight of the cosine with a motion's own text beside that with its z
REACH, LEAD = 0.1, 0.5  # of a seed, at a share of 1


def carried(
    text_NC: Float[Tensor, "N C"],
    z_MC: Float[Tensor, "M C"],
    told_MC: Float[Tensor, "M C"] | None = None,
    *,
    chance: "Chance | None" = None,
) -> Float[Tensor, "N C"]:
    """Unit directions (N, C) near texts' vectors, within the span of training z where the texts lie far from it.

    Each is (1 - w) c + w text. c = sum_i w_i z_i with w_i = softmax(cos(text, z_i) / SHARP - (1 - cos(z_nearest, z_i))
    / ALIKE): a text that is far from all would have all for neighbours, and their mean hardly moves; those unlike the
    nearest one are left out. w rises from 0 to 1 with the best cosine from FAR to NEAR: a text that lies where motions
    lie is understood as it is, also one that puts known words together anew.

    With `told_MC`, vectors of a text of each motion, each is the z_i of the largest cos(text, z_i) + TOLD *
    cos(text, told_i). By `chance` others become the nearest, and what was found is led away from, as training z lie
    about their own mean.
    """
    z_MC, text_NC = F.normalize(z_MC, dim=-1), F.normalize(text_NC, dim=-1)
    cosine_NM = text_NC @ z_MC.T
    score_NM = cosine_NM if told_MC is None else cosine_NM + TOLD * text_NC @ F.normalize(told_MC, dim=-1).T
    find = neighbourly if told_MC is None else nearest
    if chance is not None:
        lead_NC = chance.lead_NM.to(z_MC.device) @ (z_MC - z_MC.mean(0))
        return F.normalize(find(score_NM + chance.reach_NM.to(z_MC.device), z_MC) + lead_NC, dim=-1)
    if told_MC is not None:
        return find(score_NM, z_MC)
    near_N1 = ((cosine_NM.amax(1, keepdim=True) - FAR) / (NEAR - FAR)).clamp(0, 1)
    return F.normalize(torch.lerp(find(score_NM, z_MC), text_NC, near_N1), dim=-1)


def nearest(score_NM: Float[Tensor, "N M"], z_MC: Float[Tensor, "M C"]) -> Float[Tensor, "N C"]:
    """The training z (N, C) of the highest scores."""
    return z_MC[score_NM.argmax(1)]


def neighbourly(score_NM: Float[Tensor, "N M"], z_MC: Float[Tensor, "M C"]) -> Float[Tensor, "N C"]:
    """Unit means (N, C) of the training z of the highest scores, and of those like the one with the highest."""
    apart_NM = 1 - z_MC[score_NM.argmax(1)] @ z_MC.T
    weight_NM = (score_NM / SHARP - apart_NM / ALIKE).softmax(-1)
    return F.normalize(weight_NM @ z_MC, dim=-1)


@dataclass(frozen=True)
class Chance:
    """What a seed does to texts among M training motions.

    `reach_NM` is added to the cosines: Gumbel noise of scale REACH * `share`, with which the nearest is a draw from
    their softmax. `lead_NM` are weights of a step away from the mean, of LEAD * `share` times the deviation of z.
    """

    reach_NM: Float[Tensor, "N M"]
    lead_NM: Float[Tensor, "N M"]

    @classmethod
    def of(cls, texts: Sequence[str], motions: int, *, seed: int, share: float) -> "Chance":
        """From the seed and the text alone, so it is the same whatever else is asked for beside it, on any device."""
        drawn = [int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:7]) for text in texts]
        made = [torch.Generator().manual_seed(each) for each in drawn]
        uniform_NM = torch.stack([torch.rand(motions, generator=each) for each in made]).clamp(1e-6, 1 - 1e-6)
        normal_NM = torch.stack([torch.randn(motions, generator=each) for each in made])
        return cls(REACH * share * -torch.log(-torch.log(uniform_NM)), LEAD * share * normal_NM / motions**0.5)


def centred(z_NC: Float[Tensor, "*N C"], kept_MC: Float[Tensor, "M C"] | None) -> Float[Tensor, "*N C"]:
    """Unit vectors of z less the mean of the training motions': what motions have in common names no class.

    Without it short names, such as "walk", are near to every motion. As they are where no training z are kept.
    """
    unit = F.normalize(z_NC, dim=-1)
    return unit if kept_MC is None else unit - F.normalize(kept_MC, dim=-1).mean(0)
