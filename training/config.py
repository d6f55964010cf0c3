"""Sizes of the model and options of the trainer. A default is written once, here; the command line reads it."""

import math
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from typing import Any

import click

TERMS = ("rot6d", "vertices", "velocity", "text", "image")


def setting(default: Any, text: str, choices: tuple[str, ...] = ()) -> Any:
    """A field with its default, its one line of help, and the words it may take."""
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the auto-encoder; the defaults are the paper's."""

    latent: int = setting(0, "Width of z and of the model; 0 is the width of the encoder's vectors.")
    layers: int = setting(8, "Layers of the encoder, and of the decoder.")
    heads: int = setting(4, "Attention heads.")
    feed_forward: int = setting(1024, "Width of the feed-forward layers.")
    dropout: float = setting(0.1, "Dropout everywhere.")
    unit_latent: bool = setting(False, "Decode from z / |z|; not in the paper.")

    def __post_init__(self) -> None:
        if self.latent % self.heads:
            raise ValueError(f"latent width {self.latent} does not divide by {self.heads} heads: change --heads")


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are the paper's."""

    encoder: str = setting("", "Whose vectors to train on [default: the store's, where it has one encoder].")
    batch: int = setting(20, "Crops a step.")
    epochs: float = setting(100.0, "How often every window is seen.")
    learning_rate: float = setting(1e-4, "Of AdamW.")
    weight_decay: float = setting(0.01, "Of AdamW.")
    schedule: str = setting("constant", "Learning rate over time.", ("constant", "cosine"))
    warmup: int = setting(0, "Steps of linear rise.")
    clip_gradient: float = setting(0.0, "Largest gradient norm; 0 is no limit.")
    target: str = setting(
        "joined", "Text of a crop: all its labels joined, one at random, or a category.",
        ("joined", "label", "category"),
    )  # fmt: skip
    short: str = setting(
        "mask", "Windows under a crop: mask what is missing, or continue them as a cycle or a held pose.",
        ("mask", "continue"),
    )  # fmt: skip
    latent_noise: float = setting(0.0, "Most noise on z before decoding, as a share of |z|; not in the paper.")
    text_decoding: float = setting(0.0, "Share of a batch decoded from a label's vector; not in the paper.")
    rot6d: float = setting(1.0, "Weight of the rotations' squared error.")
    vertices: float = setting(1.0, "Weight of the vertices' squared error.")
    velocity: float = setting(1.0, "Weight of the frame differences' squared error.")
    text: float = setting(0.01, "Weight of 1 - cos(z, text).")
    image: float = setting(0.01, "Weight of 1 - cos(z, image).")
    clip_loss: str = setting(
        "cosine", "How z is held against text and image: 1 - cos, squared error, or InfoNCE over the batch.",
        ("cosine", "mse", "infonce"),
    )  # fmt: skip
    precision: str = setting(
        "auto", "auto is bfloat16 where the machine multiplies it fast.", ("auto", "float32", "bfloat16")
    )
    storage: str = setting("float32", "How the rotations lie on the device.", ("float32", "float16"))
    seed: int = setting(10, "Of weights, order, crops and dropout.")
    log_every: int = setting(50, "Steps between two lines of losses.")
    validate_every: int = setting(500, "Steps between two validations.")
    save_every: int = setting(500, "Steps between two checkpoints.")

    def __post_init__(self) -> None:
        for each in fields(self):
            choices, value = each.metadata["choices"], getattr(self, each.name)
            if choices and value not in choices:
                raise ValueError(f"--{flag(each.name)} is {value}: expected one of {', '.join(choices)}")
        for name in ("batch", "epochs", "log_every", "validate_every", "save_every"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{flag(name)} is {getattr(self, name)}: expected more than 0")

    def learning_rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step of `steps`: linear rise, then constant or half a cosine down to a hundredth."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2 if self.schedule == "cosine" else 1.0
        return self.learning_rate * rise * fall


def flag(name: str) -> str:
    """A field's name on the command line."""
    return name.replace("_", "-")


def option_of(each: Field[Any]) -> Callable[[Any], Any]:
    """The click option of a field."""
    names = f"--{flag(each.name)}/--no-{flag(each.name)}" if each.type is bool else f"--{flag(each.name)}"
    choices = each.metadata["choices"]
    return click.option(
        names, default=each.default, help=each.metadata["help"], type=click.Choice(choices) if choices else each.type
    )


def split_options(options: dict[str, Any]) -> tuple[TrainConfig, ModelConfig]:
    """The two configs of a flat dict of options."""
    sizes = {each.name: options[each.name] for each in fields(ModelConfig)}
    return TrainConfig(**{name: value for name, value in options.items() if name not in sizes}), ModelConfig(**sizes)
