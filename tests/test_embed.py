"""The embed stage: each picture and each text once, of one encoder, and nothing taken for a vector that is none."""

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.embed import embed
from mclip.pipeline.embed import vectors as cached
from mclip.pipeline.embed.encoder import Encoder
from mclip.pipeline.embed.loading import encoder_name
from mclip.pipeline.embed.vectors import cut_texts, window_vectors, zero_shot
from mclip.pipeline.store.schema import DONE, PENDING, StoreError
from mclip.pipeline.store.store import Store, open_store
from mclip.pipeline.store.validate import validate
from mclip.training.data.crops import load_crops
from mclip.training.latent.space import latent, vectors_of
from mclip.training.model.config import ModelConfig, TrainConfig
from mclip.training.model.run import load_run
from mclip.training.train.train import train

CPU = torch.device("cpu")


@pytest.fixture
def copy(store: Store, tmp_path: Path) -> Store:
    """A copy to write to."""
    shutil.copytree(store.url, tmp_path / "copy.zarr")
    return open_store(tmp_path / "copy.zarr")


def test_vectors_are_the_encoders_own(store: Store, encoder: Encoder) -> None:
    texts = store.strings("texts")
    assert np.allclose(store.read("embeddings/offline/text"), encoder.encode_texts(texts), atol=2e-5)
    pictures = torch.from_numpy(store.read("pictures/rgb"))
    assert np.allclose(store.read("embeddings/offline/image"), encoder.encode_pictures(pictures), atol=2e-5)


def test_every_label_joined_text_and_category_is_embedded_once(store: Store) -> None:
    texts = store.strings("texts")
    assert len(texts) == len(set(texts)) == len(store.read("embeddings/offline/text"))
    assert {"walk", "kick"} <= set(texts)
    assert any(" and " in text for text in texts)


def test_second_run_embeds_nothing(copy: Store, encoder: Encoder) -> None:
    assert [summary.done for summary in embed.embed(copy, encoder)] == [0, 0]


def test_several_devices_share_the_pictures_of_a_block(copy: Store, encoder: Encoder) -> None:
    before, seen = copy.read("embeddings/offline/image"), []

    class Told(Encoder):
        def vectors_there(self, rgb: torch.Tensor) -> torch.Tensor:
            seen.append(len(rgb))
            return super().vectors_there(rgb)

    first, *others = (Told(**vars(encoder.on(CPU)) | {"name": "offline"}) for _ in range(2))
    assert first.model is not others[0].model
    embed.forget(copy, "offline")
    images, _ = embed.embed(copy, first, beside=others)
    assert images.done == sum(seen) == len(before)
    assert len(seen) == 2
    assert max(seen) - min(seen) <= 1
    assert np.allclose(copy.read("embeddings/offline/image"), before, atol=2e-5)


def test_a_device_of_several_that_is_not_there_is_named_and_nothing_is_written(copy: Store) -> None:
    said = CliRunner().invoke(cli, ["embed", copy.url, "--clip", "offline", "--device", "cpu,cuda:1", "--replace"])
    assert said.exit_code == 1
    assert "--device cuda:1: " in said.output
    assert (copy.read("embeddings/offline/image_done") == DONE).all()


