import math
import tomllib

import pytest

from mclip.pipeline.files.assets import RECIPES
from mclip.training.model.config import ModelConfig, TrainConfig, flag, split_options


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
    assert (train.rot6d, train.vertices, train.velocity, train.text, train.image) == (1, 1, 1, 0.01, 0.01)
    assert (train.schedule, train.warmup, train.clip_gradient, train.clip_loss) == ("constant", 0, 0, "cosine")
    assert (train.latent_noise, train.text_decoding, train.target) == (0, 0, "joined")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("schedule", "linear", "--schedule is linear: expected one of constant, cosine"),
        ("clip_loss", "l1", "--clip-loss is l1: expected one of cosine, mse, infonce"),
        ("storage", "bfloat16", "--storage is bfloat16: expected one of float32, float16"),
        ("batch", 0, "--batch is 0: expected more than 0"),
        ("save_every", -1, "--save-every is -1"),
        ("epochs", 0.0, "--epochs is 0.0"),
    ],
)
def test_an_option_out_of_its_range_is_named(name, value, told):
    with pytest.raises(ValueError, match=told):
        TrainConfig(**{name: value})


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


def test_the_papers_recipe_says_the_defaults_out_loud():
    defaults = vars(TrainConfig()) | vars(ModelConfig())
    said = {name: value for name, value in recipe("paper").items() if name not in ("store", "run", "loss_body")}
    assert said == {name: defaults[name] for name in said}
    assert {"batch", "epochs", "learning_rate", "layers", "heads", "feed_forward", "text", "image", "seed"} <= set(said)


def test_the_recognition_recipe_has_the_releases_weights():
    said = recipe("babel60")
    assert (said["target"], said["epochs"]) == ("category", 200)
    for term in ("rot6d", "vertices", "velocity"):
        assert said[term] / said["text"] == pytest.approx(95)
        assert said[term] / said["image"] == pytest.approx(95)
