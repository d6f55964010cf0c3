"""The embed stage: each picture and each text once, of one encoder, and nothing taken for a vector that is none."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mclip.pipeline import embed
from mclip.pipeline.encoder import Encoder
from mclip.pipeline.store import PENDING, Store, StoreError, open_store


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
    assert not embed.window_vectors(copy, "offline")[1][1]
    drawn[1] = 1
    images, _ = embed.embed(copy, encoder)
    assert images.failed == 0
    assert embed.window_vectors(copy, "offline")[1].all()


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
    vectors, has = embed.window_vectors(copy, "offline")
    image = copy.read("embeddings/offline/image")
    assert has.tolist() == [False, True, True]
    assert np.allclose(vectors[1], image[:2].mean(0))
    assert np.allclose(vectors[2], image[2])


def test_a_missing_encoder_names_those_there_are(store: Store) -> None:
    with pytest.raises(StoreError, match=r"no vectors of encoder ViT-B-32_openai, only of \['offline'\]"):
        embed.window_vectors(store, "ViT-B-32_openai")


def test_zero_shot_is_perfect_when_pictures_are_their_texts_and_chance_when_they_are_one(copy: Store) -> None:
    text_of_window = copy.read("labelsets/text")[copy.read("windows/labelset")[:, 0]]
    image = copy.array("embeddings/offline/image")
    image[...] = copy.read("embeddings/offline/text")[text_of_window]
    assert embed.zero_shot(copy, "offline") == {"R@1": 1.0, "R@3": 1.0, "chance": pytest.approx(1 / 3)}
    image[...] = copy.read("embeddings/offline/text")[np.roll(text_of_window, 1)]
    assert embed.zero_shot(copy, "offline")["R@1"] < 1
