"""The way of the data: AMASS files to 6D rotations, pictures and CLIP vectors in one Zarr store."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mclip.pipeline.store.store import Store, open_store

__all__ = ["Store", "open_store"]


def __getattr__(name: str) -> Any:
    """What a Python program begins with, imported when it is asked for: zarr takes its time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mclip.pipeline.store import store

    return getattr(store, name)
