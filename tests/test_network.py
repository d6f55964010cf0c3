"""The model against a slow twin built from torch's stock transformer modules with the same weights."""

import math

import pytest
import torch
from torch import nn

from mclip.training.model import network as models
from mclip.training.model.config import ModelConfig
from mclip.training.model.network import Layer, MotionClip, attention, position_code

SIZES = ModelConfig(latent=32, layers=3, heads=4, feed_forward=48, dropout=0.0)


class SlowTwin(nn.Module):
    """The release's auto-encoder in torch's own modules: full cross-attention, every output of every layer."""

    def __init__(self, sizes: ModelConfig):
        super().__init__()
        width = sizes.latent
        layer = dict(d_model=width, nhead=sizes.heads, dim_feedforward=sizes.feed_forward, dropout=sizes.dropout)
        layer |= dict(activation="gelu", batch_first=True)
        self.embed, self.final = nn.Linear(150, width), nn.Linear(width, 150)
        self.tokens = nn.Parameter(torch.randn(2, width))
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**layer), sizes.layers, enable_nested_tensor=False
        )
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer), sizes.layers)
        for each in self.parameters():  # stock layers are copies of one, and their biases are zero: a mix-up would hide
            nn.init.normal_(each, std=0.2)

    def code(self, frames: int) -> torch.Tensor:
        width = self.tokens.shape[1]
        time = torch.arange(frames, dtype=torch.float64)[:, None]
        angle = time / 10000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
        code = torch.zeros(frames, width, dtype=torch.float64)
        code[:, 0::2], code[:, 1::2] = angle.sin(), angle.cos()
        return code.to(self.tokens.dtype)

    def encode(self, motion, mask):
        x = torch.cat((self.tokens.expand(len(motion), -1, -1), self.embed(motion.flatten(2))), dim=1)
        ignored = torch.cat((torch.zeros(len(motion), 2, dtype=torch.bool), ~mask), dim=1)
        return self.encoder(x + self.code(x.shape[1]), src_key_padding_mask=ignored)[:, 0]

    def decode(self, z, mask):
        queries = self.code(mask.shape[1]).expand(len(z), -1, -1)
        out = self.final(self.decoder(queries, z[:, None], tgt_key_padding_mask=~mask))
        return out.unflatten(-1, (25, 6)) * mask[..., None, None]


def twins(sizes: ModelConfig = SIZES) -> tuple[MotionClip, SlowTwin]:
    """A model and its twin with the same weights, in float64 and evaluation mode."""
    torch.manual_seed(0)
    twin = SlowTwin(sizes).double().eval()
    return with_weights_of(twin, MotionClip(sizes).double().eval()), twin


def with_weights_of(twin: SlowTwin, model: MotionClip) -> MotionClip:
    """`model` with the twin's weights, and its position code in float64."""
    width = model.config.latent
    model.position = twin.code(models.LONGEST)
    with torch.no_grad():
        model.tokens.copy_(twin.tokens)
        for ours, theirs in ((model.embed, twin.embed), (model.final, twin.final)):
            ours.load_state_dict(theirs.state_dict())
        for stack, stock in ((model.encoder, twin.encoder.layers), (model.decoder, twin.decoder.layers)):
            for ours, theirs in zip(stack, stock, strict=True):
                ours.attention.qkv.weight.copy_(theirs.self_attn.in_proj_weight)
                ours.attention.qkv.bias.copy_(theirs.self_attn.in_proj_bias)
                ours.attention.out.load_state_dict(theirs.self_attn.out_proj.state_dict())
                ours.linear1.load_state_dict(theirs.linear1.state_dict())
                ours.linear2.load_state_dict(theirs.linear2.state_dict())
                ours.norm1.load_state_dict(theirs.norm1.state_dict())
                last = theirs.norm2 if stack is model.encoder else theirs.norm3
                ours.norm3.load_state_dict(last.state_dict())
                if stack is model.decoder:
                    ours.norm2.load_state_dict(theirs.norm2.state_dict())
                    ours.value.weight.copy_(theirs.multihead_attn.in_proj_weight[2 * width :])
                    ours.value.bias.copy_(theirs.multihead_attn.in_proj_bias[2 * width :])
                    ours.out.load_state_dict(theirs.multihead_attn.out_proj.state_dict())
    return model