def test_an_interrupted_run_continues_to_the_same_vectors(
    copy: Store, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {kind: copy.read(f"embeddings/offline/{kind}") for kind in ("image", "text")}
    embed.forget(copy, "offline")
    monkeypatch.setattr(embed, "BLOCK", 2)
    embed.embed(copy, encoder, limit=2)
    assert (copy.read("embeddings/offline/image_done") == PENDING).sum() == 1
    embed.embed(copy, encoder)
    for kind, vectors in before.items():
        assert np.allclose(copy.read(f"embeddings/offline/{kind}"), vectors, atol=2e-5)


def test_a_picture_that_is_not_drawn_is_a_failure_until_it_is(copy: Store, encoder: Encoder) -> None:
    embed.forget(copy, "offline")
    drawn = copy.array("pictures/done")
    drawn[1] = PENDING
    images, _ = embed.embed(copy, encoder)
    assert (images.done, images.failed) == (2, 1)
    assert not window_vectors(copy, "offline")[1][1]
    drawn[1] = 1
    images, _ = embed.embed(copy, encoder)
    assert images.failed == 0
    assert window_vectors(copy, "offline")[1].all()


def test_other_weights_of_the_same_name_are_refused(store: Store, encoder: Encoder) -> None:
    other = dataclasses.replace(encoder)
    object.__setattr__(other, "fingerprint", "0" * 64)
    with pytest.raises(StoreError, match="made with other weights_sha256.*--replace"):
        embed.embed(store, other)


def test_texts_are_embedded_again_when_their_list_is_another(copy: Store, encoder: Encoder) -> None:
    texts = copy.strings("texts")
    copy.write_strings("texts", [*texts[:3], "juggling", *texts[4:]])
    _, done = embed.embed(copy, encoder)
    assert done.done == len(texts)
    assert np.allclose(copy.read("embeddings/offline/text")[3], encoder.encode_texts(["juggling"])[0], atol=2e-5)


def test_a_window_has_the_mean_of_its_pictures(copy: Store) -> None:
    window = copy.array("pictures/window")
    window[...] = np.array([1, 1, 2])
    vectors, has = window_vectors(copy, "offline")
    image = copy.read("embeddings/offline/image")
    assert has.tolist() == [False, True, True]
    assert np.allclose(vectors[1], image[:2].mean(0))
    assert np.allclose(vectors[2], image[2])


def test_a_missing_encoder_names_those_there_are(store: Store) -> None:
    with pytest.raises(StoreError, match=r"no vectors of encoder ViT-B-32_openai, only of \['offline'\]"):
        window_vectors(store, "ViT-B-32_openai")


def middle_text(store: Store) -> np.ndarray:
    """Text of every window's middle."""
    labelset = store.read("windows/labelset")
    return store.read("labelsets/text")[labelset[:, labelset.shape[1] // 2]]


def test_zero_shot_is_perfect_when_pictures_are_their_texts_and_chance_when_they_are_one(copy: Store) -> None:
    image = copy.array("embeddings/offline/image")
    image[...] = copy.read("embeddings/offline/text")[middle_text(copy)]
    assert zero_shot(copy, "offline") == {"R@1": 1.0, "R@3": 1.0, "chance": pytest.approx(1 / 3)}
    image[...] = copy.read("embeddings/offline/text")[np.roll(middle_text(copy), 1)]
    assert zero_shot(copy, "offline")["R@1"] == 0


def test_zero_shot_of_several_pictures_a_window_and_several_windows_a_text_is_as_counted_by_hand(
    copy: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Six windows of two texts; window 5 has no picture, window 0 has three. Vectors lie on a circle.
    a, b = middle_text(copy)[:2]
    texts_of = np.array([a, a, a, b, b, b])
    at_degrees = [(0, -30), (0, 0), (0, 30), (1, 20), (2, 70), (3, 100), (4, 60)]  # of text a's vector, b's is at 90
    store_of_windows(copy, texts_of, [window for window, _ in at_degrees])
    angle = np.deg2rad([degrees for _, degrees in at_degrees])
    image = np.zeros((len(angle), 384), np.float32)
    image[:, 0], image[:, 1] = np.cos(angle), np.sin(angle)
    copy.array("embeddings/offline/image")[...] = image
    text = copy.array("embeddings/offline/text")
    text[int(a)], text[int(b)] = np.eye(384)[:2]
    # From a: windows 0, 1, 4 are nearest, the first is right. From b: 3, 2, 4; the first is right.
    expected = {"R@1": 1.0, "R@3": 1.0, "chance": 2.5 / 5}
    assert zero_shot(copy, "offline") == pytest.approx(expected)
    # With window 2 at 95 degrees, b finds it first and 3 second; of one text only, the chance is that text's share.
    image[4, :2] = np.cos(np.deg2rad(95)), np.sin(np.deg2rad(95))
    image[5, :2] = np.cos(np.deg2rad(97)), np.sin(np.deg2rad(97))
    copy.array("embeddings/offline/image")[...] = image
    assert zero_shot(copy, "offline") == pytest.approx({"R@1": 0.5, "R@3": 1.0, "chance": 0.5})
    monkeypatch.setattr(cached, "MOST_TEXTS", 1)
    first = {"R@1": 1.0, "R@3": 1.0, "chance": 3 / 5} if a < b else {"R@1": 0.0, "R@3": 1.0, "chance": 2 / 5}
    assert zero_shot(copy, "offline") == pytest.approx(first)


def store_of_windows(store: Store, texts: np.ndarray, pictures: list[int]) -> None:
    """Give a store windows of these texts and pictures of these windows, all embedded."""
    joined = store.read("labelsets/text")
    labelset = np.array([np.flatnonzero(joined == text)[0] for text in texts], np.int32)
    store.write("windows/row", np.zeros(len(texts), np.int64))
    store.write("windows/frames", np.full(len(texts), store.window, np.int64))
    shifts = store.array("windows/labelset").shape[1]
    store.write("windows/labelset", np.tile(labelset[:, None], (1, shifts)))
    store.write("pictures/window", np.array(pictures))
    for name in ("image", "image_done"):
        store.grow(f"embeddings/offline/{name}", len(pictures))
    store.array("embeddings/offline/image_done")[...] = DONE


def test_templates_have_vectors_of_their_own_and_pictures_are_not_embedded_again(copy: Store, encoder: Encoder) -> None:
    prompted = dataclasses.replace(encoder, name="offline+prompt-1", templates=("a person {}", "someone {}"))
    images, texts = embed.embed(copy, prompted)
    assert (images.done, images.skipped, texts.done) == (0, 3, len(copy.strings("texts")))
    image, other = (copy.read(f"embeddings/{name}/image") for name in ("offline", prompted.name))
    assert image.tobytes() == other.tobytes()
    text = copy.read(f"embeddings/{prompted.name}/text")
    assert np.allclose(text, prompted.encode_texts(copy.strings("texts")), atol=2e-5)
    described = copy.attributes("embed")["encoders"]
    assert sorted(described) == ["offline", prompted.name]
    assert described[prompted.name]["templates"] == ["a person {}", "someone {}"]
    assert validate(copy) == []


def test_a_run_trained_with_templates_encodes_prompts_in_them(copy: Store, tmp_path: Path, encoder: Encoder) -> None:
    words = ["embed", copy.url, "--clip", "offline", "--template", "a person {}", "--template", "someone {}"]
    told = CliRunner().invoke(cli, words)
    assert told.exit_code == 0, told.output
    name = encoder_name("offline", None, words[5::2])
    config = TrainConfig(encoder=name, epochs=0.5, batch=2, precision="float32")
    train(open_store(copy.url), tmp_path / "run", config, ModelConfig(layers=1, feed_forward=64), device=CPU)
    run = load_run(tmp_path / "run")
    assert run.config["encoder"]["templates"] == ["a person {}", "someone {}"]
    prompted = dataclasses.replace(encoder, templates=("a person {}", "someone {}"))
    kicks = vectors_of(run, ["kicks"], plain=True)
    assert torch.allclose(kicks, latent(run, prompted.encode_texts(["kicks"])), atol=1e-5)
    assert not torch.allclose(kicks, latent(run, encoder.encode_texts(["kicks"])), atol=1e-2)


def test_pictures_that_the_other_encoder_lacks_are_embedded(copy: Store, encoder: Encoder) -> None:
    copy.array("embeddings/offline/image_done")[1] = PENDING
    prompted = dataclasses.replace(encoder, name="prompted", templates=("a person {}",))
    images, _ = embed.embed(copy, prompted)
    assert (images.done, images.skipped) == (1, 2)
    image, other = (copy.read(f"embeddings/{name}/image") for name in ("offline", "prompted"))
    assert np.allclose(image, other, atol=2e-5)
    # An encoder that differs in more than its templates gets nothing from another.
    images, _ = embed.embed(copy, dataclasses.replace(prompted, name="half", precision="bfloat16"))
    assert (images.done, images.skipped) == (3, 0)


def test_float16_is_a_choice_that_is_kept_and_read_as_float32(copy: Store, encoder: Encoder) -> None:
    before = copy.read("embeddings/offline/text")
    with pytest.raises(StoreError, match=r"made with other dtype: was \['float32'\], is \['float16'\]; pass --replace"):
        embed.embed(copy, encoder, dtype="float16")
    embed.forget(copy, "offline")
    embed.embed(copy, encoder, dtype="float16")
    for kind in ("image", "text"):
        assert copy.array(f"embeddings/offline/{kind}").dtype == np.float16
    assert validate(copy) == []
    crops = load_crops(copy, split="train", encoder="offline", target="joined", device=CPU)
    assert crops.text.dtype == crops.image.dtype == torch.float32
    assert np.allclose(crops.text, before, atol=1e-3)
    assert not np.array_equal(crops.text, before)


def test_texts_that_were_cut_are_counted(copy: Store, encoder: Encoder) -> None:
    texts = copy.strings("texts")
    copy.write_strings("texts", [*texts, "walk " * 80, "sit", "run " * 100])
    assert cut_texts(copy, "offline") == 0
    told = CliRunner().invoke(cli, ["embed", copy.url, "--clip", "offline"])
    assert told.exit_code == 0, told.output
    assert "cut to 77 tokens: 2 texts" in told.output
    assert copy.read("embeddings/offline/text_cut").tolist() == [0] * len(texts) + [1, 0, 1]
    assert open_store(copy.url).attributes("embed")["texts"]["offline"]["cut"] == 2


def test_a_store_embedded_with_other_preprocessing_is_refused(copy: Store, encoder: Encoder) -> None:
    attributes = copy.attributes("embed")["encoders"]
    attributes["offline"]["preprocessing"]["interpolation"] = "bilinear"
    copy.set_attributes("embed", encoders=attributes)
    with pytest.raises(StoreError, match="made with other preprocessing: .*bilinear.*bicubic.*--replace"):
        embed.embed(copy, encoder)
    told = CliRunner().invoke(cli, ["embed", copy.url, "--clip", "offline", "--replace"])
    assert told.exit_code == 0, told.output
    assert "3 images done" in told.output


def test_weights_may_lie_elsewhere_the_next_time(copy: Store, encoder: Encoder) -> None:
    moved = dataclasses.replace(encoder, pretrained="/elsewhere/weights.pt")
    assert [summary.done for summary in embed.embed(copy, moved)] == [0, 0]


def test_a_store_without_pictures_names_the_command_that_draws_them(copy: Store, encoder: Encoder) -> None:
    copy.array("pictures/done")[...] = PENDING
    embed.forget(copy, "offline")
    with pytest.raises(StoreError, match="no picture in this store; run `mclip render"):
        embed.embed(copy, encoder)
    assert copy.encoders == {}
    with pytest.raises(StoreError, match=r"no vectors of encoder offline, only of \[\]"):
        window_vectors(copy, "offline")


def larger(store: Store) -> Store:
    """The store with enough pictures and texts to be stopped in the midst of them."""
    rgb = store.read("pictures/rgb")
    many = np.stack([np.roll(rgb[item % 3], item, axis=1) for item in range(48)])
    store.write("pictures/rgb", many)
    store.write("pictures/done", np.full(48, DONE, np.uint8))
    for name in ("window", "frame", "view"):
        store.write(f"pictures/{name}", np.arange(48) % 3)
    store.write_strings("texts", [*store.strings("texts"), *(f"a person walks {n} steps" for n in range(80))])
    embed.forget(store, "offline")
    return store


# A child of this process embeds, blocks of four, and is killed some marks later, between two marks or in one.
KILLED = """
import os, pathlib, signal, sys, time, warnings
warnings.simplefilter("ignore")
import torch
from mclip.pipeline.embed import embed
from mclip.pipeline.embed.loading import load_encoder
from mclip.pipeline.store.store import open_store
torch.set_num_threads(1)
embed.BLOCK = 4
loaded = load_encoder("offline")
group = pathlib.Path(sys.argv[1], "embeddings/offline")
marked = lambda: [file.stat().st_mtime_ns for file in group.glob("*_done/c/0")]
for marks in map(int, sys.argv[2:]):
    before = marked()
    child = os.fork()
    if not child:
        embed.embed(open_store(sys.argv[1]), loaded)
        os._exit(0)
    while marks and not os.waitpid(child, os.WNOHANG)[0]:
        time.sleep(0.0005)
        marks, before = marks - (marked() != before), marked()
    os.kill(child, signal.SIGKILL)
    print(os.waitpid(child, 0)[1])
"""


def test_killed_at_any_moment_the_same_command_gives_the_same_vectors_byte_for_byte(
    copy: Store, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "BLOCK", 4)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    larger(copy)
    shutil.copytree(copy.url, tmp_path / "whole.zarr")
    whole = open_store(tmp_path / "whole.zarr")
    embed.embed(whole, encoder)
    words = [sys.executable, "-c", KILLED, copy.url, "6", "10", "10"]
    ends = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout.split()
    assert ends.count("9") >= 2
    done = sum(summary.done for summary in embed.embed(open_store(copy.url), encoder))
    assert 0 < done < 48 + 80
    torch.set_num_threads(threads)
    for kind in ("image", "text", "text_cut"):
        one, other = (each.read(f"embeddings/offline/{kind}") for each in (copy, whole))
        assert one.tobytes() == other.tobytes()
    assert validate(copy) == []


def test_a_disk_that_fills_up_stops_the_stage_plainly_and_the_same_command_goes_on(
    copy: Store, encoder: Encoder, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    larger(copy)
    with full_disk(40_000):
        stopped = CliRunner().invoke(cli, ["embed", copy.url, "--clip", "offline"])
    assert stopped.exit_code == 1
    assert "File too large: make room and run the same command again" in stopped.output
    images, texts = embed.embed(open_store(copy.url), encoder)
    assert images.done + texts.done > 80
    assert validate(copy) == []
