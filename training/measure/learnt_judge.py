"""A second judge, which learns what texts look like: for good motion that no real clip shows.

A small network that brings motions and texts' vectors together by contrast (as TMR, Petrovich et al. 2023, does),
trained on real motion alone and never on what a model decodes, with weights of its own. It sees joints in the world,
not rotations, and the model's encoder has no part in it, so what pleases that encoder does not please this judge.
"""

# B batch, N motions, Q texts, T frames, S frames that are seen, F numbers of one
# C width of texts' vectors, D width of the judge's

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mclip.pipeline.draw.camera import facing
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.rotations import rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import forward_kinematics
from mclip.training.data.crops import Crops
from mclip.training.data.rows import joints_of, root_of
from mclip.training.measure.judge import to_front
from mclip.training.model.losses import infonce_loss

RATE = 10.0  # frames a second that are seen: a judge of what is done, not of how smoothly
WIDTH = 96
STEPS, BATCH, LEARNING_RATE = 300, 32, 2e-3
MOST = 4096  # random crops of real motion that it learns from
SCALE = 10.0  # of cosines, as TMR's temperature of 0.1: CLIP's 100 learns these few motions by heart
NOISE = 0.02  # metres on joints in training
NUMBERS = 2 * 3 * (24 + 1)  # joints about the pelvis and its path, and the steps of both


class MotionReader(nn.Module):
    """What is seen of a motion to a vector: convolutions over half a second and a second, their mean and their most."""

    def __init__(self, text_width: int):
        super().__init__()
        self.first = nn.Conv1d(NUMBERS, WIDTH, 5, padding=2)
        self.second = nn.Conv1d(WIDTH, WIDTH, 5, padding=2)
        self.out = nn.Linear(2 * WIDTH, WIDTH)
        self.text = nn.Linear(text_width, WIDTH, bias=False)

    def forward(self, seen_BSF: Float[Tensor, "B S F"]) -> Float[Tensor, "B D"]:
        """The vectors of motions."""
        x_BDS = F.gelu(self.first(seen_BSF.mT))
        x_BDS = F.gelu(self.second(x_BDS))
        out_BD: Tensor = self.out(torch.cat((x_BDS.mean(-1), x_BDS.amax(-1)), dim=-1))
        return out_BD


