from dataclasses import dataclass, field, replace

import pytest
import torch

from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.store.store import Store
from mclip.training.data.crops import Batch, Crops, load_crops
from mclip.training.data.feed import PURPOSES, Feed, Order, seed_of
from mclip.training.model import losses
from mclip.training.model.config import TERMS, ModelConfig, TrainConfig
from mclip.training.model.network import MotionClip
from mclip.training.model.run import RunError
from mclip.training.train.step import Chance, Guard, Learner, decoder_input, loss_terms, rebuilt, vertex_loss_of
from mclip.training.train.workers import Workers, require_one_kind

CPU = torch.device("cpu")
SIZES = ModelConfig(latent=384, layers=1, feed_forward=32, dropout=0.1)


def test_the_guard_holds_the_weights_until_somebody_asks(store):
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=True)
    guard = Guard(CPU)
    optimizer.found_inf = guard.halted
    fine = dict.fromkeys(TERMS, torch.tensor(1.0))
    broken = fine | {"velocity": torch.tensor(torch.inf)}
    after = []
    for step, (terms, norm) in enumerate([(fine, 1.0), (broken, torch.inf), (fine, 1.0)]):
        parameter.grad = torch.ones(3)
        guard.watch(torch.tensor(float(step)), terms, torch.tensor(norm))
        optimizer.step()
        after.append(parameter.detach().clone())
    assert not torch.equal(after[0], torch.ones(3))
    assert torch.equal(after[1], after[0])
    assert torch.equal(after[2], after[0])  # later steps are finite, and still held: the model stays as it was
    crops = load_crops(store, split="train", encoder="offline", target="label", device=CPU)
    with pytest.raises(RunError, match="step 1: velocity not finite"):
        guard.check(crops, Order(torch.arange(len(crops)), 2, 0, CPU))


