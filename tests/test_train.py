import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mclip.pipeline.embed import embed
from mclip.pipeline.files.assets import MOTIONS
from mclip.pipeline.geometry.body import load_body
from mclip.pipeline.geometry.skeleton import PARENTS
from mclip.pipeline.labels.spans import Labels
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.store.schema import StoreError
from mclip.pipeline.store.store import Store, open_store
from mclip.training.data.crops import Crops
from mclip.training.data.feed import Order
from mclip.training.model.config import ModelConfig, TrainConfig
from mclip.training.model.run import RunError, best_checkpoint, checkpoints, load_run, read_config, read_state
from mclip.training.train import journal
from mclip.training.train import train as trainer

CPU = torch.device("cpu")
TINY = {"layers": 1, "feed_forward": 32, "dropout": 0.1}
QUICK = {"batch": 2, "precision": "float32", "log_every": 2, "validate_every": 4, "save_every": 3, "target": "label"}
# What a subprocess runs: the same options as `trained` below.
SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
import json, torch
torch.set_num_threads(1)
from pathlib import Path
from mclip.pipeline.store.store import open_store
from mclip.training.model.config import ModelConfig, TrainConfig
from mclip.training.train.train import train
store, folder, config, sizes = sys.argv[1:]
config, sizes = TrainConfig(**json.loads(config)), ModelConfig(**json.loads(sizes))
print(train(open_store(store), Path(folder), config, sizes, device=torch.device("cpu")))
"""


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order, whatever the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(
    store: Store, folder: Path, *, steps: int = 12, sizes: dict | None = None, start_from: Path | None = None, **options
) -> str:
    """Train a tiny model for so many steps."""
    windows = int((store.read("windows/split") == 0).sum())
    config = TrainConfig(**QUICK | {"epochs": steps * 2 / windows} | options)
    return trainer.train(store, folder, config, ModelConfig(**TINY | (sizes or {})), device=CPU, start_from=start_from)


def command(store: Store, folder: Path, *, steps: int, sizes: dict | None = None, **options) -> list[str]:
    """The same in another process."""
    windows = int((store.read("windows/split") == 0).sum())
    config = QUICK | {"epochs": steps * 2 / windows} | options
    return [sys.executable, "-c", SCRIPT, store.url, str(folder), json.dumps(config), json.dumps(TINY | (sizes or {}))]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoints(folder)[-1] / "model.safetensors")


def assert_same_weights(a: Path, b: Path) -> None:
    for file in ("model.safetensors", "ema.safetensors"):
        ours, theirs = (load_file(checkpoints(folder)[-1] / file) for folder in (a, b))
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_resume_after_kill_9_gives_the_weights_of_the_uninterrupted_run_bit_for_bit(store, tmp_path):
    steps = 40
    options = {"save_every": 2, "validate_every": 20, "ema": 0.9, "sizes": {"dropout": 0.1}}
    options |= {"mirror": 0.5, "yaw": 180.0, "speed": 0.2, "vertex_loss": "subset", "loss_body": "low"}
    trained(store, tmp_path / "whole", steps=steps, **options)
    with subprocess.Popen(command(store, tmp_path / "killed", steps=steps, **options)) as process:
        deadline = time.monotonic() + 60
        while not checkpoints(tmp_path / "killed") and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    stopped_at = read_state(checkpoints(tmp_path / "killed")[-1])["step"]
    assert 0 < stopped_at < steps
    line = trained(store, tmp_path / "killed", steps=steps, **options)
    assert f"{steps - stopped_at:,} steps done, {stopped_at:,} skipped" in line
    assert_same_weights(tmp_path / "killed", tmp_path / "whole")
    ours, theirs = (journal.read_journal(tmp_path / name / "metrics.jsonl") for name in ("killed", "whole"))
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    assert ours == theirs


def test_training_lowers_the_loss_and_writes_what_it_measured(store, tmp_path):
    line = trained(store, tmp_path / "run", steps=40, learning_rate=3e-3, sizes={"dropout": 0.0})
    lines = journal.read_journal(tmp_path / "run/metrics.jsonl")
    totals = [each["loss/total"] for each in lines if "loss/total" in each]
    assert len(totals) == 20
    assert totals[-1] < 0.5 * totals[0]
    weighted = sum(lines[0][f"loss/{term}"] * weight for term, weight in TrainConfig().weights.items() if weight)
    assert lines[0]["loss/total"] == pytest.approx(weighted, rel=1e-5)
    measured = [each for each in lines if "train/mpjpe_mm" in each]
    assert [each["step"] for each in measured] == list(range(4, 41, 4))
    assert f"MPJPE {measured[-1]['train/mpjpe_mm']:.1f} mm" in line
    assert (tmp_path / "run/curves.png").read_bytes()[:4] == b"\x89PNG"
    assert list((tmp_path / "run/tensorboard").iterdir())


def test_second_run_does_nothing_and_says_so(store, tmp_path):
    trained(store, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert trained(store, tmp_path / "run") == f"train: 0 of 12 steps to do, {tmp_path / 'run'} is trained"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_other_options_are_refused_by_name(store, tmp_path):
    trained(store, tmp_path / "run", steps=2)
    with pytest.raises(RunError, match=r"made with other options: .*'learning_rate': '0.0001 -> 0.1'.*--replace"):
        trained(store, tmp_path / "run", steps=2, learning_rate=0.1)
    with pytest.raises(RunError, match=r"'layers': '1 -> 2'"):
        trained(store, tmp_path / "run", steps=2, sizes={"layers": 2})


EVEN = {"log_every": 2, "validate_every": 4, "save_every": 4, "ema": 0.9}


def test_a_finished_run_given_more_epochs_ends_as_one_that_had_them_from_the_first(store, tmp_path, capfd):
    trained(store, tmp_path / "whole", steps=12, **EVEN)
    trained(store, tmp_path / "longer", steps=8, **EVEN)
    before = read_config(tmp_path / "longer")["train"]["epochs"]
    capfd.readouterr()
    assert "4 steps done, 8 skipped" in trained(store, tmp_path / "longer", steps=12, **EVEN)
    assert "trained longer: 8 steps became 12, as if they had been asked for at first" in capfd.readouterr().err
    assert_same_weights(tmp_path / "longer", tmp_path / "whole")
    longer, whole = (read_config(tmp_path / name) for name in ("longer", "whole"))
    assert longer.pop("lengthened") == [{"epochs": before, "step": 8}]
    assert longer == whole
    ours, theirs = (journal.read_journal(tmp_path / name / "metrics.jsonl") for name in ("longer", "whole"))
    assert ours == theirs
    assert trained(store, tmp_path / "longer", steps=12, **EVEN).startswith("train: 0 of 12 steps to do")
    with pytest.raises(RunError, match=r"'epochs': '.* -> .*'"):
        trained(store, tmp_path / "longer", steps=8, **EVEN)


def test_a_schedule_that_spans_all_epochs_is_said_to_rise_again(store, tmp_path, capfd):
    trained(store, tmp_path / "run", steps=8, schedule="cosine", **EVEN)
    with pytest.raises(RunError, match=r"'weight_decay'"):  # and nothing else may change on the way
        trained(store, tmp_path / "run", steps=16, schedule="cosine", weight_decay=0.5, **EVEN)
    assert "lengthened" not in read_config(tmp_path / "run")
    capfd.readouterr()
    trained(store, tmp_path / "run", steps=16, schedule="cosine", **EVEN)
    # 0.505 of 1e-4: half of the way down a cosine that ends at 0.01, where the shorter one had come to its end.
    assert "the learning rate is 5.05e-05 now, was 1e-06" in capfd.readouterr().err


def test_a_run_begins_with_the_weights_of_another_and_says_whose(store, tmp_path, capfd):
    source, tuned = tmp_path / "source", tmp_path / "tuned"
    trained(store, source, **EVEN)
    how = EVEN | {"steps": 4, "seed": 11, "keep_every": 1, "save_every": 1, "sizes": {"dropout": 0.0}}
    trained(store, tuned, start_from=source, **how)
    begun = load_run(source)
    assert f"weights of {source} after step 12 ({begun.fingerprint})" in capfd.readouterr().err
    assert read_config(tuned)["started_from"] == {"run": str(source), "step": 12, "weights": begun.fingerprint}
    assert [int(path.name) for path in checkpoints(tuned)] == [0, 1, 2, 3, 4]
    for file in ("model.safetensors", "ema.safetensors"):
        first, last = load_file(checkpoints(tuned)[0] / file), load_file(checkpoints(source)[-1] / file)
        assert [name for name in last if not torch.equal(first[name], last[name])] == []
    # The average goes on as slowly as it was: 0.9 of what it was, where a new one would take 0.9 of the step.
    was, is_now, learnt = (
        load_file(checkpoints(tuned)[step] / file)["decoder.0.linear1.weight"]
        for step, file in ((0, "ema.safetensors"), (1, "ema.safetensors"), (1, "model.safetensors"))
    )
    torch.testing.assert_close(is_now, 0.9 * was + 0.1 * learnt)
    assert load_run(tuned).fingerprint != begun.fingerprint
    shutil.rmtree(source)  # a run that has begun needs it no more
    assert "0 of 4 steps to do" in trained(store, tuned, start_from=source, **how)


def test_a_begin_that_a_kill_cut_short_is_made_again_from_the_same_weights_only(store, tmp_path):
    source, tuned = tmp_path / "source", tmp_path / "tuned"
    trained(store, source, **EVEN)
    trained(store, tuned, start_from=source, **EVEN)
    expected = weights(tuned)
    shutil.rmtree(tuned / "checkpoints")  # as after a kill between config.json and checkpoint 0
    trained(store, tuned, start_from=source, **EVEN)
    assert [name for name, tensor in weights(tuned).items() if not torch.equal(tensor, expected[name])] == []
    shutil.rmtree(tuned / "checkpoints")
    trained(store, source, **EVEN | {"steps": 16})
    with pytest.raises(RunError, match=r"this run was made with other options: \{'started_from': \{'step': '12 -> 16'"):
        trained(store, tuned, start_from=source, **EVEN)


def test_what_cannot_be_started_from_is_named(store, tmp_path):
    source = tmp_path / "source"
    trained(store, source, steps=2)
    with pytest.raises(
        RunError, match=r"another shape: --layers 1 there, 2 here, --unit-latent False there, True here"
    ):
        trained(store, tmp_path / "new", start_from=source, sizes={"layers": 2, "unit_latent": True})
    with pytest.raises(RunError, match="no run here"):
        trained(store, tmp_path / "new", start_from=tmp_path / "nowhere")
    with pytest.raises(RunError, match="cannot start from itself"):
        trained(store, source, start_from=source)
    assert not (tmp_path / "new").exists()


def test_a_nan_stops_before_the_weights_change_and_is_named(store, tmp_path, monkeypatch):
    def poisoned(*args, **options) -> Crops:
        crops = load(*args, **options)
        crops.rot6d[crops.row[1]] = torch.nan  # the first frame of window 1: in every crop only at shift 0
        crops.frames.clamp_(max=crops.crop)
        return crops

    load = trainer.load_crops
    monkeypatch.setattr(trainer, "load_crops", poisoned)
    windows = int((store.read("windows/split") == 0).sum())
    order = Order(torch.arange(windows), 2, TrainConfig().seed, CPU)
    first = next(step for step in range(20) if 1 in order(step).tolist())
    named = [int(load_window) for load_window in order(first)]
    with pytest.raises(
        RunError, match=rf"step {first}: rot6d, vertices.* not finite; windows .*mclip validate"
    ) as told:
        trained(store, tmp_path / "run", steps=20, validate_every=1000, save_every=1)
    assert str(sorted(named)) == str(sorted(json.loads(str(told.value).split("windows ")[1].split("]")[0] + "]")))
    if first:
        assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "run").values())
        assert read_state(checkpoints(tmp_path / "run")[-1])["step"] == first


def test_missing_vectors_and_a_width_that_does_not_fit_are_named(store, tmp_path):
    with pytest.raises(StoreError, match=r"no vectors of encoder ViT-B-32; the store has those of \['offline'\]"):
        trained(store, tmp_path / "run", encoder="ViT-B-32")
    with pytest.raises(StoreError, match="encoder offline is 384 wide, --latent is 512: leave --latent out"):
        trained(store, tmp_path / "run", sizes={"latent": 512})
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_data_trains_and_is_told(store, tmp_path, capfd):
    windows = int((store.read("windows/split") == 0).sum())
    assert "4 steps done" in trained(store, tmp_path / "run", batch=3 * windows, epochs=12.0)
    assert f"--batch is {3 * windows}, there are {windows} windows to train on" in capfd.readouterr().err


def smpl_like(path: Path) -> Path:
    """The small body under SMPL's names, with random pose correctives of some millimetres."""
    body, generator = load_body("low"), np.random.default_rng(0)
    rest, parents = body.v_template_V3.numpy(), np.array([2**32 - 1, *PARENTS[1:]], np.uint32)
    regressor = body.joints_J3.numpy() @ np.linalg.pinv(rest)  # rest joints from rest vertices
    correctives = 0.004 * generator.normal(size=(len(rest), 3, 207))
    np.savez(
        path,
        v_template=rest,
        f=body.faces_F3.numpy().astype(np.uint32),
        weights=body.weights_VJ.numpy(),
        kintree_table=np.stack([parents, np.arange(24, dtype=np.uint32)]),
        J_regressor=regressor,
        posedirs=correctives,
    )
    return path


