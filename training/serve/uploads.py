"""Motions as they come over a network: bytes and a name that nobody here gave."""

import tempfile
from pathlib import Path

from mclip.pipeline.prepare.sources import MOTIONS
from mclip.training.show.motion import Motion, read

PICKLES = (".pkl", ".pt", ".smpl", ".npy")  # of programs of one's own machine; over a network there is no need of them
UPLOADS = tuple(kind for kind in MOTIONS if kind not in PICKLES)


def read_upload(name: str, content: bytes) -> Motion:
    """The motion in a file's bytes, as its name's ending says; ValueError by that name for what cannot be read."""
    kind = Path(name).suffix.lower()
    if kind not in UPLOADS:
        raise ValueError(f"{name[:100]!r}: expected the name of a motion file, which ends in {' or '.join(UPLOADS)}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"motion{kind}")
        path.write_bytes(content)
        try:
            return read(path)
        except (ValueError, OSError) as error:
            raise ValueError(f"{name[:100]}: {str(error).replace(str(path), '').removeprefix(': ')}") from error
