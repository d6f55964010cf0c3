"""A store on S3: a real server of its protocol on the loopback, reached through zarr's own stores."""

import gc
import re

import pytest
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.store.location import read_neighbour
from mclip.pipeline.store.store import open_store

pytestmark = pytest.mark.filterwarnings("ignore")  # boto's and flask's own


@pytest.fixture
def bucket(monkeypatch):
    """An empty bucket of a server that runs until the test ends."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("ENDPOINT_URL", f"http://{host}:{port}"),
        ("ACCESS_KEY_ID", "x"),
        ("SECRET_ACCESS_KEY", "x"),
        ("DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().makedirs("motions", exist_ok=True)
    yield "s3://motions"
    server.stop()
    # aiohttp's sessions warn when they are collected: here, where that is ignored, and not in somebody else's test.
    s3fs.S3FileSystem.clear_instance_cache()
    gc.collect()


def test_prepare_status_and_validate_work_on_s3_and_give_the_local_arrays(
    tmp_path, bucket, amass_folder, monkeypatch, prepared
):
    monkeypatch.chdir(tmp_path)
    url = f"{bucket}/amass/store.zarr"
    runner = CliRunner()
    first = runner.invoke(cli, ["prepare", str(amass_folder), url])
    assert first.exit_code == 0, first.output
    assert "5 sequences done" in first.output
    again = runner.invoke(cli, ["prepare", str(amass_folder), url])
    assert "0 sequences done, 5 skipped" in again.output
    told = runner.invoke(cli, ["status", url]).output
    assert "5 of 5 sequences" in told
    assert re.search(r"\d\.\d MB\n", told)
    assert " 0.0 MB" not in told
    assert runner.invoke(cli, ["validate", url]).output == f"{url}: sound\n"
    remote = open_store(url)
    for path in ("motion/rot6d", "motion/trans", "sequences/sha256", "windows/labelset"):
        assert remote.read(path).tobytes() == prepared.read(path).tobytes()
    assert len(read_neighbour(url, ".manifest.jsonl").splitlines()) == 5


def test_a_dead_holder_of_a_store_on_s3_is_taken_over_by_the_flag(tmp_path, bucket, amass_folder, monkeypatch):
    import s3fs

    monkeypatch.chdir(tmp_path)
    s3fs.S3FileSystem().pipe_file("motions/s.zarr.lock", b'{"pid": 7, "host": "elsewhere", "since": 0}')
    words = ["prepare", str(amass_folder), f"{bucket}/s.zarr"]
    refused = CliRunner().invoke(cli, words)
    assert refused.exit_code == 1
    assert "process 7 on elsewhere has been writing here" in refused.output
    assert "pass --take-over" in refused.output
    assert CliRunner().invoke(cli, [*words, "--take-over"]).exit_code == 0
    assert not s3fs.S3FileSystem(skip_instance_cache=True).exists("motions/s.zarr.lock")


def test_every_command_takes_a_store_on_s3(tmp_path, bucket, store, monkeypatch):
    import s3fs

    monkeypatch.chdir(tmp_path)
    url = f"{bucket}/three.zarr"
    s3fs.S3FileSystem().put(store.url, url, recursive=True)
    motion = "store:kick"
    for words, told in (
        (["render", url, "--body", "low", "--size", "32", "--replace"], "contact sheet: three.png"),
        (["embed", url, "--clip", "offline"], "3 images done"),
        (["train", url, "run", "--layers", "1", "--epochs", "0.5", "--batch", "2"], "1 steps"),
        (["evaluate", "run", url, "--replace"], "3 windows of split train"),
        (["search", "run", motion, "--store", url, "--top", "1"], "kick"),
        (
            [
                "edit",
                "run",
                "--base",
                motion,
                "--from",
                motion,
                "--to",
                motion,
                "--scale",
                "1",
                "--store",
                url,
                "--format",
                "npz",
                "--out",
                "edited",
            ],
            "1 motions",
        ),
        (
            [
                "interpolate",
                "run",
                motion,
                motion,
                "--steps",
                "2",
                "--store",
                url,
                "--format",
                "npz",
                "--out",
                "between",
            ],
            "2 motions",
        ),
        (["inspect", url, "kick"], "picture: inspect.png"),
        (["gallery", "run", url, "--most", "1"], "gallery.html"),
    ):
        result = CliRunner().invoke(cli, words)
        assert (result.exit_code, told in result.output) == (0, True), f"{words}\n{result.output}"
    assert open_store(url).array("pictures/rgb").shape[1:] == (32, 32, 3)