def test_what_the_closed_form_leaves_out_of_an_smpl_file_is_measured_and_told(store, tmp_path, capfd):
    file = str(smpl_like(tmp_path / "SMPL.npz"))
    trained(store, tmp_path / "closed", steps=2, loss_body=file)
    told = capfd.readouterr().err
    found = re.search(r"pose correctives of SMPL.npz: ([\d.]+) mm between training poses, ([\d.]+) mm with them", told)
    assert found
    closed, full = map(float, found.groups())
    assert 0.001 < full / closed - 1 < 0.2  # independent offsets of some millimetres on distances of centimetres
    trained(store, tmp_path / "full", steps=2, loss_body=file, vertex_loss="full")
    assert "pose correctives" not in capfd.readouterr().err
    first = [journal.read_journal(tmp_path / name / "metrics.jsonl")[0] for name in ("closed", "full")]
    assert first[0]["loss/vertices"] != pytest.approx(first[1]["loss/vertices"], rel=1e-3)
    assert first[0]["loss/text"] == pytest.approx(first[1]["loss/text"], rel=1e-2)


def test_a_split_that_does_not_fit_the_memory_trains_to_the_same_weights(store, tmp_path, capfd, monkeypatch):
    trained(store, tmp_path / "whole", ema=0.9)
    assert "memory-mapped" not in capfd.readouterr().err
    monkeypatch.setattr(trainer, "free_bytes", lambda device: 1000)
    trained(store, tmp_path / "mapped", ema=0.9)
    assert "memory-mapped on the host: more than is free" in capfd.readouterr().err
    assert_same_weights(tmp_path / "mapped", tmp_path / "whole")


