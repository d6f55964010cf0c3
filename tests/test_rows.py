"""The model's rows, and the row that the release's models know."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.store.store import Store
from mclip.training.data.crops import crops_of
from mclip.training.data.rows import ankle_places, from_origin, joints_of, rows_as_trained, rows_of_motion
from mclip.training.latent.search import encoded
from mclip.training.latent.space import encode
from mclip.training.model.run import Run
from mclip.training.model.run_documents import ANKLE_PATH


@pytest.fixture
def imported(run: Run) -> Run:
    """The small run, called one of the release's."""
    return replace(run, config=run.config | {"data": run.config["data"] | {"row25": ANKLE_PATH}})


def matrix(six: np.ndarray) -> np.ndarray:
    """A rotation of two rows by Gram and Schmidt (Zhou et al. 2019, section 4.2)."""
    first = six[:3] / np.linalg.norm(six[:3])
    second = six[3:] - first * (first @ six[3:])
    second /= np.linalg.norm(second)
    return np.stack((first, second, np.cross(first, second)))


def ankle(six_JD: np.ndarray) -> np.ndarray:
    """The right ankle by its chain from the pelvis: hip (2), knee (5), ankle (8), as SMPL numbers them."""
    rest = load_body().joints_J3.double().numpy()
    place, turned = rest[0], np.eye(3)
    for joint, parent in ((2, 0), (5, 2), (8, 5)):
        turned = turned @ matrix(six_JD[parent])
        place = place + turned @ (rest[joint] - rest[parent])
    return place


def test_the_ankle_is_where_its_chain_of_bones_leads() -> None:
    rot6d = torch.randn(5, 24, 6, generator=torch.Generator().manual_seed(0))
    found = ankle_places(rot6d)
    for frame in range(5):
        np.testing.assert_allclose(found[frame], ankle(rot6d[frame].double().numpy()), atol=1e-5)
    assert found.std(0).max() > 0.1


def rows_of_store(run: Run, store: Store) -> tuple[torch.Tensor, torch.Tensor]:
    """The first window's middle crop, its rotations and its root."""
    row, frames = (int(store.read(f"windows/{name}")[0]) for name in ("row", "frames"))
    start = row + max(frames - run.crop, 0) // 2
    at = slice(start, min(start + run.crop, row + frames))
    return torch.from_numpy(store.read("motion/rot6d", at)), torch.from_numpy(store.read("motion/trans", at))


def by_encode(run: Run, store: Store) -> torch.Tensor:
    return encode(run, rows_of_motion(*rows_of_store(run, store)))


def by_search(run: Run, store: Store) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(list(encoded(run, store)))[0])


def by_crops(run: Run, store: Store) -> torch.Tensor:
    batch = crops_of(run, store, "train").middle(torch.tensor([0]))
    return run.model.encode(batch.motion_BTRD, batch.attended_BT)[0]


@pytest.mark.parametrize("way", [by_encode, by_search, by_crops])
def test_a_run_of_the_release_is_fed_the_ankle_that_it_was_trained_with(
    run: Run, imported: Run, store: Store, way: Callable[[Run, Store], torch.Tensor]
) -> None:
    rot6d, _ = rows_of_store(run, store)
    path = torch.from_numpy(np.stack([ankle(each) for each in rot6d.double().numpy()])).float()
    expected = run.model.encode(rows_of_motion(rot6d, path - path[0])[None])[0]
    found, as_ours = (way(each, store) for each in (imported, run))
    scale = found.norm() / expected.norm()  # `encode` gives vectors at the length that the decoder knows
    torch.testing.assert_close(found, expected * scale, rtol=0, atol=1e-4)
    assert (found - as_ours).norm() > 1e-3 * found.norm()  # the control: the root's path is another row


def test_our_own_runs_rows_stay_as_they_are(run: Run, imported: Run) -> None:
    rows = rows_of_motion(torch.randn(4, 24, 6), torch.randn(4, 3))
    assert rows_as_trained(run, rows) is rows
    assert torch.equal(joints_of(rows_as_trained(imported, rows)), joints_of(rows))
    assert from_origin(rows)[0, 24].eq(0).all()
    assert imported.fingerprint != run.fingerprint  # what was encoded before is not taken for this
