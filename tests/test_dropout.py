import pytest
import torch

from mclip.training.model.dropout import add_dropped, dropout, hashed_mask

# As a CPU draws a mask, and as a compiled step on any device does.
WAYS = [dropout, lambda x, rate: x * hashed_mask(x, rate)]


@pytest.mark.parametrize("drop", WAYS)
@pytest.mark.parametrize("rate", [0.03, 0.1, 0.5])
def test_dropout_takes_its_share_and_keeps_the_mean(rate, drop):
    torch.manual_seed(4)
    x = torch.ones(1_000_003, requires_grad=True)
    out = drop(x, rate)
    dropped = (out == 0).float().mean().item()
    assert abs(dropped - rate) < 4 * (rate * (1 - rate) / len(x)) ** 0.5  # four standard deviations
    assert abs(out.mean().item() - 1) < 4 * (rate / (1 - rate) / len(x)) ** 0.5
    assert out[out != 0].std() < 1e-6
    assert out.amax().item() == pytest.approx(1 / (1 - rate), rel=1e-4)
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], out.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_every_float_has_the_same_numbers_dropped(dtype):
    found = []
    for kind in (torch.float32, dtype):
        torch.manual_seed(1)
        found.append(dropout(torch.ones(3, 7, 1111, dtype=kind), 0.25))
    assert found[1].dtype == dtype
    torch.testing.assert_close(found[1].float(), found[0], rtol=4e-3 if dtype.itemsize == 2 else 1e-6, atol=0)
    assert 0.2 < (found[0] == 0).float().mean() < 0.3


@pytest.mark.parametrize("drop", WAYS)
def test_torchs_seed_decides_and_each_call_draws_anew(drop):
    x = torch.ones(10_000)
    torch.manual_seed(2)
    first, second = drop(x, 0.5), drop(x, 0.5)
    torch.manual_seed(2)
    assert torch.equal(drop(x, 0.5), first)
    assert abs((first != second).float().mean().item() - 0.5) < 0.03
    for lag in (1, 2, 4, 512, 2048):  # neighbours are strangers
        same = (first[lag:] == first[:-lag]).float().mean().item()
        assert abs(same - 0.5) < 0.03, lag


def test_a_hash_of_places_is_as_good_as_chance_over_many_seeds():
    torch.manual_seed(5)
    x = torch.empty(500, 512)
    dropped_N = torch.stack([(hashed_mask(x, 0.1) == 0).flatten().float() - 0.1 for _ in range(30)])
    deviation = 0.1 * 0.9
    strange = [dropped_N.mean() / (deviation / dropped_N.numel()) ** 0.5]
    for lag in (1, 2, 3, 16, 32, 512, 1024):  # along a row, and from row to row
        strange.append((dropped_N[:, lag:] * dropped_N[:, :-lag]).mean() * dropped_N.numel() ** 0.5 / deviation)
    strange.append((dropped_N[1:] * dropped_N[:-1]).mean() * dropped_N.numel() ** 0.5 / deviation)
    assert max(abs(float(each)) for each in strange) < 4  # standard deviations


def test_numbers_that_do_not_lie_in_a_row_are_dropped_by_their_place():
    x = torch.arange(1.0, 31).view(5, 6).T
    torch.manual_seed(3)
    found = dropout(x, 0.5)
    assert torch.equal((found / x).unique(), torch.tensor([0.0, 2.0]))
    assert found.shape == (6, 5)
    torch.manual_seed(3)
    assert torch.equal(dropout(x.contiguous(), 0.5), found)


def test_rate_zero_is_nothing():
    x = torch.randn(5)
    assert dropout(x, 0.0) is x


@pytest.mark.parametrize("wide", [True, False])
def test_a_dropped_branch_is_added_as_by_hand(wide):
    generator = torch.Generator().manual_seed(4)
    x, branch = (
        torch.randn(2, frames, 8, generator=generator, dtype=torch.float64) for frames in (5, 5 if wide else 1)
    )
    x.requires_grad_()
    branch.requires_grad_()
    pair = []
    for add in (add_dropped, lambda x, branch, rate: x + dropout(branch.expand_as(x), rate)):
        torch.manual_seed(5)
        pair.append(add(x, branch, 0.3))
    torch.testing.assert_close(*pair, rtol=0, atol=1e-12)
    assert not torch.equal(pair[0], x + branch)
    ours, theirs = (torch.autograd.grad(each.square().sum(), (x, branch)) for each in pair)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert torch.equal(add_dropped(x, branch, 0.0), x + branch)
