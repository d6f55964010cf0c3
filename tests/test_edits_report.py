"""Edits and ways in the latent space: on spaces whose answer is known by hand, and against loops."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mclip.pipeline.embed.vectors import vectors_by_text
from mclip.pipeline.store.store import Store
from mclip.training.data.crops import crops_of
from mclip.training.evaluate import edits_report as arithmetic
from mclip.training.measure.reconstruction import reconstruct
from mclip.training.measure.statistics import figures_of
from mclip.training.model.run import Run

BASES = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
EDITS = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))


def consistency(back: arithmetic.Back, edits: torch.Tensor = EDITS) -> dict[str, float]:
    return figures_of(arithmetic.edit_consistency(back, BASES, edits))


def test_a_space_that_keeps_what_is_added_is_consistent_and_a_collapsed_one_is_not() -> None:
    assert consistency(lambda z: z) == pytest.approx({"direction": 1, "agreement": 1})
    assert consistency(lambda z: 3 * z + 1) == pytest.approx({"direction": 1, "agreement": 1}, abs=1e-5)
    assert consistency(lambda z: torch.ones_like(z)) == {"direction": 0, "agreement": 0}


def test_a_space_that_answers_every_edit_in_one_wrong_way_agrees_without_direction() -> None:
    turned = consistency(lambda z: z @ torch.tensor(np.roll(np.eye(6), 1, axis=0), dtype=torch.float32), torch.eye(6))
    assert turned == pytest.approx({"direction": 0, "agreement": 1})


def test_an_edit_that_turns_round_with_the_base_has_no_agreement() -> None:
    # Two bases on either side of zero; the space mirrors whatever lies on the negative side.
    bases = torch.tensor([[5.0, 0], [-5.0, 0]])
    found = arithmetic.edit_consistency(lambda z: z[:, :1].sign() * z, bases, torch.tensor([[1.0, 0]]))
    assert figures_of(found) == {"direction": 0, "agreement": -1}


def test_consistency_is_what_loops_over_bases_and_edits_find() -> None:
    weight = torch.randn(6, 6, generator=torch.Generator().manual_seed(2))
    back = lambda z: torch.tanh(z @ weight)  # noqa: E731
    direction, agreement = [], []
    for edit in EDITS:
        effects = [back((base + edit)[None])[0] - back(base[None])[0] for base in BASES]
        direction += [float(F.cosine_similarity(effect, edit, dim=0)) for effect in effects]
        agreement.append(
            np.mean(
                [
                    float(F.cosine_similarity(effects[i], effects[j], dim=0))
                    for i in range(5)
                    for j in range(5)
                    if i != j
                ]
            )
        )
    assert consistency(back) == pytest.approx(
        {"direction": np.mean(direction), "agreement": np.mean(agreement)}, abs=1e-5
    )


def way(*places: float) -> torch.Tensor:
    """A way (1, N, T, 24, 3) of motions whose joints swing along x by cubics of time, and stand at y = place."""
    joints = torch.zeros(1, len(places), 8, 24, 3, dtype=torch.float64)
    joints[..., 0] = (torch.arange(8, dtype=torch.float64) ** 3 / 100)[:, None]
    joints[..., 1] = torch.tensor(places, dtype=torch.float64)[:, None, None]
    return joints


def test_an_even_way_a_jump_and_a_detour_are_told_apart() -> None:
    even = figures_of(arithmetic.smoothness(way(0, 0.1, 0.2, 0.3), fps=30.0))
    assert even == pytest.approx({"step_mm": 100, "largest_step": 1, "detour": 1, "jerk": 1})
    jump = figures_of(arithmetic.smoothness(way(0, 0, 0, 0.3), fps=30.0))
    assert (jump["largest_step"], jump["detour"]) == pytest.approx((3, 1))
    detour = figures_of(arithmetic.smoothness(way(0, 0.6, 0.9, 0.3), fps=30.0))
    assert detour["detour"] == pytest.approx((0.6 + 0.3 + 0.6) / 0.3)


def test_motions_that_shake_between_calm_ends_are_seen_in_the_jerk() -> None:
    joints = way(0, 0.1, 0.2)
    joints[:, 1, :, :, 0] *= 5
    assert figures_of(arithmetic.smoothness(joints, fps=30.0))["jerk"] == pytest.approx(5)


def test_smoothness_is_what_a_loop_over_ways_finds() -> None:
    joints = torch.randn(3, 4, 6, 24, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = arithmetic.smoothness(joints, fps=10.0)
    for item, motions in enumerate(joints.numpy()):
        steps = [np.linalg.norm(b - a, axis=-1).mean() for a, b in zip(motions[:-1], motions[1:], strict=True)]
        third = [np.linalg.norm(np.diff(each, n=3, axis=0), axis=-1).mean() for each in motions]
        assert found["step_mm"].values[item] == pytest.approx(1000 * np.mean(steps))
        assert found["largest_step"].values[item] == pytest.approx(max(steps) / np.mean(steps))
        ends = np.linalg.norm(motions[-1] - motions[0], axis=-1).mean()
        assert found["detour"].values[item] == pytest.approx(sum(steps) / ends)
        assert found["jerk"].values[item] == pytest.approx(np.mean(third[1:-1]) / np.mean([third[0], third[-1]]))


def test_pairs_are_of_different_numbers_and_of_their_seed() -> None:
    found = arithmetic.pairs(5, 200, np.random.default_rng(0))
    assert len(found) == len(set(found)) == 20  # all there are
    assert all(a != b for a, b in found)
    assert found == arithmetic.pairs(5, 200, np.random.default_rng(0))


def test_a_trained_run_is_measured_and_a_single_text_is_not(run: Run, store: Store) -> None:
    z = reconstruct(run.model, crops_of(run, store, "train")).z_WC
    texts = np.stack([*vectors_by_text(store, "offline").values()])
    found = figures_of(arithmetic.arithmetic(run, z, texts))
    assert -1 <= found["disentanglement"]["direction"] <= 1
    assert found["interpolation"]["detour"] >= 1 - 1e-5
    assert found == figures_of(arithmetic.arithmetic(run, z, texts))
    assert arithmetic.arithmetic(run, z, texts[[0, 0]]) == {}