def motion_and_mask(frames: int = 9, lengths: tuple[int, ...] = (9, 6, 1)):
    motion = torch.randn(len(lengths), frames, 25, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mask = torch.arange(frames) < torch.tensor(lengths)[:, None]
    return motion * mask[..., None, None], mask


@pytest.mark.parametrize("lengths", [(9, 9, 9), (9, 6, 1)])
def test_values_and_gradients_equal_the_slow_twin(lengths):
    model, twin = twins()
    motion, mask = motion_and_mask(lengths=lengths)
    ours = None if mask.all() else mask
    z, z_twin = model.encode(motion, ours), twin.encode(motion, mask)
    out, out_twin = model.decode(z, 9, ours), twin.decode(z_twin, mask)
    torch.testing.assert_close(z, z_twin, rtol=0, atol=1e-9)
    torch.testing.assert_close(out, out_twin, rtol=0, atol=1e-9)
    assert out.std() > 0.1
    for motion_found, z_found in ((out, z), (out_twin, z_twin)):
        (motion_found.square().sum() + z_found.sin().sum()).backward()
    pairs = [(model.embed, twin.embed), (model.final, twin.final)]
    for kind, stock in (("encoder", twin.encoder.layers), ("decoder", twin.decoder.layers)):
        for layer, theirs in zip(getattr(model, kind), stock, strict=True):
            assert_close(layer.attention.qkv.weight.grad, theirs.self_attn.in_proj_weight.grad)
            assert_close(layer.attention.qkv.bias.grad, theirs.self_attn.in_proj_bias.grad)
            pairs += [(layer.attention.out, theirs.self_attn.out_proj), (layer.linear1, theirs.linear1)]
            pairs += [(layer.linear2, theirs.linear2), (layer.norm1, theirs.norm1)]
    for ours, theirs in pairs:
        assert_close(ours.weight.grad, theirs.weight.grad)
        assert_close(ours.bias.grad, theirs.bias.grad)
    assert_close(model.tokens.grad, twin.tokens.grad)


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-9 of the largest entry."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * max(1.0, float(expected.abs().max())))


def test_cross_attention_on_one_vector_is_two_products():
    torch.manual_seed(1)
    stock = nn.MultiheadAttention(32, 4, batch_first=True).double()
    queries, z = torch.randn(3, 5, 32).double(), torch.randn(3, 32).double().requires_grad_()
    full, weight = stock(queries, z[:, None], z[:, None])
    value, bias = stock.in_proj_weight[64:], stock.in_proj_bias[64:]
    collapsed = stock.out_proj(z @ value.T + bias)[:, None].expand_as(full)
    assert torch.equal(weight, torch.ones_like(weight))
    torch.testing.assert_close(collapsed, full, rtol=0, atol=1e-12)
    (theirs,) = torch.autograd.grad(full.square().sum(), z, retain_graph=True)
    (ours,) = torch.autograd.grad(collapsed.square().sum(), z)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 4])
def test_weights_on_the_memory_are_those_that_multi_head_attention_drops(heads):
    # torch's own attention with its single weight of each head and frame set by hand: its formula, head by head.
    torch.manual_seed(1)
    layer = Layer(ModelConfig(latent=32, layers=1, heads=heads, feed_forward=8), memory=True).double()
    nn.init.normal_(layer.out.bias)
    z, weight = torch.randn(3, 32).double(), torch.randint(0, 2, (3, 5, heads)).double() / 0.9
    heads_BHD = layer.value(z).view(3, heads, -1)
    joined_BTC = torch.stack([(weight[:, t, :, None] * heads_BHD).flatten(1) for t in range(5)], dim=1)
    torch.testing.assert_close(layer.weighted(layer.value(z), weight), layer.out(joined_BTC), rtol=0, atol=1e-12)
    assert torch.equal(layer.told(z, 5, 0.0), layer.out(layer.value(z))[:, None])


def test_dropout_on_the_memory_has_the_spread_of_torchs():
    torch.manual_seed(2)
    stock = nn.MultiheadAttention(8, 2, dropout=0.3, batch_first=True)
    layer = Layer(ModelConfig(latent=8, layers=1, heads=2, feed_forward=8), memory=True)
    with torch.no_grad():
        stock.in_proj_weight[16:], stock.out_proj.weight[:] = layer.value.weight, layer.out.weight
        z = torch.randn(1, 8)
        many = z.expand(20_000, 8)[:, None]
        theirs, ours = stock(many, many, many)[0][:, 0], layer.told(z, 20_000, 0.3)[0]
        torch.testing.assert_close(ours.mean(0), theirs.mean(0), rtol=0, atol=0.02)
        torch.testing.assert_close(torch.cov(ours.T), torch.cov(theirs.T), rtol=0, atol=0.02)
        assert len(ours.unique(dim=0)) == 4  # two heads, each there or not
        assert ours.std(0).max() > 0.1


def test_first_weights_have_the_bounds_of_torchs_own_layers():
    # The release's layers are torch's: the bounds are read off those, not computed again.
    torch.manual_seed(3)
    ours = Layer(ModelConfig(latent=256, layers=1, heads=4, feed_forward=128), memory=True)
    theirs = nn.TransformerDecoderLayer(256, 4, 128)
    cross, attention = theirs.multihead_attn, theirs.self_attn
    pairs = [
        (ours.value.weight, cross.in_proj_weight[512:]),
        (ours.value.bias, cross.in_proj_bias[512:]),
        (ours.out.weight, cross.out_proj.weight),
        (ours.out.bias, cross.out_proj.bias),
        (ours.attention.qkv.weight, attention.in_proj_weight),
        (ours.attention.out.bias, attention.out_proj.bias),
        (ours.attention.out.weight, attention.out_proj.weight),
        (ours.attention.qkv.bias, attention.in_proj_bias),
        (ours.linear1.weight, theirs.linear1.weight),
        (ours.linear1.bias, theirs.linear1.bias),
        (ours.linear2.weight, theirs.linear2.weight),
        (ours.linear2.bias, theirs.linear2.bias),
        (ours.norm1.weight, theirs.norm1.weight),
        (ours.norm2.bias, theirs.norm2.bias),
    ]
    for found, expected in pairs:
        # A bound of numbers drawn evenly, by its largest of 128 to 200,000: within 5 percent.
        torch.testing.assert_close(found.abs().max(), expected.abs().max(), rtol=0.05, atol=0)


