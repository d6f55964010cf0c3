"""Where zarr reads and writes: a store whose every zarr.json carries a checksum of itself.

Chunks have their crc32c from zarr; metadata has none in the format, so it is an attribute, which other programs pass
over. A checksum is written in the same write as what it is of.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zarr.abc.store import Store
from zarr.core.buffer import Buffer
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from mclip.pipeline.files.seal import SEAL, seal_of
from mclip.pipeline.store.location import filesystem_of, is_local

METADATA = "zarr.json"
CONSOLIDATED = "consolidated_metadata"  # a copy of the metadata below, which other programs add for speed


class SealedStore(WrapperStore[Store]):
    """A zarr store that puts the checksum into metadata on its way out."""

    async def set(self, key: str, value: Buffer) -> None:
        """Write a file or object."""
        await self._store.set(key, sealed(key, value))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write one that is not there."""
        await self._store.set_if_not_exists(key, sealed(key, value))

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        await self._store._set_many((key, sealed(key, value)) for key, value in values)


def sealed(key: str, value: Buffer) -> Buffer:
    """What is written at a key: metadata with its checksum, anything else as it is."""
    if key.rpartition("/")[2] != METADATA:
        return value
    document = json.loads(value.to_bytes())
    document["attributes"] = document.get("attributes", {}) | {SEAL: metadata_seal(document)}
    return type(value).from_bytes(json.dumps(document, indent=2).encode())


def metadata_seal(document: dict[str, Any]) -> str:
    """Checksum of a zarr.json without the checksum, and without what other programs add to it."""
    kept = {key: value for key, value in document.items() if key not in (CONSOLIDATED, "attributes")}
    kept["attributes"] = {key: value for key, value in document.get("attributes", {}).items() if key != SEAL}
    return seal_of(kept)


def metadata_fault(content: bytes) -> str | None:
    """What is wrong with a zarr.json as it lies there; None when it is what mclip wrote."""
    try:
        document = json.loads(content)
        found = document["attributes"].get(SEAL)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return f"is no metadata of zarr ({error})"
    if found is None:
        return f"has no {SEAL} among its attributes: written by another program, or damaged"
    return None if found == metadata_seal(document) else "was changed since mclip wrote it: damaged, or edited"


def zarr_store(url: str) -> SealedStore:
    """What zarr opens for a path or URL; StoreError naming a package that is missing. Makes no folder."""
    if is_local(url):
        return SealedStore(LocalStore(Path(url)))
    filesystem_of(url)
    return SealedStore(FsspecStore.from_url(url))