@pytest.mark.parametrize(
    ("metric", "values"), [("mpjpe_mm", [50, 10, 30, 20, 40]), ("text_to_motion_R@1", [1, 9, 3, 2, 4])]
)
def test_the_best_checkpoint_by_the_asked_metric_stays_beside_the_last_two(
    store, tmp_path, monkeypatch, metric, values
):
    figures = iter(values)

    def found(self, model):
        return measured(self, model) | {"mpjpe_mm": 7.0, metric: float(next(figures))}

    measured = trainer.Validation.__call__
    monkeypatch.setattr(trainer.Validation, "__call__", found)
    trained(store, tmp_path / "run", steps=10, validate_every=2, save_every=2, best=metric)
    assert [read_state(path)["step"] for path in checkpoints(tmp_path / "run")] == [4, 8, 10]
    best = best_checkpoint(tmp_path / "run")
    assert best is not None
    assert read_state(best)[metric] == values[1]
    assert load_run(tmp_path / "run", checkpoint="best").step == 4
    assert load_run(tmp_path / "run").step == 10


@pytest.mark.skipif("MCLIP_COMPILE" not in os.environ, reason="compiles for a minute: set MCLIP_COMPILE=1 to run it")
def test_a_compiled_run_follows_the_curve_of_the_plain_one(store, tmp_path):
    options = {"log_every": 1, "validate_every": 10, "save_every": 10, "sizes": {"dropout": 0.0}}
    trained(store, tmp_path / "plain", steps=3, **options)
    # Another process: there no types are checked, which a compiler cannot look through.
    asked = command(store, tmp_path / "compiled", steps=3, step="compiled", **options)
    told = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=300).stderr
    assert "--step compiled: layers and losses are compiled" in told
    ours, theirs = (journal.read_journal(tmp_path / name / "metrics.jsonl") for name in ("compiled", "plain"))
    for found, expected in zip(ours, theirs, strict=True):
        assert found == pytest.approx(expected, rel=1e-3), expected["step"]


