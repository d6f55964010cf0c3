"""Texts that are carried to where motions lie, and what seeds and the mean of the motions do there."""

import pytest
import torch
from torch.nn import functional as F

from mclip.training.latent import span
from mclip.training.latent.prompts import generated
from mclip.training.latent.space import latent, text_latent, vectors_of
from mclip.training.model.run import Run


def two_kinds() -> torch.Tensor:
    """Training z of lengths of their own: ten motions about one axis of 8, ten about another, in the first four."""
    generator = torch.Generator().manual_seed(0)
    z = 0.05 * torch.randn(20, 8, generator=generator)
    z[:, 4:] = 0
    z[:10, 0] += 1
    z[10:, 1] += 1
    return z * torch.linspace(0.5, 3, 20)[:, None]


def test_a_text_far_from_all_motions_ends_in_their_span_with_one_kind() -> None:
    far = torch.tensor([[0.05, 0.04, 0, 0, 1.0, 1, 1, 1]])  # nearly as near to one kind as to the other
    found = span.carried(far, two_kinds())[0]
    assert found[4:].abs().max() < 1e-6
    assert found.norm().item() == pytest.approx(1)
    assert found[0] > 0.98  # the plain softmax over cosines would be between the two
    between = F.normalize((far @ F.normalize(two_kinds(), dim=1).T / span.SHARP).softmax(-1) @ two_kinds(), dim=-1)
    assert between[0, 1] > 0.3


def test_a_motion_that_is_a_training_motion_stays_nearly_where_it_is() -> None:
    z = torch.eye(6)
    assert torch.allclose(span.carried(3 * z, z), z, atol=1e-3)


def test_the_length_of_texts_and_of_training_z_does_not_matter() -> None:
    text, z = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(span.carried(text, z), span.carried(7 * text, 0.2 * z), atol=1e-5)


def test_one_training_motion_is_all_that_can_be_decoded() -> None:
    far = torch.eye(8)[:3]
    found = span.carried(far, torch.ones(1, 8))
    assert torch.allclose(found, F.normalize(torch.ones(1, 8)).expand(3, 8))


def test_a_text_that_lies_where_motions_lie_stays_as_it_is() -> None:
    z = torch.eye(8)[:4]
    # A walk in a manner that only runs had: near to both, and to put it to either would lose one of them.
    walks_old = F.normalize(torch.tensor([[1.0, 0.2, 0, 0, 0.3, 0, 0, 0]]))
    assert (walks_old @ z.T).max() > span.NEAR
    assert torch.allclose(span.carried(walks_old, z), walks_old, atol=1e-6)
    angles = torch.linspace(0, torch.pi / 2, 50)
    way = torch.stack((angles.cos(), angles.sin()), 1) @ torch.eye(8)[[0, 7]]
    kept = span.carried(way, z) @ torch.eye(8)[7]
    assert (kept[way[:, 0] < span.FAR] < 1e-6).all()
    assert (kept[way[:, 0] > span.NEAR] - way[way[:, 0] > span.NEAR, 7]).abs().max() < 1e-6
    assert (kept - kept.roll(1))[1:].abs().max() < 0.25  # no jump between the two


def test_where_texts_are_told_a_text_becomes_the_one_motion_that_carries_it() -> None:
    z, told = two_kinds(), torch.zeros(20, 8)
    told[:, 7] = 1
    told[3], told[12] = torch.eye(8)[5], torch.eye(8)[5] + 0.3 * torch.eye(8)[6]
    walk = F.normalize(torch.eye(8)[5] + 0.02 * torch.eye(8)[1], dim=0)[None]  # nearer to the z of the other kind
    assert (walk @ F.normalize(z, dim=1).T).argmax() >= 10
    assert torch.allclose(span.carried(walk, z, told), F.normalize(z[3:4], dim=1))  # one motion, no mean of several
    at = torch.stack([span.Chance.of(["walk"], 20, seed=seed, share=0.5).reach_NM[0] for seed in range(50)])
    led = [span.carried(walk, z, told, chance=span.Chance(reach[None], torch.zeros(1, 20))) for reach in at]
    found = {int((each @ F.normalize(z, dim=1).T).argmax()) for each in led}
    assert found == {3, 12}  # a seed takes another that carries it, and none that does not


