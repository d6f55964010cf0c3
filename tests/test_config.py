import math
import re
import tomllib
from dataclasses import fields

import click
import pytest
from click.testing import CliRunner

from mclip.pipeline.files.assets import RECIPES
from mclip.pipeline.labels.spans import LabelRules
from mclip.pipeline.machine.options import flag, options_of
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.render.options import RenderOptions
from mclip.training.model.config import TERMS, WORLD_TERMS, ModelConfig, TrainConfig, split_options


def test_defaults_are_the_papers():
    model, train = ModelConfig(), TrainConfig()
    assert (model.layers, model.heads, model.feed_forward, model.dropout, model.unit_latent) == (8, 4, 1024, 0.1, False)
    assert (train.batch, train.epochs, train.learning_rate, train.weight_decay, train.seed) == (
        20,
        100.0,
        1e-4,
        0.01,
        10,
    )
    assert train.weights == {"rot6d": 1, "vertices": 1, "velocity": 1, "text": 0.01, "image": 0.01} | dict.fromkeys(
        WORLD_TERMS, 0
    )
    assert (train.schedule, train.warmup, train.clip_gradient, train.clip_loss) == ("constant", 0, 0, "cosine")
    assert (train.latent_noise, train.text_decoding, train.target) == (0, 0, "joined")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("schedule", "linear", "--schedule is 'linear': expected constant, cosine"),
        ("clip_loss", "l1", "--clip-loss is 'l1': expected cosine, mse, infonce"),
        ("storage", "bfloat16", "--storage is 'bfloat16': expected float32, float16"),
        ("batch", 0, "--batch is 0: expected at least 1"),
        ("save_every", -1, "--save-every is -1: expected at least 1"),
        ("epochs", 0.0, "--epochs is 0.0: expected more than 0"),
        ("clip_gradient", -1.0, "--clip-gradient is -1.0: expected at least 0"),
        ("text_decoding", 7.0, "--text-decoding is 7.0: expected at most 1"),
        ("latent_noise", -1.0, "--latent-noise is -1.0: expected at least 0"),
        ("warmup", -5, "--warmup is -5: expected at least 0"),
        ("text_weight", -1.0, "--text-weight is -1.0: expected at least 0"),
        ("learning_rate", math.nan, "--learning-rate is nan: expected a finite number"),
    ],
)
def test_an_option_out_of_its_range_is_named(name, value, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("heads", 0, "--heads is 0: expected at least 1"),
        ("layers", -1, "--layers is -1: expected at least 1"),
        ("dropout", 1.0, "--dropout is 1.0: expected less than 1"),
        ("dropout", 2.0, "--dropout is 2.0: expected less than 1"),
    ],
)
def test_a_size_out_of_its_range_is_named(name, value, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        ModelConfig(**{name: value})


def test_losses_that_all_weigh_nothing_are_refused():
    with pytest.raises(ValueError, match="the weight of every loss is 0: raise one of --rot6d-weight"):
        TrainConfig(**{f"{term}_weight": 0.0 for term in TERMS})


@pytest.mark.parametrize("kind", [PrepareOptions, RenderOptions, TrainConfig, ModelConfig])
def test_the_command_line_takes_exactly_what_a_dataclass_takes(kind):
    @click.command()
    @options_of(kind)
    def command(**options):
        assert kind(**options) == kind()

    told = CliRunner().invoke(command, [])
    assert told.exit_code == 0, told.exception
    for each in fields(kind):
        for bound, step in (("least", -1), ("above", 0), ("most", 1), ("below", 0)):
            if each.metadata[bound] is not None:
                value = each.metadata[bound] + step
                refused = CliRunner().invoke(command, [f"--{flag(each.name)}={value}"])
                assert f"Invalid value for '--{flag(each.name)}'" in refused.output
                with pytest.raises(ValueError, match=f"--{flag(each.name)} is {value}"):
                    kind(**{each.name: type(0.0 if each.default is None else each.default)(value)})


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="latent width 30 does not divide by 4 heads: change --heads"):
        ModelConfig(latent=30)