def test_a_log_gets_a_line_at_every_validation(store, tmp_path):
    asked = command(store, tmp_path / "run", steps=10)
    told = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=120).stderr
    lines = [line for line in told.splitlines() if line.startswith("train: ")]
    assert [line.split(", ")[0] for line in lines] == [f"train: {step} of 10" for step in (4, 8, 10)]  # QUICK: every 4
    measured = [line for line in journal.read_journal(tmp_path / "run/metrics.jsonl") if "train/mpjpe_mm" in line]
    for line, figures in zip(lines, measured, strict=True):
        assert "loss " in line
        assert "crops/s" in line
        assert f"train MPJPE {figures['train/mpjpe_mm']:.1f} mm" in line
    assert re.search(r", \d:\d\d:\d\d left$", lines[0])


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_two_processes_follow_the_curve_of_one(store, tmp_path):
    options = {"batch": 3, "log_every": 1, "sizes": {"dropout": 0.0}, "ema": 0.9, "yaw": 180.0, "mirror": 0.5}
    options |= {"vertex_loss": "subset", "vertex_subset": 100, "loss_body": "low"}
    trained(store, tmp_path / "one", steps=6, **options)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    asked = command(store, tmp_path / "two", steps=6, **options)[3:]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    subprocess.run([*TORCHRUN, str(script), *asked], check=True, env=environment, timeout=120, capture_output=True)
    one, two = (journal.read_journal(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert [line["step"] for line in two] == [line["step"] for line in one]  # one writer
    for ours, theirs in zip(two, one, strict=True):
        for name in theirs:
            if name.startswith("loss/"):
                assert ours[name] == pytest.approx(theirs[name], rel=1e-4), (theirs["step"], name)
    for name, tensor in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], tensor, rtol=0, atol=2e-4)


