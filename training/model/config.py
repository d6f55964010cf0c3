"""Sizes of the model and options of the trainer. A default is written once, here; the command line reads it."""

import math
from dataclasses import dataclass, fields
from typing import Any

from mclip.pipeline.machine.options import check_settings, setting

WORLD_TERMS = ("places", "steps", "feet")  # ours: not in the paper
TERMS = ("rot6d", "vertices", "velocity", "text", "image", *WORLD_TERMS)
# What a checkpoint can be the best by, among what a validation measures, and whether more of it is better.
METRICS = {
    "mpjpe_mm": False,
    "pa_mpjpe_mm": False,
    "vertex_mm": False,
    "geodesic_deg": False,
    "text_cosine": True,
    "image_cosine": True,
    "root_mm": False,
    "natural": True,
    "right": True,
    "text_to_motion_R@1": True,
    "text_to_motion_R@3": True,
    "text_to_motion_R@5": True,
    "text_to_motion_R@10": True,
    "text_to_motion_MedR": False,
    "motion_to_text_R@1": True,
    "motion_to_text_R@3": True,
    "motion_to_text_R@5": True,
    "motion_to_text_R@10": True,
    "motion_to_text_MedR": False,
}


PAPERS_BATCH = 20


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the auto-encoder; the defaults are the paper's."""

    latent: int = setting(0, "Width of z and of the model; 0 takes the width of the encoder's vectors.", least=0)
    layers: int = setting(8, "Layers in the encoder, and in the decoder.", least=1)
    heads: int = setting(4, "Attention heads.", least=1)
    feed_forward: int = setting(1024, "Width of the feed-forward layers.", least=1)
    dropout: float = setting(0.1, "Dropout probability of every layer.", least=0, below=1)
    unit_latent: bool = setting(False, "Decode from z / |z|; not in the paper.")
    copied_layers: bool = setting(False, "Let all layers begin as copies of one, as the release's; else each is drawn.")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.latent % self.heads:
            raise ValueError(f"latent width {self.latent} does not divide by {self.heads} heads: change --heads")


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are the paper's."""

    encoder: str = setting("", "Encoder whose vectors to train on [default: the store's only one].")
    batch: int = setting(PAPERS_BATCH, "Crops per step.", least=1)
    epochs: float = setting(100.0, "How often every window is seen.", above=0)
    accumulate: int = setting(1, "Parts in which a batch goes through the model, to need less memory.", least=1)
    optimizer: str = setting(
        "adamw", "AdamW; or Muon for the layers' matrices, and AdamW for the rest.", ("adamw", "muon")
    )
    learning_rate: float = setting(1e-4, "Learning rate.", above=0)
    rate_rule: str = setting(
        "none", "Learning rate at another batch than 20: as it is, or times sqrt(batch / 20).", ("none", "sqrt")
    )
    weight_decay: float = setting(0.01, "Weight decay.", least=0)
    schedule: str = setting("constant", "How the learning rate changes over time.", ("constant", "cosine"))
    warmup: int = setting(0, "Steps in which the learning rate rises linearly.", least=0)
    clip_gradient: float = setting(0.0, "Largest gradient norm; 0 sets no limit.", least=0)
    ema: float = setting(0.0, "Decay of the moving average of the weights; 0 keeps none.", least=0, most=0.99999)
    target: str = setting(
        "joined",
        "Text of a crop: all its labels joined, one of them at random, a category, or any of these two.",
        ("joined", "label", "category", "any"),
    )
    short: str = setting(
        "mask",
        "Windows shorter than a crop: mask what is missing, or continue them as a cycle or a held pose.",
        ("mask", "continue"),
    )
    long_windows: float = setting(
        0.0,
        "How much more often long windows are taken: the number of crops in them to this power. The paper's 0: alike.",
        least=0,
        most=1,
    )
    middle_crops: float = setting(
        0.0,
        "Share of the crops that are the middle ones of their windows; then only those are decoded from texts. "
        "Not in the paper.",
        least=0,
        most=1,
    )
    mirror: float = setting(0.0, "Share of the crops that are mirrored, with left and right swapped.", least=0, most=1)
    yaw: float = setting(0.0, "Largest random turn about the vertical, in degrees.", least=0, most=180)
    speed: float = setting(
        0.0, "Largest random change of speed: 0.2 plays at 0.8 to 1.2 times the speed.", least=0, most=0.5
    )
    latent_noise: float = setting(
        0.0, "Largest noise on z before decoding, as a share of |z|; not in the paper.", least=0
    )
    text_decoding: float = setting(
        0.0, "Share of a batch that is decoded from a label's vector; not in the paper.", least=0, most=1
    )
    rot6d_weight: float = setting(1.0, "Weight of the squared error of the rotations.", least=0)
    vertices_weight: float = setting(1.0, "Weight of the squared error of the vertices.", least=0)
    velocity_weight: float = setting(1.0, "Weight of the squared error of the frame differences.", least=0)
    text_weight: float = setting(0.01, "Weight of 1 - cos(z, text).", least=0)
    image_weight: float = setting(0.01, "Weight of 1 - cos(z, image).", least=0)
    places_weight: float = setting(
        0.0, "Weight of the squared error of the joints' places in the world; not in the paper.", least=0
    )
    steps_weight: float = setting(
        0.0, "Weight of the squared error of their steps from frame to frame; not in the paper.", least=0
    )
    feet_weight: float = setting(
        0.0, "Weight of the squared steps of feet that stand in the source; not in the paper.", least=0
    )
    vertex_loss: str = setting(
        "closed-form",
        "All vertices without pose correctives in closed form, all of them through the body, or a random subset.",
        ("closed-form", "full", "subset"),
    )
    vertex_subset: int = setting(512, "Vertices per step for --vertex-loss subset.", least=1)
    loss_body: str = setting("default", "Body of the vertex loss: default, low, or an .npz such as SMPL's.")
    clip_loss: str = setting(
        "cosine",
        "How z is compared with text and image: 1 - cos, squared error, or InfoNCE over the batch.",
        ("cosine", "mse", "infonce"),
    )
    precision: str = setting(
        "auto", "auto is bfloat16 where the machine multiplies it fast.", ("auto", "float32", "bfloat16")
    )
    tf32: bool = setting(False, "Let CUDA multiply float32 in TF32.")
    step: str = setting(
        "auto",
        "How a step is taken: by operations, or captured as one CUDA graph, compiled before or not; auto is what pays.",
        ("auto", "eager", "compiled", "graph"),
    )
    storage: str = setting(
        "float32",
        "Type of the rotations on the device; float16 halves them and turns them by 0.03 degrees at most.",
        ("float32", "float16"),
    )
    seed: int = setting(10, "Seed for weights, order, crops and dropout.", least=0)
    log_every: int = setting(50, "Steps between two lines of losses.", least=1)
    validate_every: int = setting(500, "Steps between two validations.", least=1)
    save_every: int = setting(500, "Steps between two checkpoints.", least=1)
    keep_every: int = setting(
        0, "Steps between checkpoints that stay beside the last two and the best; 0 keeps none.", least=0
    )
    best: str = setting("mpjpe_mm", "Metric by which the best checkpoint is chosen.", tuple(METRICS))
    wandb: str = setting("", "Project of Weights & Biases to report to as well.")

    def __post_init__(self) -> None:
        check_settings(self)
        if not any(self.weights.values()):
            raise ValueError("the weight of every loss is 0: raise one of " + ", ".join(f"--{t}-weight" for t in TERMS))

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every loss, by its name."""
        return {term: getattr(self, f"{term}_weight") for term in TERMS}

    def learning_rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step of `steps`: linear rise, then constant or half a cosine down to a hundredth.

        At another batch than the paper's, by choice, times the square root of the ratio: what keeps the noise of Adam's
        steps (Malladi et al. 2022, definition 5; its betas stay as they are).
        """
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2 if self.schedule == "cosine" else 1.0
        for_batch = math.sqrt(self.batch / PAPERS_BATCH) if self.rate_rule == "sqrt" else 1.0
        return self.learning_rate * for_batch * rise * fall


def split_options(options: dict[str, Any]) -> tuple[TrainConfig, ModelConfig]:
    """The two configs of a flat dict of options."""
    sizes = {each.name: options[each.name] for each in fields(ModelConfig)}
    return TrainConfig(**{name: value for name, value in options.items() if name not in sizes}), ModelConfig(**sizes)