def test_a_seed_leads_to_the_same_place_whatever_else_is_asked_for() -> None:
    alone, beside, other = (
        span.Chance.of(texts, 9, seed=seed, share=0.5)
        for texts, seed in ((["walk"], 1), (["run", "walk"], 1), (["walk"], 2))
    )
    assert torch.equal(beside.reach_NM[1:], alone.reach_NM)
    assert torch.equal(beside.lead_NM[1:], alone.lead_NM)
    assert not torch.equal(other.reach_NM, alone.reach_NM)
    assert torch.allclose(span.Chance.of(["walk"], 9, seed=1, share=1.0).lead_NM, 2 * alone.lead_NM)


def test_seeds_draw_the_motions_near_a_text_about_as_often_as_they_are_near() -> None:
    """The largest of cosine / s with standard Gumbel noise is a draw from softmax(cosine / s) (Gumbel 1954)."""
    z = F.normalize(torch.tensor([[1.0, 0.5], [1, 0.58], [0.2, 1]]), dim=1)
    score = F.normalize(torch.tensor([[1.0, 0.45]])) @ z.T
    noise = torch.cat([span.Chance.of(["a"], 3, seed=seed, share=0.5).reach_NM for seed in range(2000)])
    share = torch.bincount((score + noise).argmax(1), minlength=3) / 2000
    assert torch.allclose(share, (score[0] / (0.5 * span.REACH)).softmax(-1), atol=0.04)
    assert share[1] > 0.2


def test_seeds_lead_as_far_as_motions_lie_about_their_mean() -> None:
    z = F.normalize(torch.randn(50, 8, generator=torch.Generator().manual_seed(2)) * torch.arange(1, 9), dim=1)
    lead = torch.cat([span.Chance.of(["a"], 50, seed=seed, share=1.0).lead_NM for seed in range(4000)])
    led = lead @ (z - z.mean(0)) / span.LEAD
    assert torch.allclose(led.std(0), z.std(0, correction=0), rtol=0.05)


def test_a_run_carries_texts_by_default_and_plainly_when_asked(run: Run) -> None:
    assert run.z_NC is not None
    assert run.z_NC.shape == (3, 384)
    texts = ["a person walks", "a cup of tea"]
    vectors = vectors_of(run, texts)
    plain = vectors_of(run, texts, plain=True)
    encoded = run.load_encoder().encode_texts(texts)
    assert torch.allclose(plain, latent(run, encoded))
    assert torch.allclose(vectors, latent(run, span.carried(encoded, run.z_NC)))
    assert torch.allclose(vectors.norm(dim=1), plain.norm(dim=1))
    outside = vectors - vectors @ torch.linalg.pinv(run.z_NC) @ run.z_NC
    best = (F.normalize(encoded, dim=1) @ F.normalize(run.z_NC, dim=1).T).amax(1)
    assert best[1] < span.FAR
    assert outside[1].norm() < 1e-3 * run.z_length


def test_a_run_without_kept_z_decodes_texts_plainly(run: Run) -> None:
    from dataclasses import replace

    older = replace(run, z_NC=None)
    text = torch.randn(2, 384)
    assert torch.equal(text_latent(older, text), latent(run, text))


def test_seeds_stay_in_the_span_and_no_seed_is_the_text_itself(run: Run) -> None:
    (alone,) = generated(run, ["kick"], [])
    assert torch.allclose(torch.from_numpy(alone.vector_C), vectors_of(run, ["kick"])[0])
    many = generated(run, ["kick", "walk"], [1, 2, 3], share=5.0)
    assert [prompt.title for prompt in many[:4]] == ["kick (seed 1)", "kick (seed 2)", "kick (seed 3)", "walk (seed 1)"]
    made = torch.stack([torch.from_numpy(prompt.vector_C) for prompt in many])
    assert (made - made @ torch.linalg.pinv(run.z_NC) @ run.z_NC).norm(dim=1).max() < 1e-3 * run.z_length
    assert len({prompt.vector_C.tobytes() for prompt in many[:3]}) == 3
    outside = generated(run, ["kick"], [1], plain=True)[0].vector_C
    assert torch.from_numpy(outside).norm() > 0


def test_what_all_motions_have_in_common_names_none() -> None:
    z = torch.tensor([[3.0, 1, 0], [3, 0, 1], [3, -1, -1]])
    found = span.centred(z, z)
    assert torch.allclose(found.sum(0), torch.zeros(3), atol=1e-6)
    assert torch.equal(span.centred(z, None), F.normalize(z, dim=1))
