import copy

import pytest
import torch

from mclip.training.data.crops import load_crops
from mclip.training.evaluate.evaluate import evaluate
from mclip.training.train.validation import Validation, collapse

FINE = {"movement_ratio": 0.9, "variety_ratio": 0.8, "z_spread": 0.3}


def validation_of(store) -> Validation:
    crops = load_crops(store, split="train", encoder="offline", target="joined", device=torch.device("cpu"))
    return Validation(store, crops, store.strings("texts"), fps=30.0)


def test_validation_gives_the_figures_of_an_evaluation(run, store):
    found = validation_of(store)(run.model.train())
    assert run.model.training  # as it was
    run.model.eval()
    figures, _ = evaluate(run, store, split="train", queries=None, encoder=None)
    expected = {
        **figures["reconstruction"],
        **{name: figures["quality"][name] for name in ("pa_mpjpe_mm", "vertex_mm")},
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    for way in ("text_to_motion", "motion_to_text"):
        for name in ("R@1", "R@3", "R@5", "R@10", "MedR"):
            assert found[f"{way}_{name}"] == figures[way][name], (way, name)


def test_a_large_split_is_measured_on_some_of_its_windows(store):
    crops = validation_of(store).crops
    some = crops.some(2)
    assert some.window.tolist() == [int(crops.window[0]), int(crops.window[-1])]
    batch, whole = some.middle(torch.arange(2)), crops.middle(torch.tensor([0, len(crops) - 1]))
    assert torch.equal(batch.motion_BTRD, whole.motion_BTRD)
    assert torch.equal(batch.text_BC, whole.text_BC)
    assert crops.some(10**6) is crops


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("movement_ratio", "static motion: what is decoded moves 0.00 times as much as its source"),
        ("variety_ratio", "one motion for all: what is decoded differs 0.00 times as much"),
        ("z_spread", "one vector for all: z spreads by 0.0000"),
    ],
)
def test_a_collapse_is_named(name, told):
    assert collapse(FINE) == []
    (alarm,) = collapse(FINE | {name: 1e-5})
    assert alarm.startswith(told)
    assert "lower --learning-rate" in alarm


def test_a_decoder_that_ignores_its_input_is_seen_to(run, store):
    deaf = copy.deepcopy(run.model)
    deaf.decode = lambda z, frames, mask=None: run.model.decode(torch.ones_like(z), frames)
    found = validation_of(store)(deaf)
    assert found["variety_ratio"] < 1e-3 < validation_of(store)(run.model)["variety_ratio"]
    assert any(alarm.startswith("one motion for all") for alarm in collapse(found))
