import copy
import json
import math
import resource
import subprocess
import sys

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from mclip.pipeline.store.lock import claim
from mclip.training.model.config import ModelConfig
from mclip.training.model.network import MotionClip
from mclip.training.model.run import (
    RunError,
    best_checkpoint,
    checkpoints,
    delete_run,
    is_best,
    load_optimizers,
    load_run,
    read_config,
    save_checkpoint,
    start_run,
)
from mclip.training.model.run_documents import ROOT_PATH
from mclip.training.train.muon import Muon

SIZES = {"latent": 32, "layers": 1, "feed_forward": 32}
CONFIG = {
    "model": SIZES,
    "train": {},
    "data": {"fps": 30.0, "crop": 60, "store": "abc"},
    "encoder": {"name": "offline", "clip": "offline", "pretrained": None, "weights_sha256": None},
}


def stepped() -> tuple[MotionClip, list[torch.optim.Optimizer]]:
    """A model after one step of AdamW, so that the optimizer has a state."""
    torch.manual_seed(0)
    model = MotionClip(ModelConfig(**SIZES))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    model.encode(torch.randn(2, 5, 25, 6)).square().sum().backward()
    optimizer.step()
    return model, [optimizer]


@pytest.fixture
def folder(tmp_path):
    """A run folder with a checkpoint of step 1."""
    start_run(tmp_path / "run", CONFIG)
    save_checkpoint(tmp_path / "run", *stepped(), {"step": 1, "steps": 9, "z_length": 2.5})
    return tmp_path / "run"


