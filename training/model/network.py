"""MotionCLIP's auto-encoder: a motion to one vector as wide as CLIP's, and back.

Tevet et al., ECCV 2022, section 3, with the sizes of the paper's release. Three identities are used. The decoder's
memory is one vector, so its cross-attention is a softmax over one element and equals out(value(z)) for every frame. Of
the encoder's last layer only the first output is read, so only that one is computed. And the decoder's queries are the
same for all motions, so its first self-attention is computed once, unless padding or dropout makes them differ.
"""

# B batch, T frames, R rows (24 joints and the root's displacement), D rotation numbers (6), C latent width

import copy
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mclip.training.model.config import ModelConfig
from mclip.training.model.dropout import add_dropped, dropout

ROWS, NUMBERS = 25, 6
LONGEST = 5000  # frames that the position code covers, as in the release


def position_code(width: int, frames: int = LONGEST) -> Float[Tensor, "T C"]:
    """Sines and cosines of the frame number (Vaswani et al. 2017, section 3.5), (frames, width)."""
    time = torch.arange(frames, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-torch.log(torch.tensor(10000.0)) / width))
    return torch.stack((torch.sin(time * rate), torch.cos(time * rate)), dim=-1).flatten(1)


def attention(
    q_BHTD: Float[Tensor, "B H Q D"],
    k_BHTD: Float[Tensor, "B H T D"],
    v_BHTD: Float[Tensor, "B H T D"],
    *,
    keep_B11T: Bool[Tensor, "B 1 1 T"] | None,
    rate: float,
) -> Float[Tensor, "B H Q D"]:
    """softmax(q k^T / sqrt(D)) v over the frames that are kept, with a share `rate` of the weights dropped.

    On a CPU the formula is written out: for 60 frames torch's fused kernel takes up to four times as long forward and
    backward (bfloat16), and with dropout it does not exist.
    """
    if q_BHTD.device.type != "cpu":
        return F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, attn_mask=keep_B11T, dropout_p=rate)
    q, k, v = (x.flatten(0, 1) for x in (q_BHTD, k_BHTD, v_BHTD))
    bias = q.new_zeros(1)
    if keep_B11T is not None:
        bias = torch.zeros_like(keep_B11T, dtype=q.dtype).masked_fill_(~keep_B11T, -torch.inf)
        bias = bias.expand(-1, q_BHTD.shape[1], -1, -1).flatten(0, 1)
    score = torch.baddbmm(bias, q, k.mT, alpha=q.shape[-1] ** -0.5)
    # torch's softmax of bfloat16 takes four times as long as a cast there and back.
    weight = score.softmax(-1, dtype=torch.promote_types(score.dtype, torch.float32)).to(score.dtype)
    return torch.bmm(dropout(weight, rate), v).view(q_BHTD.shape)


