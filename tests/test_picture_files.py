"""Pictures as files for others: what WebDataset reads, and the same in a folder."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mclip.cli import cli
from mclip.pipeline.render import picture_files as pictures
from mclip.pipeline.render.picture_files import export_pictures
from mclip.pipeline.store.schema import StoreError
from mclip.pipeline.store.store import Store, open_store


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its files open
def test_tar_is_what_webdataset_reads(store: Store, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    assert export_pictures(store, tmp_path / "p.tar") == f"{tmp_path / 'p.tar'}: 3 pictures"
    rgb = store.read("pictures/rgb")
    samples = list(webdataset.WebDataset(str(tmp_path / "p.tar"), shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == ["00000000", "00000001", "00000002"]
    for item, sample in enumerate(samples):
        assert (sample["png"] == rgb[item]).all()
        assert sample["json"]["window"] == store.read("pictures/window")[item]
        assert sample["txt"] == " and ".join(sample["json"]["labels"])


def test_members_of_a_picture_follow_one_another(store: Store, tmp_path: Path) -> None:
    export_pictures(store, tmp_path / "p.tar")
    with tarfile.open(tmp_path / "p.tar") as tar:
        names = tar.getnames()
    assert names == [f"{item:08d}.{kind}" for item in range(3) for kind in ("png", "json", "txt")]


def test_a_picture_tells_file_moment_and_the_labels_of_that_moment(store: Store, tmp_path: Path) -> None:
    export_pictures(store, tmp_path / "p")
    for item in range(3):
        told = json.loads((tmp_path / f"p/{item:08d}.json").read_text())
        sequence = store.strings("sequences/name").index(told["sequence"])
        row = store.read("windows/row")[told["window"]] + told["frame"]
        assert told["seconds"] == pytest.approx((row - store.read("sequences/row")[sequence]) / 30, abs=1e-3)
        columns = (store.read(f"spans/{name}").tolist() for name in ("sequence", "start", "end", "text"))
        spans = zip(*columns, strict=True)
        texts = store.strings("texts")
        expected = {texts[t] for s, a, b, t in spans if s == sequence and a <= told["seconds"] < b}
        assert told["labels"] == sorted(expected)
        assert told["labels"]


def test_folder_and_tar_hold_the_same_files_and_equal_runs_equal_bytes(store: Store, tmp_path: Path) -> None:
    export_pictures(store, tmp_path / "folder")
    for name in ("one.tar", "two.tar"):
        export_pictures(store, tmp_path / name)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian 12's Python 3.11.2 has none
        tar.extractall(tmp_path / "extracted")
    left, right = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("[!.]*")} for name in ("folder", "extracted")
    )
    assert left == right
    with Image.open(tmp_path / "folder/00000001.png") as image:
        assert np.array_equal(np.asarray(image), store.read("pictures/rgb")[1])


@pytest.mark.parametrize("name", ["p", "p.tar"])
def test_nothing_is_left_of_an_export_that_fails(store: Store, tmp_path: Path, monkeypatch, name: str) -> None:
    def full(*_: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures.Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        export_pictures(store, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_not_written_over(store: Store, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    with pytest.raises(ValueError, match="p: is there already"):
        export_pictures(store, tmp_path / "p")


def test_a_store_without_pictures_names_render(tmp_path: Path, prepared: Store) -> None:
    with pytest.raises(StoreError, match="run `mclip render"):
        export_pictures(prepared, tmp_path / "p")


def test_the_command_exports_what_is_drawn(store: Store, tmp_path: Path) -> None:
    told = CliRunner().invoke(
        cli, ["render", store.url, "--body", "low", "--size", "64", "--export", str(tmp_path / "p.tar")]
    )
    assert told.exit_code == 0, told.output
    assert "p.tar: 3 pictures" in told.output
    assert open_store(store.url).read("pictures/done").tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["p", "p.tar"])
def test_the_same_export_again_makes_nothing_and_another_is_refused(store: Store, tmp_path: Path, name: str) -> None:
    first = export_pictures(store, tmp_path / name)
    count = first.split(": ")[1]
    assert export_pictures(store, tmp_path / name) == f"{tmp_path / name}: nothing to do, {count} are there"
    (tmp_path / name).rename(tmp_path / "whole")
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(ValueError, match="is there already"):
        export_pictures(store, tmp_path / name)
