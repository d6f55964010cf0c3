import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.machine import speed as machine
from mclip.pipeline.machine.commands import describe_error, is_users_error
from mclip.pipeline.machine.devices import DeviceError, free_bytes, pick_device, require_bfloat16
from mclip.training.model.run import RunError, load_run

CPU = torch.device("cpu")
WALK = str(MOTIONS / "EMBEDDED/walk/walk_poses.npz")
# Every command that computes on a device: its words, RUN and STORE for what the fixtures hold.
COMMANDS = {
    "render": ("STORE", "--body", "low", "--size", "64"),
    "video": ("STORE", "walk/walk_poses", "walk.mp4", "--size", "64"),
    "embed": ("STORE", "--clip", "offline"),
    "train": ("STORE", "made", "--layers", "1", "--feed-forward", "64", "--batch", "2", "--epochs", "0.5"),
    "evaluate": ("RUN", "STORE", "--classes", "babel60"),
    "generate": ("RUN", "a walk", "--seed", "1", "--format", "npz"),
    "edit": ("RUN", "--base", WALK, "--from", "walk", "--to", "run", "--format", "npz"),
    "interpolate": ("RUN", "walk", "kick", "--format", "npz"),
    "style": ("RUN", "--content", WALK, "--style", "proud", "--format", "npz"),
    "recognise": ("RUN", WALK),
    "search": ("RUN", "a kick", "--store", "STORE"),
    "gallery": ("RUN", "STORE", "--most", "1"),
    "studio": ("RUN",),
    "serve": ("RUN",),
    "page": ("RUN", "model.html"),
    "export-model": ("RUN", "given"),
}


def test_an_asked_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == CPU
    with pytest.raises(DeviceError, match="--device cuda:1: no CUDA device is visible .*use --device cpu"):
        pick_device("cuda:1")


def test_what_a_device_lacks_is_named(monkeypatch):
    for words, state in (
        (r"cuda: torch \S+ was built without CUDA: install another build", {"version.cuda": None}),
        (
            r"cuda: no CUDA device is visible to torch \S+ \(The NVIDIA driver on your system is too old\)",
            {"cuda.is_available": lambda: False, "cuda.init": too_old},
        ),
        (
            r"cuda:2: no such GPU; here are cuda:0 \(GPU 0\), cuda:1 \(GPU 1\)",
            {
                "cuda.is_available": lambda: True,
                "cuda.device_count": lambda: 2,
                "cuda.get_device_name": lambda n: f"GPU {n}",
            },
        ),
        (r"mps: torch \S+ was built without MPS", {"backends.mps.is_available": lambda: False}),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(torch.version, "cuda", "13.0")
            for name, value in state.items():
                changed.setattr(f"torch.{name}", value)
            with pytest.raises(DeviceError, match=f"^--device {words}.*; use --device cpu$"):
                pick_device(words.partition(": ")[0])


def too_old():
    raise RuntimeError("The NVIDIA driver on your system is too old. Please update your GPU driver")


def test_a_gpu_that_is_full_or_lacks_an_operator_is_told_with_the_way_out():
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of")
    told = describe_error(full)
    assert told.startswith("the device has no memory left (CUDA out of memory): lower --batch or --frames, raise --acc")
    lacks = NotImplementedError("The operator 'aten::x' is not currently implemented for the MPS device. If you")
    assert is_users_error(lacks)
    assert describe_error(lacks).endswith(": pass --device cpu, or set PYTORCH_ENABLE_MPS_FALLBACK=1")
    assert not is_users_error(NotImplementedError("a method of ours"))


def test_a_torch_without_bfloat16_products_is_named_with_the_way_out(monkeypatch):
    require_bfloat16(CPU)
    # `meta` computes nothing; a type it does not have stands for a torch that lacks the asked one.
    monkeypatch.setattr(torch, "bfloat16", torch.uint4)
    with pytest.raises(
        DeviceError, match=r"--precision bfloat16: torch .* has no such product on cpu .*--precision float32"
    ):
        require_bfloat16(CPU)


def test_the_rate_of_products_is_what_a_product_takes():
    rate = machine.matmul_rate(torch.float32, CPU, rows=64, width=32)
    assert 1e8 < rate < 1e14
    assert machine.matmul_rate(torch.float32, CPU, rows=64, width=32) == rate  # measured once a process
    speed = machine.Speed(rate=2e9, flops=500_000_000, dtype=torch.float32)
    assert speed.share(0.25) == pytest.approx(1)
    assert speed.share(0.5) == pytest.approx(0.5)
    assert speed.told(0.5) == "1 of 2 GFLOP/s (MFU 50%)"
    assert machine.Speed(5e14, 240 * 10**9, torch.bfloat16).told(0.001) == "240 of 500 TFLOP/s (MFU 48%)"
    assert str(speed) == "matrix products: 2 GFLOP/s in float32, 0.5 GFLOP a step: at best 4 steps/s"


def test_free_memory_is_what_the_system_tells():
    with open("/proc/meminfo") as file:
        told = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in file}
    assert free_bytes(CPU) == pytest.approx(told["MemAvailable"], rel=0.2)