def working_type(x: Tensor) -> torch.dtype:
    """The type that products of `x` are computed in: autocast's where it is on.

    What is added up from layer to layer has it too. In float32 it would be cast before each product, a tenth of a step.
    """
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def normed(norm: nn.LayerNorm, x_BTC: Tensor) -> Tensor:
    """A layer norm, in float32 inside and of the type of `x_BTC`: autocast on CUDA would leave it in float32."""
    if x_BTC.device.type == "cpu":  # where torch's kernel does that by itself
        return F.layer_norm(x_BTC, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    with torch.autocast(x_BTC.device.type, enabled=False):
        return F.layer_norm(x_BTC.to(norm.weight), norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(x_BTC)


class SelfAttention(nn.Module):
    """Multi-head self-attention, initialised as nn.MultiheadAttention."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads, self.rate = config.heads, config.dropout
        self.qkv = nn.Linear(config.latent, 3 * config.latent)
        self.out = nn.Linear(config.latent, config.latent)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_BTC: Tensor, keep_B11T: Tensor | None, first: int | None = None) -> Tensor:
        """Mix frames; `keep_B11T` is False where a frame is padding. `first`: only so many outputs are wanted."""
        rate = self.rate if self.training else 0.0
        mixed_BHTD = attention(*self.heads_of(x_BTC, first), keep_B11T=keep_B11T, rate=rate)
        out_BTC: Tensor = self.out(mixed_BHTD.transpose(1, 2).flatten(-2))
        return out_BTC

    def heads_of(self, x_BTC: Tensor, first: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (of the `first` frames only), keys and values, each (B, H, T, D)."""
        if first is None:
            q, k, v = split_heads(self.qkv(x_BTC), 3, self.heads)
            return q, k, v
        width, weight, bias = x_BTC.shape[-1], self.qkv.weight, self.qkv.bias
        (q,) = split_heads(F.linear(x_BTC[:, :first], weight[:width], bias[:width]), 1, self.heads)
        k, v = split_heads(F.linear(x_BTC, weight[width:], bias[width:]), 2, self.heads)
        return q, k, v


def split_heads(x_BTC: Float[Tensor, "B T all"], kinds: int, heads: int) -> tuple[Tensor, ...]:
    """Queries, keys and values that lie side by side, each (B, H, T, D): on a CPU one copy for all, on a GPU none."""
    x_BTKHD = x_BTC.view(*x_BTC.shape[:2], kinds, heads, -1)
    if x_BTC.device.type == "cpu":
        return x_BTKHD.permute(2, 0, 3, 1, 4).contiguous().unbind()
    return tuple(each_BTHD.transpose(1, 2) for each_BTHD in x_BTKHD.unbind(2))


class Layer(nn.Module):
    """A post-norm transformer layer; with `memory` it is a decoder layer whose memory is one vector."""

    def __init__(self, config: ModelConfig, *, memory: bool):
        super().__init__()
        width = config.latent
        self.rate = config.dropout
        self.attention = SelfAttention(config)
        self.norm1, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, config.feed_forward)
        self.linear2 = nn.Linear(config.feed_forward, width)
        if memory:
            # softmax over one element is 1: queries and keys never matter, so they do not exist.
            self.heads = config.heads
            self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
            # As nn.MultiheadAttention, which draws queries, keys and values as one matrix of 3 C x C numbers: Xavier's
            # bound is then sqrt(6 / 4 C), not the sqrt(6 / 2 C) of a square one.
            nn.init.xavier_uniform_(self.value.weight, gain=0.5**0.5)
            nn.init.zeros_(self.value.bias)
            nn.init.zeros_(self.out.bias)
            self.norm2 = nn.LayerNorm(width)

    def forward(
        self, x_BTC: Tensor, keep_B11T: Tensor | None, z_BC: Tensor | None = None, first: int | None = None
    ) -> Tensor:
        """The layer's output; `z_BC` is the decoder's memory. `first`: only so many frames of it are wanted."""
        rate = self.rate if self.training else 0.0
        x_BTC = normed(self.norm1, add_dropped(x_BTC[:, :first], self.attention(x_BTC, keep_B11T, first), rate))
        if z_BC is not None:
            x_BTC = normed(self.norm2, add_dropped(x_BTC, self.told(z_BC, x_BTC.shape[1], rate), rate))
        hidden = self.linear2(dropout(F.gelu(self.linear1(x_BTC)), rate))
        return normed(self.norm3, add_dropped(x_BTC, hidden, rate))

    def told(self, z_BC: Float[Tensor, "B C"], frames: int, rate: float) -> Float[Tensor, "B T C"]:
        """What the memory says to each frame; the same to all, (B, 1, C), unless a share `rate` of it is dropped.

        nn.MultiheadAttention drops the one attention weight of each head and frame: a frame then lacks that head's
        whole vector.
        """
        value_BC = self.value(z_BC)
        if not rate:
            out_BC: Tensor = self.out(value_BC)
            return out_BC[:, None]
        weight_BTH = dropout(value_BC.new_ones(len(z_BC), frames, self.heads), rate)
        return self.weighted(value_BC, weight_BTH)

    def weighted(self, value_BC: Float[Tensor, "B C"], weight_BTH: Float[Tensor, "B T H"]) -> Float[Tensor, "B T C"]:
        """`out` of the heads' values times their weights in each frame: each head goes through `out` once, not T times.

        out(sum of w_h v_h) = sum of w_h out_h v_h, which is C x H products a frame and not C x C.
        """
        value_BHD = value_BC.unflatten(-1, (self.heads, -1))
        out_CHD = self.out.weight.to(value_BC.dtype).unflatten(-1, (self.heads, -1))
        head_BHC = torch.einsum("bhd,chd->bhc", value_BHD, out_CHD)
        told_BTC: Tensor = weight_BTH @ head_BHC + self.out.bias.to(value_BC.dtype)
        return told_BTC


def layers_of(config: ModelConfig, *, memory: bool) -> nn.ModuleList:
    """The layers of the encoder or the decoder, each drawn by itself or all as the first one."""
    if not config.copied_layers:
        return nn.ModuleList(Layer(config, memory=memory) for _ in range(config.layers))
    first = Layer(config, memory=memory)
    return nn.ModuleList(copy.deepcopy(first) for _ in range(config.layers))


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
        self.encoder, self.decoder = (layers_of(config, memory=memory) for memory in (False, True))
        self.final = nn.Linear(width, ROWS * NUMBERS)
        self.register_buffer("position", position_code(width), persistent=False)
        self.compiled: Callable[..., Tensor] | None = None  # `Layer.forward`, as a compiler made it for training

    def take(self, weights: dict[str, Tensor]) -> None:
        """Take weights over, also into a model on the device `meta`, which has sizes only."""
        empty = self.position.is_meta
        self.load_state_dict(weights, assign=empty)
        if empty:
            self.position = position_code(self.config.latent)

    @property
    def through(self) -> Callable[..., Tensor]:
        """What takes a layer and what it is given. It is compiled for training's sizes, and measuring has others."""
        return self.compiled if self.compiled and self.training else Layer.__call__

    def positions(self, frames: int) -> Float[Tensor, "T C"]:
        """The codes of the first frames."""
        return self.position[:frames]

    @property
    def rate(self) -> float:
        """Share of numbers that dropout takes now."""
        return self.config.dropout if self.training else 0.0

    def encode(
        self, motion_BTRD: Float[Tensor, "B T 25 6"], mask_BT: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B C"]:
        """z (B, C), not normalised; `mask_BT` is False where a frame is padding."""
        frames_BTC = self.embed(motion_BTRD.flatten(-2))
        tokens_B2C = self.tokens.to(frames_BTC.dtype).expand(frames_BTC.shape[0], 2, -1)
        x_BTC = torch.cat((tokens_B2C, frames_BTC), dim=1)
        x_BTC = dropout(x_BTC + self.positions(x_BTC.shape[1]).to(x_BTC.dtype), self.rate)
        keep = None if mask_BT is None else F.pad(mask_BT, (2, 0), value=True)[:, None, None]
        *layers, last = self.encoder
        for layer in layers:
            x_BTC = self.through(layer, x_BTC, keep)
        z_B1C = self.through(last, x_BTC, keep, first=1)  # no other output of the last layer is read
        return z_B1C[:, 0]

    def decode(
        self, z_BC: Float[Tensor, "B C"], frames: int, mask_BT: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T 25 6"]:
        """Motions (B, frames, 25, 6) from vectors of CLIP space; padded frames are zero."""
        if frames > LONGEST:
            raise ValueError(f"{frames} frames asked for, at most {LONGEST} can be decoded")
        if self.config.unit_latent:
            z_BC = F.normalize(z_BC, dim=-1)
        x_BTC = self.positions(frames)[None].to(working_type(self.position))
        keep = None if mask_BT is None else mask_BT[:, None, None]
        if self.rate or keep is not None:
            x_BTC = dropout(x_BTC.expand(len(z_BC), -1, -1), self.rate)
        for layer in self.decoder:
            x_BTC = self.through(layer, x_BTC, keep, z_BC)
        with torch.autocast(x_BTC.device.type, enabled=False):  # 8 bits of a path of a metre are 4 mm: it would shiver
            motion: Tensor = self.final(x_BTC.to(self.final.weight)).unflatten(-1, (ROWS, NUMBERS))
        return motion if mask_BT is None else motion * mask_BT[..., None, None]
