"""The way of the model: cached vectors to a trained MotionCLIP, and its latent space in use."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mclip.training.api import CropDataset, Motion, MotionClip

__all__ = ["CropDataset", "Motion", "MotionClip"]


def __getattr__(name: str) -> Any:
    """What a Python program begins with, imported when it is asked for: torch takes its time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mclip.training import api

    return getattr(api, name)
