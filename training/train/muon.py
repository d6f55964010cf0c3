"""Muon in blocks of rows: momentum whose steps move every direction of a block alike.

Muon (Jordan et al. 2024) makes the step of a whole matrix orthogonal, which takes products that do not shrink with the
batch: at a batch of 8 four times the model's own. Here each block of rows is made orthogonal by itself, as if it were
a weight of its own, and through its Gram matrix: as (a + b G + c G^2) X is what one iteration makes of X, with
G = X X^T, all iterations are products of small square matrices, and only the first and the last touch the weights.
"""

# N blocks, R rows of a block, C columns

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

ROWS = 64  # at most, of a block
ITERATIONS = 5
COEFFICIENTS = 3.4445, -4.7750, 2.0315  # Jordan et al. 2024: singular values come to lie in 0.68 to 1.13
MOMENTUM = 0.95
AS_ADAMW = 0.2  # root mean square of AdamW's steps over its rate (Liu et al. 2025, eq. 4)


def blocks_of(matrix: Float[Tensor, "all C"]) -> Float[Tensor, "N R C"]:
    """The matrix as blocks of rows, as many as divide it and not over 64; no number is copied."""
    return matrix.view(-1, math.gcd(len(matrix), ROWS), matrix.shape[1])


def whitening(gram_NRR: Float[Tensor, "N R R"]) -> Float[Tensor, "N R R"]:
    """What makes blocks X of these Gram matrices X X^T orthogonal: (X X^T)^(-1/2) roughly, by Newton's iteration."""
    trace_N11 = gram_NRR.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None].clamp(min=1e-14)
    gram_NRR = gram_NRR / trace_N11
    factor_NRR = polynomial(gram_NRR)
    product_NRR = factor_NRR * trace_N11.rsqrt()
    for _ in range(ITERATIONS - 1):
        gram_NRR = factor_NRR @ gram_NRR @ factor_NRR
        factor_NRR = polynomial(gram_NRR)
        product_NRR = factor_NRR @ product_NRR
    return product_NRR


def polynomial(gram_NRR: Float[Tensor, "N R R"]) -> Float[Tensor, "N R R"]:
    """a + b G + c G^2 of Gram matrices."""
    a, b, c = COEFFICIENTS
    found_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
    found_NRR.diagonal(dim1=1, dim2=2).add_(a)
    return found_NRR


class Muon(torch.optim.Optimizer):
    """Muon for matrices, in blocks of rows; its steps are as long as AdamW's, so that both have one learning rate.

    Like torch's fused AdamW it reads its learning rate, and whether to hold (`found_inf` is not 0), from the device.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: Tensor, weight_decay: float, found_inf: Tensor):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self.found_inf = found_inf

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step against the gradients."""
        held = self.found_inf > 0
        for group in self.param_groups:
            weights = [each for each in group["params"] if each.grad is not None]
            ahead = [each.masked_fill_(held, 0) for each in self.ahead(weights)]
            move(weights, ahead, group["lr"].float().masked_fill(held, 0), group["weight_decay"])

    def ahead(self, weights: list[nn.Parameter]) -> list[Tensor]:
        """Nesterov's momentum of the weights, which takes the place of their gradients."""
        for each in weights:
            if not self.state[each]:
                self.state[each]["momentum_buffer"] = torch.zeros_like(each)
        gradients = [each.grad for each in weights if each.grad is not None]
        momenta = [self.state[each]["momentum_buffer"] for each in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        torch._foreach_lerp_(gradients, momenta, MOMENTUM)  # new memory for as many numbers takes eight times as long
        return gradients


def move(weights: list[nn.Parameter], ahead: list[Tensor], rate: Tensor, decay: float) -> None:
    """Move weights against their momentum; blocks of as many rows are made orthogonal together, in few products."""
    by_rows: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for weight, each in zip(weights, ahead, strict=True):
        ahead_NRC = blocks_of(each)
        by_rows.setdefault(ahead_NRC.shape[1], []).append((blocks_of(weight), ahead_NRC))
    for pairs in by_rows.values():
        gram_NRR = torch.cat([ahead_NRC @ ahead_NRC.mT for _, ahead_NRC in pairs])
        white = whitening(gram_NRR).split([len(ahead_NRC) for _, ahead_NRC in pairs])
        for (weight_NRC, ahead_NRC), white_NRR in zip(pairs, white, strict=True):
            length = rate * AS_ADAMW * max(ahead_NRC.shape[1:]) ** 0.5
            weight_NRC.mul_(1 - rate * decay).baddbmm_(white_NRR * length, ahead_NRC, alpha=-1)