def terms_of(store: Store, **options) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The losses of one batch by one seeded model in evaluation mode, and the gradient of their sum."""
    config = TrainConfig(**{"precision": "float32", "places_weight": 1.0, **options})
    crops = load_crops(store, split="train", encoder="offline", target="label", device=CPU)
    torch.manual_seed(0)
    model = MotionClip(SIZES).eval()
    loss = losses.ClosedFormLoss(load_body("low"))
    batch = crops.middle(torch.arange(len(crops)))
    chance = Chance.draw(batch, SIZES.latent, config, torch.Generator())
    terms = loss_terms(*rebuilt(model, batch, config, chance), batch, loss, config)
    sum(terms.values()).backward()
    return terms, model.embed.weight.grad


def test_bfloat16_gives_the_losses_of_float32_nearly(store):
    (exact, gradient), (rounded, other) = (terms_of(store, precision=each) for each in ("float32", "bfloat16"))
    for term in exact:
        bound = 2e-2 if term in ("steps", "feet") else 1e-2  # differences of near places: rounding weighs more
        assert rounded[term].item() == pytest.approx(exact[term].item(), rel=bound), term
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), other.flatten(), dim=0) > 0.99


def test_the_clip_loss_is_the_one_that_was_asked_for(store):
    found = {kind: terms_of(store, clip_loss=kind)[0]["text"].item() for kind in losses.CLIP_LOSSES}
    assert len(set(found.values())) == 3
    assert 0.5 < found["cosine"] < 1.5


def learner_of(*, device: torch.device = CPU, **options) -> Learner:
    config = TrainConfig(**{"batch": 2, "precision": "float32"} | options)
    loss = losses.ClosedFormLoss(load_body("low").to(device))
    return Learner(config, SIZES, vertex_loss=loss, steps=10, device=device, workers=Workers())


def feed_of(store: Store, *, device: torch.device = CPU, **options) -> Feed:
    crops = load_crops(store, split="train", encoder="offline", target="label", device=device)
    return Feed(crops, store.strings("texts"), TrainConfig(batch=2, **options), device)


def take(learner: Learner, feed: Feed, step: int) -> torch.Tensor:
    """The total loss of a step that is taken."""
    learner.begin(step)
    return learner.learn(feed(step))[0]["total"]


def test_the_moving_average_is_the_mean_of_the_weights_that_were(store):
    learner, feed = learner_of(ema=0.9), feed_of(store)
    assert learner.eval_model is learner.average
    expected = learner.model.embed.weight.detach().clone()
    for step in range(12):
        take(learner, feed, step)
        stays = min(0.9, (1 + step) / (10 + step))
        expected = stays * expected + (1 - stays) * learner.model.embed.weight.detach()
    torch.testing.assert_close(learner.average.embed.weight, expected, rtol=0, atol=1e-6)
    assert (expected - learner.model.embed.weight).abs().max() > 1e-4
    assert not learner.average.training
    assert learner_of().eval_model.training


def test_keeping_an_average_changes_no_weight(store):
    pair = [learner_of(ema=share) for share in (0.0, 0.9)]
    for learner in pair:
        feed = feed_of(store)
        for step in range(3):
            take(learner, feed, step)
    ours, theirs = (learner.model.state_dict() for learner in pair)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_step_draws_the_same_batch_whatever_was_before(store):
    options = {"mirror": 0.5, "yaw": 90.0, "speed": 0.2}
    walked, fresh = feed_of(store, **options), feed_of(store, **options)
    seen = [walked(step) for step in range(4)]
    assert torch.equal(fresh(3).motion_BTRD, seen[3].motion_BTRD)
    assert torch.equal(fresh(1).text_BC, seen[1].text_BC)
    plain = feed_of(store)(3)
    assert torch.equal(plain.window_B, seen[3].window_B)
    assert not torch.equal(plain.motion_BTRD, seen[3].motion_BTRD)


def test_the_vertex_loss_is_the_one_that_was_asked_for(store):
    body, motion = load_body("low"), feed_of(store)(0)
    rot6d, mask = motion.motion_BTRD[:, :, :24], motion.mask_BT & motion.mask_BT.flip(1)
    found = {}
    for kind in ("closed-form", "full", "subset"):
        config = TrainConfig(vertex_loss=kind, vertex_subset=100)
        loss = vertex_loss_of(config, body, torch.Generator().manual_seed(0))
        found[kind] = [float(loss(rot6d, rot6d.flip(1), mask)) for _ in range(2)]
    assert found["closed-form"][0] == found["closed-form"][1] == pytest.approx(found["full"][0], rel=1e-4)
    assert found["subset"][0] != found["subset"][1]
    assert found["subset"] == pytest.approx(found["full"], rel=0.3)
    whole = vertex_loss_of(TrainConfig(vertex_loss="subset", vertex_subset=10**6), body, torch.Generator())
    assert float(whole(rot6d, rot6d.flip(1), mask)) == pytest.approx(found["full"][0], rel=1e-5)


@dataclass
class Recorded(Crops):
    """Crops that remember by what chance each was cut and got its label."""

    drawn: list[torch.Tensor] = field(default_factory=list)

    def gather(self, item_B: torch.Tensor, shift_B: torch.Tensor, chance_B: torch.Tensor) -> Batch:
        self.drawn.append(torch.stack((shift_B.float(), chance_B)))
        return super().gather(item_B, shift_B, chance_B)


def drawn_in(store: Store, steps: int) -> torch.Tensor:
    """Shift, label, whether the text is decoded, and the amount of noise, of every crop of so many steps (4, N)."""
    crops = load_crops(store, split="train", encoder="offline", target="label", device=CPU)
    long = replace(
        crops,
        **{
            name: getattr(crops, name)[crops.frames > crops.crop + 20]
            for name in ("window", "row", "frames", "own_frames", "labelset", "image", "has_image")
        },
    )
    config = TrainConfig(batch=4, text_decoding=0.3, latent_noise=0.8, precision="float32")
    recorded = Recorded(**vars(long))
    feed, learner, decoded = Feed(recorded, store.strings("texts"), config, CPU), learner_of(), []
    for step in range(steps):
        batch = feed(step)
        learner.begin(step)
        chance = Chance.draw(batch, 384, config, learner.generator)
        z_BC = torch.eye(384)[:4]  # no text's direction
        noisy = decoder_input(z_BC, batch, replace(config, text_decoding=0.0), chance)
        mixed = decoder_input(z_BC, batch, config, chance._replace(noise_BC=None))
        decoded.append(torch.stack(((mixed != z_BC).any(1).float(), (noisy - z_BC).norm(dim=1))))
    return torch.cat((torch.cat(recorded.drawn, 1), torch.cat(decoded, 1)))


def test_shift_label_mask_and_amount_of_noise_know_nothing_of_one_another(store):
    drawn = drawn_in(store, 1000)
    assert drawn.shape == (4, 4000)
    assert drawn[2].mean().item() == pytest.approx(0.3, abs=0.03)
    off_diagonal = torch.corrcoef(drawn) - torch.eye(4)
    # The standard deviation of a correlation of 4,000 independent pairs is 0.016. With one stream for all they were 1.
    assert off_diagonal.abs().max() < 0.06


def test_where_middle_crops_are_drawn_only_those_are_decoded_from_texts(store):
    batch = feed_of(store)(0)
    z_BC = torch.eye(384)[: len(batch.text_B)]
    for middle, expected in ((0.0, [True, True]), (0.5, [True, False])):
        config = TrainConfig(batch=2, text_decoding=1.0, middle_crops=middle)
        drawn = replace(batch, middle_B=torch.tensor([True, False]), has_text_B=torch.ones(2).bool())
        decoded = decoder_input(z_BC, drawn, config, Chance.draw(drawn, 384, config, torch.Generator()))
        assert (decoded != z_BC).any(1).tolist() == expected


def test_a_stream_belongs_to_one_purpose_step_rank_and_seed():
    streams = {
        seed_of(seed, purpose, step, rank=rank)
        for seed in (0, 1, -1)
        for purpose in PURPOSES
        for step in range(20)
        for rank in range(3)
    }
    assert len(streams) == 3 * len(PURPOSES) * 20 * 3
    assert seed_of(10, "feed", 3) == seed_of(10, "feed", 3)


@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_gives_the_weights_of_the_whole(long_store, parts):
    sizes = replace(SIZES, dropout=0.0)
    gradients = []
    for accumulate in (1, parts):
        config = TrainConfig(batch=7, precision="float32", accumulate=accumulate, places_weight=1.0, feet_weight=1.0)
        made = {"encoder": "offline", "target": "label", "device": CPU}
        feed = Feed(load_crops(long_store, split="train", **made), long_store.strings("texts"), config, CPU)
        loss = losses.ClosedFormLoss(load_body("low"))
        learner = Learner(config, sizes, vertex_loss=loss, steps=10, device=CPU, workers=Workers())
        learner.begin(0)
        found, norm = learner.learn(feed(0))
        gradients.append(torch.cat([each.grad.flatten() for each in learner.parameters if each.grad is not None]))
        assert norm.item() == pytest.approx(gradients[-1].norm().item(), rel=1e-5)
        gradients.append(torch.stack([*found.values()]))
    whole, whole_losses, summed, summed_losses = gradients
    assert (whole - summed).norm() < 1e-6 * whole.norm()
    torch.testing.assert_close(whole_losses, summed_losses, rtol=1e-6, atol=1e-7)


def test_the_learning_rate_goes_with_the_root_of_the_batch_where_that_is_asked_for():
    assert TrainConfig(batch=8192).learning_rate_at(0, 9) == 1e-4
    assert TrainConfig(batch=20, rate_rule="sqrt").learning_rate_at(0, 9) == 1e-4
    # sqrt(8192 / 20) = 20.2386
    assert TrainConfig(batch=8192, rate_rule="sqrt").learning_rate_at(0, 9) == pytest.approx(2.02386e-3, rel=1e-5)


def test_muon_takes_the_matrices_of_the_layers_and_steps_as_far_as_adamw(store):
    pair = {name: learner_of(optimizer=name, weight_decay=0.0) for name in ("adamw", "muon")}
    moved = {}
    for name, learner in pair.items():
        before = [each.detach().clone() for each in learner.parameters]
        take(learner, feed_of(store), 0)
        # Root mean square of what a step moved: 0.2 of the rate at Muon (Liu et al. 2025), the rate at AdamW's first.
        moved[name] = [
            (new - old).square().mean().sqrt().item() for new, old in zip(learner.parameters, before, strict=True)
        ]
    rest, muon = pair["muon"].optimizers
    matrices = {id(each) for each in muon.param_groups[0]["params"]}
    # One layer each way: qkv, out, and two of the feed-forward; the decoder's value and out beside.
    assert len(matrices) == 4 + 6
    assert len(rest.param_groups[0]["params"]) + len(matrices) == len(pair["muon"].parameters)
    steps = [moved["muon"][place] for place, each in enumerate(pair["muon"].parameters) if id(each) in matrices]
    assert 0.1e-4 < max(steps) < 0.3e-4  # less where a gradient of two crops has no full rank
    for place, each in enumerate(pair["muon"].parameters):
        if id(each) not in matrices:
            assert moved["muon"][place] == pytest.approx(moved["adamw"][place], rel=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_weights_that_are_rounded_all_at_once_give_the_bits_of_autocast(store, accumulate):
    feed, pair = feed_of(store), [learner_of(precision="bfloat16", accumulate=accumulate) for _ in range(2)]
    plain = pair[1]
    plain.rounded = None
    for number in range(3):
        ours, theirs = (take(each, feed, number) for each in pair)
        assert ours == theirs
    assert all(torch.equal(a, b) for a, b in zip(*(each.parameters for each in pair), strict=True))
    assert {each.dtype for each in pair[0].rounded.near} == {torch.bfloat16}
    assert {each.dtype for each in pair[0].parameters} == {torch.float32}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_that_is_not_finite_changes_no_weight(store, optimizer):
    learner, feed = learner_of(optimizer=optimizer), feed_of(store)
    take(learner, feed, 0)
    before = [each.detach().clone() for each in learner.parameters]
    plain = learner.terms
    learner.terms = lambda *given: {term: value * torch.inf for term, value in plain(*given).items()}
    take(learner, feed, 1)
    learner.terms = plain
    take(learner, feed, 2)
    assert all(torch.equal(new, old) for new, old in zip(learner.parameters, before, strict=True))
    with pytest.raises(RunError, match="step 1: rot6d, vertices, velocity, text, image not finite"):
        learner.guard.check(feed.crops, feed.order)


def test_gpus_of_several_kinds_are_refused_by_name():
    require_one_kind(["H100", "H100"])
    with pytest.raises(RunError, match="different kinds .process 0 has H100, process 1 has A100.*CUDA_VISIBLE_DEVICES"):
        require_one_kind(["H100", "A100"])
