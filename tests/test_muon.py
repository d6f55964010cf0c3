"""Muon in blocks of rows: against torch's Muon, against singular values, and in what it must leave alone."""

import pytest
import torch

from mclip.training.train.muon import ROWS, Muon, blocks_of


def taken(weights: list[torch.nn.Parameter], steps: int = 1, *, rate: float = 0.1, decay: float = 0.0, held: float = 0):
    """What seeded gradients make of weights."""
    rate_0 = torch.tensor(rate, dtype=torch.float64)
    optimizer = Muon(weights, rate_0, decay, torch.tensor(held))
    torch.manual_seed(1)
    for _ in range(steps):
        for each in weights:
            each.grad = torch.randn_like(each)
        optimizer.step()
    return [each.detach() for each in weights]


def parameters(*sizes: tuple[int, int]) -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(size)) for size in sizes]


def test_blocks_divide_the_rows_and_share_their_numbers():
    for rows, sizes in ((1536, (24, 64)), (96, (3, 32)), (100, (25, 4)), (7, (7, 1))):
        matrix = torch.zeros(rows, 5)
        blocks = blocks_of(matrix)
        assert blocks.shape == (*sizes, 5)
        blocks[-1, -1] = 1
        assert matrix[-1].eq(1).all()
        assert matrix.sum() == 5


def test_each_block_is_moved_as_torchs_muon_moves_a_weight_of_its_own():
    sizes, steps = ((192, 96), (64, 200), (100, 40)), 3
    ours = taken(parameters(*sizes), steps, decay=0.1)
    apart = parameters(*sizes)
    own = [torch.nn.Parameter(block.clone()) for each in apart for block in blocks_of(each.detach())]
    theirs = torch.optim.Muon(own, lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    torch.manual_seed(1)
    for _ in range(steps):
        gradients = [block for each in apart for block in blocks_of(torch.randn_like(each))]
        for block, gradient in zip(own, gradients, strict=True):
            block.grad = gradient.clone()
        theirs.step()
    for found, block in zip([block for each in ours for block in blocks_of(each)], own, strict=True):
        # torch's iterates in bfloat16, of eight bits
        assert (found - block).norm() < 0.02 * found.norm()
        assert not torch.equal(found, block)


def test_a_step_moves_all_directions_of_a_block_alike():
    before = parameters((128, 256))[0].detach().clone()
    after = taken(parameters((128, 256)), rate=1.0)[0]
    for block in blocks_of(before - after):
        values = torch.linalg.svdvals(block) / (0.2 * 256**0.5)
        assert values.min() > 0.65
        assert values.max() < 1.25


def test_weight_decay_draws_towards_zero_by_its_share():
    plain, drawn = (taken(parameters((64, 64)), decay=decay)[0] for decay in (0.0, 0.5))
    start = parameters((64, 64))[0].detach()
    torch.testing.assert_close(plain - drawn, 0.1 * 0.5 * start, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, 0.0])
def test_a_step_that_is_held_moves_no_weight(wrong):
    weights = parameters((ROWS, 32))
    optimizer = Muon(weights, torch.tensor(0.1), 0.5, torch.tensor(1.0))
    weights[0].grad = torch.full_like(weights[0], wrong)
    optimizer.step()
    assert torch.equal(weights[0], parameters((ROWS, 32))[0])


def test_no_gradient_at_all_moves_nothing_and_tears_nothing():
    weights = parameters((ROWS, 32))
    weights[0].grad = torch.zeros_like(weights[0])
    Muon(weights, torch.tensor(0.1), 0.0, torch.tensor(0.0)).step()
    assert torch.equal(weights[0], parameters((ROWS, 32))[0])