def test_a_saved_model_comes_back_whole(folder):
    model, optimizers = stepped()
    run = load_run(folder)
    assert (run.step, run.z_length, run.fps, run.crop, run.row25) == (1, 2.5, 30.0, 60, ROOT_PATH)
    assert all(
        torch.equal(a, b) for a, b in zip(run.model.state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert not run.model.training
    fresh = torch.optim.AdamW(MotionClip(ModelConfig(**SIZES)).parameters(), lr=1e-3, fused=True)
    load_optimizers([fresh], checkpoints(folder)[-1])
    ours, theirs = fresh.state_dict()["state"], optimizers[0].state_dict()["state"]
    assert ours.keys() == theirs.keys()
    for index, values in theirs.items():
        for name, value in values.items():
            assert torch.equal(ours[index][name], value), (index, name)


def test_a_dead_trainers_name_is_cleared_by_whoever_uses_its_run(folder):
    lock = folder.with_name("run.lock")
    lock.write_bytes(claim())  # its process is gone, and with it the lock of the operating system
    load_run(folder)
    assert not lock.exists()
    lock.write_bytes(claim())
    with FileLock(f"{lock}.flock"):
        load_run(folder)
    assert lock.exists()


def test_the_fingerprint_follows_the_weights(folder):
    run, same = load_run(folder), load_run(folder)
    assert run.fingerprint == same.fingerprint
    with torch.no_grad():
        same.model.final.bias[3] += 1e-6
    assert same.fingerprint != run.fingerprint


def test_the_last_two_checkpoints_stay(folder):
    model, optimizers = stepped()
    for step in (2, 3, 4):
        save_checkpoint(folder, model, optimizers, {"step": step, "steps": 9, "z_length": None})
    assert [path.name for path in checkpoints(folder)] == ["00000003", "00000004"]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["00000003", "00000004"]


def test_the_moving_average_is_what_a_run_is_used_with(folder):
    model, optimizers = stepped()
    average = copy.deepcopy(model)
    with torch.no_grad():
        average.final.bias.fill_(0.5)
    save_checkpoint(folder, model, optimizers, {"step": 2, "steps": 9, "z_length": None}, average=average)
    assert load_run(folder).model.final.bias.eq(0.5).all()
    saved = load_file(checkpoints(folder)[-1] / "model.safetensors")
    assert torch.equal(saved["final.bias"], model.final.bias)


def test_every_kth_checkpoint_stays_where_asked(tmp_path):
    start_run(tmp_path / "run", CONFIG | {"train": {"keep_every": 3}})
    model, optimizers = stepped()
    for step in range(1, 9):
        save_checkpoint(tmp_path / "run", model, optimizers, {"step": step, "steps": 9, "z_length": None})
    assert [int(path.name) for path in checkpoints(tmp_path / "run")] == [3, 6, 7, 8]


def test_best_is_most_or_least_as_the_metric_is(tmp_path):
    for metric, expected in (("mpjpe_mm", 1), ("text_cosine", 2)):
        folder = tmp_path / metric
        start_run(folder, CONFIG | {"train": {"best": metric}})
        assert not is_best(folder, {metric: math.nan})
        for step, value in ((1, 0.1), (2, 0.7), (3, 0.5)):
            assert is_best(folder, {metric: value}) == (step == 1 or (step == 2 and metric == "text_cosine"))
            save_checkpoint(folder, *stepped(), {"step": step, "steps": 9, "z_length": None, metric: value})
        best = best_checkpoint(folder)
        assert best is not None
        assert int(best.name) == expected


FULL_DISK = """
import resource, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import torch
from mclip.training.model.config import ModelConfig
from mclip.training.model.network import MotionClip
from mclip.training.model.run import save_checkpoint
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails as on a full disk
model = MotionClip(ModelConfig(latent=32, layers=1, feed_forward=32))
optimizer = torch.optim.AdamW(model.parameters())
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    state = {"step": 2, "steps": 9, "z_length": None}
    save_checkpoint(Path(sys.argv[1]), model, [optimizer], state, average=model)
except ValueError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_previous_checkpoint_whole_and_the_next_save_cleans_up(folder):
    before = load_run(folder).fingerprint
    told = subprocess.run([sys.executable, "-c", FULL_DISK, folder], capture_output=True, text=True, check=True).stdout
    assert "could not be written" in told
    assert "make room and run the same command again" in told
    assert [path.name for path in checkpoints(folder)] == ["00000001"]
    assert load_run(folder).fingerprint == before
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    save_checkpoint(folder, *stepped(), {"step": 2, "steps": 9, "z_length": None})
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["00000001", "00000002"]


@pytest.mark.parametrize("size", [0, 7, 5000])
def test_damaged_weights_are_named_with_the_way_out(folder, size):
    file = folder / "checkpoints/00000001/model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(RunError, match=r"00000001/model.safetensors: damaged.*delete this checkpoint's folder"):
        load_run(folder)


def test_each_of_two_optimizers_comes_back_with_its_own_state(folder):
    def made(*, step: bool) -> list[torch.optim.Optimizer]:
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(size)) for size in ((3,), (3, 4), (4, 2))]
        pair = [torch.optim.AdamW(weights[:1], fused=True), Muon(weights[1:], torch.tensor(0.1), 0.0, torch.zeros(()))]
        for each in weights if step else ():
            each.grad = torch.randn_like(each)
        for optimizer in pair if step else ():
            optimizer.step()
        return pair

    saved, fresh = made(step=True), made(step=False)
    final = save_checkpoint(folder, stepped()[0], saved, {"step": 2, "steps": 9, "z_length": None})
    load_optimizers(fresh, final)
    for ours, theirs in zip(fresh, saved, strict=True):
        torch.testing.assert_close(ours.state_dict()["state"], theirs.state_dict()["state"], rtol=0, atol=0)
    assert [len(each.state) for each in fresh] == [1, 2]


def test_a_damaged_optimizer_is_named(folder):
    file = folder / "checkpoints/00000001/optimizer.safetensors"
    file.write_bytes(b"rot")
    with pytest.raises(RunError, match=r"optimizer.safetensors: damaged"):
        load_optimizers(stepped()[1], folder / "checkpoints/00000001")


def test_weights_of_another_size_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["model"]["feed_forward"] = 48
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"does not fit the model of config.json: .*size mismatch"):
        load_run(folder)


def test_a_run_of_before_an_option_goes_on_and_one_of_options_that_are_no_more_is_told(tmp_path):
    now = CONFIG | {"train": {"batch": 20, "yaw": 0.0}}
    start_run(tmp_path / "run", CONFIG | {"train": {"batch": 20}})
    start_run(tmp_path / "run", now)
    with pytest.raises(RunError, match=r"made with other options: \{'train': \{'yaw': '0.0 -> 90.0'\}\}"):
        start_run(tmp_path / "run", CONFIG | {"train": {"batch": 20, "yaw": 90.0}})
    start_run(tmp_path / "old", CONFIG | {"train": {"batch": 20, "rot6d": 1.0, "text": 0.01}})
    with pytest.raises(
        RunError, match=r"old: trained by another version .* \(rot6d, text\): it can be used; .* --replace"
    ):
        start_run(tmp_path / "old", now)


def test_weights_of_another_version_are_told_to_be_trained_again_in_one_line(folder):
    file = checkpoints(folder)[-1] / "model.safetensors"
    whole = load_file(file)
    renamed = {name.replace("attention.qkv", "self_attn.in_proj"): tensor for name, tensor in whole.items()}
    lacking = {name: tensor for name, tensor in whole.items() if "value" not in name}
    for changed, told in (
        (renamed, r"found \S+self_attn.in_proj\S+, .*; expected \S+attention.qkv\S+, .*"),
        (lacking, r"found no more; expected decoder.N.value.bias, decoder.N.value.weight"),
        (whole | {"sigma": torch.zeros(2)}, r"found sigma; expected no more"),
    ):
        save_file(changed, file)
        line = rf"^\S+: weights of another version of mclip \({told}\): use that version, or train the run again .*$"
        with pytest.raises(RunError, match=line):
            load_run(folder)


def test_vectors_and_optimizers_of_other_names_or_shapes_are_named(folder):
    last = checkpoints(folder)[-1]
    z, told = torch.zeros(3, 32), torch.zeros(2, 32)
    for tensors in ({"z": torch.zeros(3, 31)}, {"z": torch.zeros(32)}, {"x": z}, {"told": z}, {"z": z, "told": told}):
        save_file(tensors, last / "latents.safetensors")
        with pytest.raises(
            RunError,
            match=r"latents.safetensors: damaged \(found .*, expected z of N x 32, and told of the same or none\)",
        ):
            load_run(folder)
    for empty in (torch.zeros(0, 32), torch.zeros(3, 32), torch.full((3, 32), torch.nan)):
        save_file({"z": empty}, last / "latents.safetensors")
        with pytest.raises(RunError, match=r"latents.safetensors: damaged \(z holds no vector, or one without a dir"):
            load_run(folder)
    save_file({"x" * 10_000: torch.zeros(1)}, last / "optimizer.safetensors")
    with pytest.raises(RunError, match=r"optimizer.safetensors: damaged \(found 'x+\.\.\., expected a number") as told:
        load_optimizers(stepped()[1], last)
    assert len(str(told.value)) < 500


def test_an_unfinished_checkpoint_is_not_taken(folder):
    (folder / "checkpoints/00000002").mkdir()
    assert load_run(folder).step == 1


def test_folders_that_are_no_runs_are_told_apart(tmp_path, folder):
    with pytest.raises(RunError, match="no run here .*mclip train STORE"):
        load_run(tmp_path / "nowhere")
    start_run(tmp_path / "new", CONFIG)
    with pytest.raises(RunError, match="no checkpoint yet"):
        load_run(tmp_path / "new")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.png").touch()
    with pytest.raises(RunError, match="exists and is no run folder"):
        start_run(tmp_path / "photos", CONFIG)
    with pytest.raises(RunError, match="--replace leaves it alone"):
        delete_run(tmp_path / "photos")
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json: damaged"):
        read_config(folder)


def test_a_kill_before_config_json_does_not_block_the_folder(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.config.json.partial").write_text("{")
    start_run(tmp_path / "run", CONFIG)
    assert read_config(tmp_path / "run")["model"] == SIZES


def test_replace_deletes_a_run(folder):
    delete_run(folder)
    assert not folder.exists()
    delete_run(folder)
