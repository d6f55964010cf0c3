"""Write files of AMASS's true shape from a folder of real motions: 120 Hz, (T, 156) float64, dmpls, np.savez.

    python -m mclip.workflows.make_amass_like SOURCE FOLDER --gigabytes 2

Every round over the motions turns them about the vertical and adds noise, so that no two files are alike.
"""

import itertools
from pathlib import Path

import click
import numpy as np
import torch

from mclip.pipeline.geometry.recording import Recording
from mclip.pipeline.geometry.resample import resample
from mclip.pipeline.geometry.rotations import matrix_to_axis_angle, rot6d_to_matrix
from mclip.pipeline.geometry.skeleton import SMPLH_JOINTS
from mclip.pipeline.prepare import sources
from mclip.pipeline.prepare.amass import read_motion

FPS = 120.0


def arrays_of(motion: Recording, generator: np.random.Generator) -> dict[str, object]:
    """An AMASS file's arrays: the motion at 120 Hz, turned about the vertical."""
    rot6d, trans = resample(motion, FPS)
    angle = generator.uniform(0, 2 * np.pi)
    turn = torch.tensor([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    matrix = rot6d_to_matrix(rot6d.double())
    matrix[:, 0] = turn @ matrix[:, 0]
    poses = generator.normal(scale=1e-3, size=(len(rot6d), 52, 3))
    poses[:, SMPLH_JOINTS] += matrix_to_axis_angle(matrix).numpy()
    return {
        "trans": (trans.double() @ turn.T).numpy(),
        "gender": "male",
        "mocap_framerate": FPS,
        "betas": generator.normal(size=16),
        "dmpls": generator.normal(scale=1e-2, size=(len(rot6d), 8)),
        "poses": poses.reshape(len(rot6d), 156),
    }


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--gigabytes", default=2.0, help="Stop when so much is written.")
def make(source: Path, folder: Path, gigabytes: float) -> None:
    """Write files below FOLDER from the motions of SOURCE."""
    generator = np.random.default_rng(0)
    names = [recording.name for recording in sources.recordings(source)]
    written = files = 0
    for number, name in ((number, name) for number in itertools.count() for name in names):
        path = folder / f"SET{number:03}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays_of(read_motion(source / name), generator))
        written, files = written + path.stat().st_size, files + 1
        if written >= gigabytes * 1e9:
            break
    click.echo(f"{files:,} files, {written / 1e9:.2f} GB in {folder}")


if __name__ == "__main__":
    make()
