"""MotionCLIP's auto-encoder: a motion to one vector as wide as CLIP's, and back.

Tevet et al., ECCV 2022, section 3, with the sizes of the paper's release. One identity is used: the decoder's memory is a
single vector, so its cross-attention is a softmax over one element and equals out(value(z)) for every frame.
"""

# B batch, T frames, R rows (24 joints and the root's displacement), D rotation numbers (6), C latent width

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mclip.training.config import ModelConfig

ROWS, NUMBERS = 25, 6
LONGEST = 5000  # frames that the position code covers, as in the release


def position_code(width: int) -> Float[Tensor, "T C"]:
    """Sines and cosines of the frame number (Vaswani et al. 2017, section 3.5), (LONGEST, width)."""
    time = torch.arange(LONGEST, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-torch.log(torch.tensor(10000.0)) / width))
    return torch.stack((torch.sin(time * rate), torch.cos(time * rate)), dim=-1).flatten(1)


class SelfAttention(nn.Module):
    """Multi-head self-attention, initialised as nn.MultiheadAttention."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.qkv = nn.Linear(config.latent, 3 * config.latent)
        self.out = nn.Linear(config.latent, config.latent)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_BTC: Tensor, keep_B11T: Tensor | None) -> Tensor:
        """Mix frames; `keep_B11T` is False where a frame is padding."""
        q, k, v = self.qkv(x_BTC).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=keep_B11T, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).flatten(-2))


class Layer(nn.Module):
    """A post-norm transformer layer; with `memory` it is a decoder layer whose memory is one vector."""

    def __init__(self, config: ModelConfig, *, memory: bool):
        super().__init__()
        width = config.latent
        self.attention = SelfAttention(config)
        self.norm1, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, config.feed_forward)
        self.linear2 = nn.Linear(config.feed_forward, width)
        self.dropout = nn.Dropout(config.dropout)
        if memory:
            # softmax over one element is 1: queries and keys never matter, so they do not exist. The dropout that
            # nn.MultiheadAttention puts on that single weight is left out; the one on the branch's output stays.
            self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
            self.norm2 = nn.LayerNorm(width)

    def forward(self, x_BTC: Tensor, keep_B11T: Tensor | None, z_BC: Tensor | None = None) -> Tensor:
        """The layer's output; `z_BC` is the decoder's memory."""
        x_BTC = self.norm1(x_BTC + self.dropout(self.attention(x_BTC, keep_B11T)))
        if z_BC is not None:
            told_B1C = self.out(self.value(z_BC))[:, None]
            x_BTC = self.norm2(x_BTC + self.dropout(told_B1C.expand_as(x_BTC)))
        hidden = self.linear2(self.dropout(F.gelu(self.linear1(x_BTC))))
        return self.norm3(x_BTC + self.dropout(hidden))


class MotionClip(nn.Module):
    """The auto-encoder. `encode` gives z, `decode` gives a motion; motions are (B, T, 25, 6)."""

    position: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        width = config.latent
        self.embed = nn.Linear(ROWS * NUMBERS, width)
        # The release learns two tokens, mean and deviation, and reads only the first; both take part in attention.
        self.tokens = nn.Parameter(torch.randn(2, width))
        self.encoder = nn.ModuleList(Layer(config, memory=False) for _ in range(config.layers))
        self.decoder = nn.ModuleList(Layer(config, memory=True) for _ in range(config.layers))
        self.final = nn.Linear(width, ROWS * NUMBERS)
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("position", position_code(width), persistent=False)

    def encode(
        self, motion_BTRD: Float[Tensor, "B T 25 6"], mask_BT: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B C"]:
        """z (B, C), not normalised; `mask_BT` is False where a frame is padding."""
        frames_BTC = self.embed(motion_BTRD.flatten(-2))
        tokens_B2C = self.tokens.expand(len(frames_BTC), 2, -1)
        x_BTC = torch.cat((tokens_B2C, frames_BTC), dim=1)
        x_BTC = self.dropout(x_BTC + self.position[: x_BTC.shape[1]])
        keep = None if mask_BT is None else F.pad(mask_BT, (2, 0), value=True)[:, None, None]
        for layer in self.encoder:
            x_BTC = layer(x_BTC, keep)
        return x_BTC[:, 0]

    def decode(
        self, z_BC: Float[Tensor, "B C"], frames: int, mask_BT: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T 25 6"]:
        """Motions (B, frames, 25, 6) from vectors of CLIP space; padded frames are zero."""
        if frames > LONGEST:
            raise ValueError(f"{frames} frames asked for, at most {LONGEST} can be decoded")
        if self.config.unit_latent:
            z_BC = F.normalize(z_BC, dim=-1)
        queries = self.position[:frames].expand(len(z_BC), -1, -1)
        x_BTC = self.dropout(queries)
        keep = None if mask_BT is None else mask_BT[:, None, None]
        for layer in self.decoder:
            x_BTC = layer(x_BTC, keep, z_BC)
        motion = self.final(x_BTC).unflatten(-1, (ROWS, NUMBERS))
        return motion if mask_BT is None else motion * mask_BT[..., None, None]