def told(name: str, run: Path, store: str, *options: str) -> tuple[int, str]:
    """Exit code and output of one of COMMANDS."""
    words = [{"RUN": str(run), "STORE": store}.get(word, word) for word in COMMANDS[name]]
    answer = CliRunner().invoke(cli, [name, *words, *options])
    return answer.exit_code, answer.output


def test_every_command_that_computes_can_be_told_where():
    computing = {name for name, command in cli.commands.items() if "device" in {each.name for each in command.params}}
    assert computing == {*COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_gpu_that_is_not_there_is_refused_in_one_line_by(name, run, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, output = told(name, run.folder, store.url, "--device", "cuda")
    assert code == 1
    assert output.startswith("Error: --device cuda: no CUDA device is visible to torch")
    assert output.endswith("; use --device cpu\n")
    assert output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def copies(run, store, tmp_path, monkeypatch):
    """A run whose best checkpoint, of step 6, is not the last one, and a store; the tests may write to both."""
    shutil.copytree(run.folder, tmp_path / "run")
    shutil.copytree(store.url, tmp_path / "store.zarr")
    state = tmp_path / "run/checkpoints/00000006/state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"mpjpe_mm": 0.001}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mclip.training.studio.server.serve", lambda space, **how: print(space.run.step))
    monkeypatch.setattr("mclip.training.serve.server.serve", lambda *what, **how: None)
    return tmp_path / "run", str(tmp_path / "store.zarr")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "page"])  # tests/test_model_page.py makes one
def test_on_the_cpu_runs(name, copies):
    code, output = told(name, *copies, "--device", "cpu")
    assert code == 0, output


def test_a_checkpoint_is_opened_by_its_name(copies):
    folder, _ = copies
    last, best = load_run(folder), load_run(folder, checkpoint="best")
    assert (last.step, best.step) == (12, 6)
    assert load_run(folder, checkpoint="last").fingerprint == load_run(folder, checkpoint=12).fingerprint
    assert load_run(folder, checkpoint="00000006").fingerprint == best.fingerprint != last.fingerprint
    here = "here are those of the steps 6, 12: pass one of them, or last"
    for word in ("7", "worst", "-1", "1e3"):
        with pytest.raises(RunError, match=f"--checkpoint {word}: no such checkpoint; {here}, or best"):
            load_run(folder, checkpoint=word)
    for state in (folder / "checkpoints").glob("*/state.json"):
        known = json.loads(state.read_text())
        state.write_text(json.dumps({name: known[name] for name in ("step", "steps", "z_length")}))
    with pytest.raises(RunError, match=f"--checkpoint best: no checkpoint was validated by mpjpe_mm; {here}$"):
        load_run(folder, checkpoint="best")


@pytest.mark.parametrize("name", ["generate", "recognise", "search", "studio"])
def test_the_best_checkpoint_gives_other_numbers_than_the_last_in(name, copies, tmp_path):
    answers = []
    for checkpoint in ("last", "best"):
        folder = tmp_path / checkpoint
        code, output = told(name, *copies, "--checkpoint", checkpoint, *(("--out", str(folder)) * (name == "generate")))
        assert code == 0, output
        answers.append([path.read_bytes() for path in folder.glob("*.npz")] or output)
    assert answers[0] != answers[1]