@dataclass(frozen=True)
class LearntJudge:
    """A trained network, and the mean and deviation of what it saw."""

    network: MotionReader
    mean_F: Float[Tensor, " F"]
    deviation_F: Float[Tensor, " F"]
    text_mean_C: Float[Tensor, " C"]
    stride: int

    @classmethod
    def trained(cls, splits: Sequence[Crops], *, fps: float, seed: int = 0) -> "LearntJudge | None":
        """A judge that learnt from random crops of real motion and their labels; None where no crop has a label."""
        generator, stride = torch.Generator().manual_seed(seed), max(1, round(fps / RATE))
        parts = [lesson(crops, stride, MOST // len(splits), generator) for crops in splits]
        seen_NSF, label_NC = (torch.cat(column) for column in zip(*parts, strict=True))
        if not len(label_NC):
            return None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = MotionReader(label_NC.shape[1])
        text_mean_C = F.normalize(splits[0].text.cpu(), dim=-1).mean(0)
        judge = cls(network, seen_NSF.mean((0, 1)), seen_NSF.std((0, 1)) + 0.01, text_mean_C, stride)
        judge.learn(seen_NSF, label_NC, generator)
        return judge

    def learn(
        self, seen_NSF: Float[Tensor, "N S F"], label_NC: Float[Tensor, "N C"], generator: torch.Generator
    ) -> None:
        """Train the network on what is seen of motions and a label's vector of each."""
        optimizer = torch.optim.AdamW(self.network.parameters(), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
        for _ in range(STEPS):
            at_B = torch.randint(len(label_NC), (BATCH,), generator=generator)
            seen_BSF, label_BC = seen_NSF[at_B], label_NC[at_B]
            noise_BSF = NOISE * torch.randn(seen_BSF.shape, generator=generator)
            motion_BD, text_BD = self.vectors(seen_BSF + noise_BSF), self.text_vectors(label_BC)
            loss = infonce_loss(motion_BD, text_BD, torch.ones(BATCH, dtype=torch.bool), scale=SCALE)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
        self.network.eval().requires_grad_(False)

    def vectors(self, seen_BSF: Float[Tensor, "B S F"]) -> Float[Tensor, "B D"]:
        """Vectors of what is seen of motions."""
        found: Tensor = self.network((seen_BSF - self.mean_F) / self.deviation_F)
        return found

    def text_vectors(self, text_QC: Float[Tensor, "Q C"]) -> Float[Tensor, "Q D"]:
        """The judge's vectors of texts' vectors, which are centred: what all texts share tells none apart."""
        found: Tensor = self.network.text(F.normalize(text_QC, dim=-1) - self.text_mean_C)
        return found

    @torch.inference_mode()
    def scores(self, rows_NTRD: Float[Tensor, "N T 25 6"], text_QC: Float[Tensor, "Q C"]) -> Float[Tensor, "N Q"]:
        """Cosines (N, Q) of motions in the model's rows with texts' vectors."""
        motion_ND = F.normalize(self.vectors(seen(rows_NTRD, self.stride)), dim=-1)
        return motion_ND @ F.normalize(self.text_vectors(text_QC), dim=-1).T


def lesson(
    crops: Crops, stride: int, most: int, generator: torch.Generator
) -> tuple[Float[Tensor, "N S F"], Float[Tensor, "N C"]]:
    """What is seen of up to `most` random crops of real motion that have a label, and a label's vector of each."""
    # Drawn by the host's generator, so that the judge is one on every device.
    item_N = torch.randint(len(crops), (most,), generator=generator)
    chance_2N = torch.rand(2, most, generator=generator)
    batch = crops.by_chance(item_N.to(crops.row.device), chance_2N.to(crops.row.device))
    rows = held_at_end(batch.motion_BTRD, batch.mask_BT)[batch.has_text_B]
    return seen(rows.cpu(), stride), batch.label_BC[batch.has_text_B].cpu()


def held_at_end(rows_BTRD: Float[Tensor, "B T 25 6"], mask_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "B T 25 6"]:
    """Motions with what is padded replaced by their last frame."""
    last_B = mask_BT.sum(1) - 1
    time_T, item_B = (torch.arange(size, device=mask_BT.device) for size in (mask_BT.shape[1], len(mask_BT)))
    return rows_BTRD[item_B[:, None], time_T.expand_as(mask_BT).minimum(last_B[:, None])]


def seen(rows_BTRD: Float[Tensor, "B T 25 6"], stride: int) -> Float[Tensor, "B S F"]:
    """What the judge sees of motions, every `stride` frames: joints about the pelvis, its path, and their steps.

    Metres, from where the motion begins, and turned so that it begins facing front.
    """
    rows_BSRD = rows_BTRD[:, ::stride].float()
    rotmat, path_BS3 = rot6d_to_matrix(joints_of(rows_BSRD)), root_of(rows_BSRD)
    joints = forward_kinematics(rotmat.flatten(0, 1), load_body("low").joints_J3)[1].unflatten(0, rotmat.shape[:2])
    path_BS13 = (path_BS3 - path_BS3[:, :1])[:, :, None]
    points = torch.cat((joints - joints[:, :, :1], path_BS13), dim=2)
    points = points @ to_front(facing(rotmat[:, 0, 0])).mT[:, None]
    points_BSF = points.flatten(2)
    steps_BSF = F.pad(points_BSF.diff(dim=1), (0, 0, 1, 0))
    return torch.cat((points_BSF, steps_BSF), dim=-1)


def ranks_of_own(score_NN: Float[Tensor, "N N"], expected: Sequence[Sequence[str]]) -> np.ndarray:
    """Rank (N,), from 1, of every motion's own text among all texts that show other clips.

    A text that shares a clip with the motion's own is neither right nor wrong.
    """
    clips = [set(each) for each in expected]
    other_NN = torch.tensor([[not a & b for b in clips] for a in clips])
    own_N = score_NN.diagonal()
    ranks: np.ndarray = 1 + ((score_NN >= own_N[:, None]) & other_NN).sum(1).numpy()
    return ranks
