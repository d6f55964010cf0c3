"""What a run keeps of its training motions, and how it is found out whether a decoder understands texts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mclip.pipeline.embed.vectors import vectors_by_text
from mclip.pipeline.store.store import Store
from mclip.training.data.crops import Crops, crops_of
from mclip.training.latent.space import text_latent
from mclip.training.measure import kept
from mclip.training.measure.reconstruction import reconstruct
from mclip.training.measure.retrieval import gallery_of
from mclip.training.model.run import Run, load_run, save_checkpoint


@pytest.fixture(scope="module")
def crops(run: Run, store: Store) -> Crops:
    labelled = replace(run, config=run.config | {"train": run.config["train"] | {"target": "label"}})
    return crops_of(labelled, store, "train")


def test_pairs_are_the_texts_of_every_middle_crop(crops: Crops, store: Store) -> None:
    """The slow twin is the store's own lists of labels, by name."""
    number_P, text_P = kept.pairs(crops, torch.arange(len(crops)))
    texts, labels = store.strings("texts"), store.read("labelsets/labels")
    offset = store.read("labelsets/labels_offset")
    shift = crops.middle_shift(torch.arange(len(crops)))
    wanted = []
    for window, at in enumerate(shift.tolist()):
        labelset = int(crops.labelset[window, at])
        wanted += [(window, texts[i]) for i in labels[offset[labelset] : offset[labelset + 1]]]
    vectors = vectors_by_text(store, "offline")
    assert [window for window, _ in wanted] == number_P.tolist()
    assert len(set(number_P.tolist())) < len(number_P)  # some carry more than one
    for (_, text), found in zip(wanted, crops.text[text_P], strict=True):
        assert np.allclose(vectors[text], found.numpy())
    assert gallery_of(store, crops, np.zeros((len(crops), 0))).all_labels  # the store has labels at all


def test_errors_of_z_are_those_of_the_reconstruction(run: Run, crops: Crops) -> None:
    z_NC = kept.kept_of(run.model, crops)["z"]
    found = kept.errors(run.model, crops, torch.arange(len(crops)), z_NC)
    assert np.allclose(found.numpy(), reconstruct(run.model, crops).mpjpe_W, atol=0.01)


def test_a_decoder_understands_texts_that_lead_to_the_motions_and_no_others(run: Run, crops: Crops) -> None:
    items = torch.arange(len(crops))
    z_NC = kept.kept_of(run.model, crops)["z"]
    # Windows near to what is decoded from their z, so that a text of the same direction is about as right.
    exact = replace(crops, rot6d=crops.rot6d.clone())
    batch = crops.middle(items)
    near_NC = z_NC + 0.5 * torch.randn(z_NC.shape, generator=torch.Generator().manual_seed(0))
    own = run.model.decode(near_NC, crops.crop, batch.attended_BT)
    for item, (rows, keep) in enumerate(zip(own, batch.mask_BT, strict=True)):
        first = int(exact.row[item] + exact.middle_shift(items)[item])
        exact.rot6d[first : first + int(keep.sum())] = rows[keep, :24]
    lengthened = 7 * z_NC  # a text has a length of its own
    assert kept.understands(run.model, exact, items, z_NC, lengthened)
    assert not kept.understands(run.model, exact, items, z_NC, -z_NC)


def test_what_training_showed_is_kept_only_where_texts_are_not_understood(
    run: Run, crops: Crops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "UNDERSTOOD", torch.inf)
    assert set(kept.kept_of(run.model, crops)) == {"z"}
    monkeypatch.setattr(kept, "UNDERSTOOD", 0.0)
    found = kept.kept_of(run.model, crops)
    number_P, text_P = kept.pairs(crops, torch.arange(len(crops)))
    assert torch.equal(found["told"], crops.text[text_P].float())
    assert found["z"].shape == found["told"].shape
    few = kept.kept_of(run.model, crops, most=2)
    assert len(few["z"]) == len(few["told"]) == 2
    assert len(number_P) > 2


def test_a_run_with_told_texts_decodes_the_motion_that_a_text_names(run: Run, crops: Crops, tmp_path) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("checkpoints"))
    number_P, text_P = kept.pairs(crops, torch.arange(len(crops)))
    z_NC = kept.kept_of(run.model, crops)["z"]
    told = {"z": z_NC[number_P], "told": crops.text[text_P]}
    save_checkpoint(folder, run.model, [], run.state, kept=told)
    found = load_run(folder)
    assert found.told_NC is not None
    alone = [text for text in text_P.tolist() if text_P.tolist().count(text) == 1]
    assert alone
    for text in alone:
        vector = text_latent(found, crops.text[text : text + 1])[0]
        own = z_NC[number_P[text_P.tolist().index(text)]]
        assert F.cosine_similarity(vector, own, dim=0) > 0.99999