@pytest.mark.parametrize("whom", ["torchrun", "everybody"])
def test_ctrl_c_stops_two_processes_at_one_step_that_is_saved_and_told_once(store, tmp_path, whom):
    options = (
        "--layers 1 --feed-forward 32 --epochs 2000 --batch 2 --save-every 100000 --validate-every 100000"
    ).split()
    words = [*TORCHRUN, "-m", "mclip.cli", "train", store.url, str(tmp_path / "run"), *options, "--log-every", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        words, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as torchrun:
        file, deadline = tmp_path / "run/metrics.jsonl", time.monotonic() + 120
        while not (file.exists() and file.read_text().count("\n") > 3) and time.monotonic() < deadline:
            time.sleep(0.1)
        # A terminal sends it to all its processes, and torchrun sends it on to its workers.
        (os.kill if whom == "torchrun" else os.killpg)(torchrun.pid, signal.SIGINT)
        out, err = torchrun.communicate(timeout=60)
    (told,) = [line for line in err.splitlines() if "train stopped" in line]
    (saved,) = checkpoints(tmp_path / "run")
    done = read_state(saved)["step"]
    assert told.startswith(f"train stopped at step {done:,} of ")
    assert told.endswith(", which is saved: the same command goes on from there")
    assert (out, torchrun.returncode) == ("", 1)  # torchrun's own, with a traceback of its own
    assert journal.read_journal(file)[-1]["step"] == done
    assert not list((tmp_path / "run").rglob("*.partial*"))
    assert load_run(tmp_path / "run").step == done


def test_a_store_without_texts_or_pictures_is_refused_in_one_line_or_asked_for(tmp_path, encoder):
    bare = open_store(str(tmp_path / "bare.zarr"), create=True)
    prepare(MOTIONS, bare, labels=Labels(), options=PrepareOptions(), only=["/walk/"])
    with pytest.raises(StoreError, match="no picture in this store; run `mclip render .*--without pictures"):
        embed.embed(bare, encoder)
    with pytest.raises(
        StoreError, match="no text in this store; give `mclip prepare` --labels, or pass --without texts"
    ):
        embed.embed(bare, encoder, without=["pictures"])
    assert f"embeddings/{encoder.name}" not in bare  # a refused embed leaves nothing
    embed.embed(bare, encoder, without=["pictures", "texts"])
    for option, weights in (("--text-weight 0", {}), ("--image-weight 0", {"text_weight": 0.0})):
        with pytest.raises(StoreError, match=f"no training (crop|window) has .* or pass {option}"):
            trainer.train(bare, tmp_path / "run", TrainConfig(epochs=1.0, **weights), ModelConfig(layers=1), device=CPU)
    config = TrainConfig(epochs=1.0, text_weight=0.0, image_weight=0.0, precision="float32")
    assert "1 steps done" in trainer.train(
        bare, tmp_path / "run", config, ModelConfig(layers=1, feed_forward=64), device=CPU
    )


def test_ctrl_c_ends_the_step_saves_it_and_the_same_call_ends_as_if_nothing_had_been(store, tmp_path, monkeypatch):
    from mclip.training.train.progress import Report

    config = TrainConfig(epochs=4.0, batch=2, precision="float32", log_every=1)
    sizes = ModelConfig(layers=1, feed_forward=32)
    again = functools.partial(trainer.train, config=config, sizes=sizes, device=CPU)
    again(store, tmp_path / "whole")
    advance = Report.advance

    def press(self: Report, step: int) -> None:
        advance(self, step)
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Report, "advance", press)
    with pytest.raises(KeyboardInterrupt, match=r"train stopped at step 3 of \d+, which is saved"):
        again(store, tmp_path / "stopped")
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "stopped/checkpoints").iterdir()] == ["00000003"]
    again(store, tmp_path / "stopped")
    ours, theirs = (journal.read_journal(tmp_path / name / "metrics.jsonl") for name in ("stopped", "whole"))
    assert ours == theirs
    assert not list((tmp_path / "stopped").rglob("*.partial*"))