@pytest.mark.parametrize("copied", [False, True])
def test_layers_begin_as_copies_of_one_only_where_asked(copied):
    model = MotionClip(ModelConfig(**vars(SIZES) | {"copied_layers": copied}))
    for first, second, _ in (model.encoder, model.decoder):
        equal = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True) if a.ndim > 1]
        assert set(equal) == {copied}
        assert not {id(each) for each in first.parameters()} & {id(each) for each in second.parameters()}


@pytest.mark.parametrize("padded", [False, True])
def test_attention_equals_torchs_own(padded):
    generator = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(2, 3, 7, 8, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(3))
    keep = (torch.arange(7) < torch.tensor([[7], [4]]))[:, None, None] if padded else None
    found = attention(q, k, v, keep_B11T=keep, rate=0.0)
    expected = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=keep)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    ours = torch.autograd.grad(found.square().sum(), (q, k, v))
    theirs = torch.autograd.grad(expected.square().sum(), (q, k, v))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_one_item_of_a_batch_equals_that_item_alone():
    model, _ = twins()
    motion, mask = motion_and_mask()
    z = model.encode(motion, mask)
    out = model.decode(z, 9, mask)
    for item, frames in enumerate((9, 6, 1)):
        alone = motion[item : item + 1, :frames]
        torch.testing.assert_close(model.encode(alone)[0], z[item], rtol=0, atol=1e-10)
        torch.testing.assert_close(model.decode(z[item : item + 1], frames)[0], out[item, :frames], rtol=0, atol=1e-10)


def test_what_lies_in_padding_does_not_matter():
    model, _ = twins()
    motion, mask = motion_and_mask()
    other = torch.where(mask[..., None, None], motion, 7.0)
    torch.testing.assert_close(model.encode(other, mask), model.encode(motion, mask), rtol=0, atol=1e-12)
    assert (model.encode(other) - model.encode(motion)).abs().max() > 1e-3  # the control: unmasked, it does


def test_padded_frames_come_out_as_zero():
    model, _ = twins()
    _, mask = motion_and_mask()
    out = model.decode(torch.randn(3, 32, dtype=torch.float64), 9, mask)
    assert out[~mask].eq(0).all()
    assert out[mask].abs().min(0).values.max() > 0


def test_unit_latent_decodes_the_direction_only():
    model, _ = twins()
    unit, _ = twins(ModelConfig(**{**vars(SIZES), "unit_latent": True}))
    z = torch.randn(2, 32, dtype=torch.float64)
    torch.testing.assert_close(unit.decode(5 * z, 4), unit.decode(z, 4), rtol=0, atol=1e-12)
    torch.testing.assert_close(unit.decode(z, 4), model.decode(z / z.norm(dim=-1, keepdim=True), 4), rtol=0, atol=1e-12)
    assert (model.decode(5 * z, 4) - model.decode(z, 4)).abs().max() > 1e-3


def test_dropout_is_off_in_evaluation_and_at_rate_zero():
    sizes = ModelConfig(latent=32, layers=1, heads=4, feed_forward=48, dropout=0.5)
    torch.manual_seed(0)
    model, motion = MotionClip(sizes), torch.randn(2, 6, 25, 6)
    model.eval()
    assert torch.equal(model.encode(motion), model.encode(motion))
    model.train()
    assert not torch.equal(model.encode(motion), model.encode(motion))


def test_position_code_is_sine_and_cosine_of_the_frame():
    code = position_code(8)
    assert code.shape == (models.LONGEST, 8)
    expected = [f(3 / 10000 ** (pair / 4)) for pair in range(4) for f in (math.sin, math.cos)]
    torch.testing.assert_close(code[3], torch.tensor(expected))


def test_more_frames_than_the_code_has_are_refused():
    model = MotionClip(SIZES)
    with pytest.raises(ValueError, match="5001 frames asked for, at most 5000"):
        model.decode(torch.zeros(1, 32), 5001)


def test_the_papers_model_has_the_releases_size_without_what_never_matters():
    count = sum(each.numel() for each in MotionClip(ModelConfig(latent=512)).parameters())
    queries_and_keys = 8 * (2 * 512 * 512 + 2 * 512)
    assert count + queries_and_keys + 512 == 42_213_526  # 512: the release's action biases