def test_the_learning_rate_rises_then_falls_to_a_hundredth():
    made = TrainConfig(learning_rate=2.0, warmup=4, schedule="cosine")
    assert made.learning_rate_at(0, 100) == pytest.approx(0.5)
    assert made.learning_rate_at(1, 100) == pytest.approx(1.0 * (0.01 + 0.99 * (1 + math.cos(math.pi / 100)) / 2))
    assert made.learning_rate_at(50, 100) == pytest.approx(2 * (0.01 + 0.99 / 2))
    assert made.learning_rate_at(100, 100) == pytest.approx(0.02)
    assert TrainConfig(learning_rate=2.0).learning_rate_at(99, 100) == 2.0


def test_options_of_the_command_line_reach_their_config():
    options = {**vars(TrainConfig(batch=7)), **vars(ModelConfig(layers=3))}
    train, model = split_options(options)
    assert (train.batch, model.layers) == (7, 3)
    assert flag("clip_gradient") == "clip-gradient"


def recipe(name: str) -> dict:
    return tomllib.loads((RECIPES / f"{name}.toml").read_text())["train"]


# What the paper's release does, by its parser's defaults, its README's command and its code (GuyTevet/MotionCLIP).
RELEASE = {
    "prepare": {
        **{"fps": 30.0, "resample": "stride", "window": 100, "crop": 60, "short": "drop", "mirror": False},
        **{"face_front": False, "split": "amass", "join": "release", "unlabelled": "drop"},
    },
    "render": {"frames": 1, "pick": "random", "views": 1, "betas": "zero", "background": "white", "ground": False},
    "embed": {"clip": "ViT-B-32", "pretrained": "openai"},
    "train": {
        **{"layers": 8, "heads": 4, "feed_forward": 1024, "dropout": 0.1, "unit_latent": False, "copied_layers": True},
        **{
            "optimizer": "adamw",
            "rate_rule": "none",
            "batch": 20,
            "epochs": 100.0,
            "learning_rate": 1e-4,
            "weight_decay": 0.01,
            "schedule": "constant",
        },
        **{"warmup": 0, "clip_gradient": 0.0, "ema": 0.0, "target": "joined", "short": "mask", "seed": 10},
        **{"middle_crops": 0.0, "long_windows": 0.0, "mirror": 0.0},
        **{"yaw": 0.0, "speed": 0.0, "latent_noise": 0.0, "text_decoding": 0.0},
        **{"rot6d_weight": 1.0, "vertices_weight": 1.0, "velocity_weight": 1.0, "clip_loss": "cosine"},
        **{"text_weight": 0.01, "image_weight": 0.01, "places_weight": 0.0, "steps_weight": 0.0, "feet_weight": 0.0},
        **{"vertex_loss": "full", "precision": "float32", "tf32": False, "storage": "float32"},
    },
}
# Where the recipe does something else, in words of its list of differences.
LISTED = {"vertex_loss": "leaves out SMPL's pose correctives", "precision": "bfloat16 where the machine is fast at it"}
# What changes no number of a training: names of files, what is written when, and how fast it goes.
BESIDE = {"encoder", "latent", "vertex_subset", "loss_body", "step", "accumulate", "wandb", "best"}
BESIDE |= {"log_every", "validate_every", "save_every", "keep_every"}


def test_the_papers_recipe_does_as_the_release_or_lists_what_it_does_otherwise():
    text = (RECIPES / "paper.toml").read_text(encoding="utf-8")
    told, tables = " ".join(text.partition("[prepare]")[0].replace("#", " ").split()), tomllib.loads(text)
    defaults = {"prepare": (PrepareOptions(), LabelRules()), "render": (RenderOptions(),), "embed": ()}
    defaults["train"] = (TrainConfig(), ModelConfig())
    otherwise = set()
    for name, wanted in RELEASE.items():
        chosen = {key: value for kind in defaults[name] for key, value in vars(kind).items()} | tables[name]
        otherwise |= {option for option, value in wanted.items() if chosen.get(option) != value}
    assert otherwise == set(LISTED)
    assert [words for words in LISTED.values() if words not in told] == []
    # Every option of the trainer is judged here, so a new one cannot slip in.
    assert set(RELEASE["train"]) | BESIDE == {each.name for kind in (TrainConfig, ModelConfig) for each in fields(kind)}


def test_the_recognition_recipe_has_the_releases_weights():
    said = recipe("babel60")
    assert (said["target"], said["epochs"]) == ("category", 200)
    for term in ("rot6d", "vertices", "velocity"):
        assert said[f"{term}_weight"] / said["text_weight"] == pytest.approx(95)
        assert said[f"{term}_weight"] / said["image_weight"] == pytest.approx(95)
