"""Sizes of the model and options of the trainer. A default is written once, here; the command line reads it."""

import math
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from typing import Any

import click

TERMS = ("rot6d", "vertices", "velocity", "text", "image")
# What a checkpoint can be the best by, among what a validation measures, and whether more of it is better.
METRICS = {
    "mpjpe_mm": False, "pa_mpjpe_mm": False, "vertex_mm": False, "geodesic_deg": False,
    "text_cosine": True, "image_cosine": True,
    "text_to_motion_R@1": True, "text_to_motion_R@3": True, "text_to_motion_R@5": True, "text_to_motion_R@10": True,
    "text_to_motion_MedR": False,
    "motion_to_text_R@1": True, "motion_to_text_R@3": True, "motion_to_text_R@5": True, "motion_to_text_R@10": True,
    "motion_to_text_MedR": False,
}  # fmt: skip

MOST = {"ema": 0.99999, "mirror": 1, "yaw": 180, "speed": 0.5}  # the largest values of these options


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
    copied_layers: bool = setting(False, "Let all layers begin as copies of one, as the release's; else each is drawn.")

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
    ema: float = setting(0.0, "Share of the weights' moving average that stays each step; 0 is none.")
    target: str = setting(
        "joined", "Text of a crop: all its labels joined, one at random, a category, or any of both.",
        ("joined", "label", "category", "any"),
    )  # fmt: skip
    short: str = setting(
        "mask", "Windows under a crop: mask what is missing, or continue them as a cycle or a held pose.",
        ("mask", "continue"),
    )  # fmt: skip
    mirror: float = setting(0.0, "Share of the crops that is mirrored, left and right swapped.")
    yaw: float = setting(0.0, "Largest random turn about the vertical, in degrees.")
    speed: float = setting(0.0, "Largest random change of speed: 0.2 is from 0.8 to 1.2 times as fast.")
    latent_noise: float = setting(0.0, "Most noise on z before decoding, as a share of |z|; not in the paper.")
    text_decoding: float = setting(0.0, "Share of a batch decoded from a label's vector; not in the paper.")
    rot6d: float = setting(1.0, "Weight of the rotations' squared error.")
    vertices: float = setting(1.0, "Weight of the vertices' squared error.")
    vertex_loss: str = setting(
        "closed-form", "All vertices without pose correctives in closed form, all through the body, or some a step.",
        ("closed-form", "full", "subset"),
    )  # fmt: skip
    vertex_subset: int = setting(512, "Vertices a step of --vertex-loss subset.")
    loss_body: str = setting("default", "Whose vertices: default, low, or a body's .npz, such as SMPL's.")
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
    tf32: bool = setting(False, "Let CUDA multiply float32 in TF32.")
    compile: bool = setting(False, "Compile the model with torch.compile, where that works.")
    storage: str = setting("float32", "How the rotations lie on the device.", ("float32", "float16"))
    seed: int = setting(10, "Of weights, order, crops and dropout.")
    log_every: int = setting(50, "Steps between two lines of losses.")
    validate_every: int = setting(500, "Steps between two validations.")
    save_every: int = setting(500, "Steps between two checkpoints.")
    keep_every: int = setting(0, "Steps between two checkpoints that stay, beside the last two and the best; 0: none.")
    best: str = setting("mpjpe_mm", "By what a validation's checkpoint is the best.", tuple(METRICS))
    wandb: str = setting("", "A project of Weights & Biases to report to, too.")

    def __post_init__(self) -> None:
        for each in fields(self):
            choices, value = each.metadata["choices"], getattr(self, each.name)
            if choices and value not in choices:
                raise ValueError(f"--{flag(each.name)} is {value}: expected one of {', '.join(choices)}")
        for name in ("batch", "epochs", "vertex_subset", "log_every", "validate_every", "save_every"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{flag(name)} is {getattr(self, name)}: expected more than 0")
        for each in fields(self):
            if isinstance(value := getattr(self, each.name), float) and not math.isfinite(value):
                raise ValueError(f"--{flag(each.name)} is {value}: expected a finite number")
        for name, most in MOST.items():
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"--{flag(name)} is {getattr(self, name)}: expected 0 to {most:g}")

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
