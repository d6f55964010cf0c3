"""An exported model is the run to the last bit, wherever it is read from; what is none is refused in words."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.files.seal import sealed
from mclip.pipeline.store.store import Store
from mclip.training import MotionClip
from mclip.training.model.run import Run, RunError, checkpoints, load_run


def answer(*words: object) -> str:
    """What a command says; an assertion error where it fails."""
    result = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refusal(*words: object) -> str:
    """What a command says that must fail."""
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 1, result.output
    return result.output


@pytest.fixture(scope="module")
def exported(run: Run, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run as `mclip export-model` gives it away. Read only."""
    out = tmp_path_factory.mktemp("exported") / "a | model"
    said = answer("export-model", run.folder, out, "--store", store.url, "--licence", 'CC "BY"', "--device", "cpu")
    assert said.startswith(f"export-model: step 12 of {run.folder} in {out}, ")
    return out


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(exported, tmp_path / "model"))


def motions_of(folder: Path | str, out: Path, *words: str) -> list[dict[str, np.ndarray]]:
    """What a command makes of a run, array by array."""
    answer(words[0], folder, *words[1:], "--out", out, "--format", "npz", "--frames", 12, "--device", "cpu")
    return [dict(np.load(file)) for file in sorted(out.glob("*.npz"))]


@pytest.mark.parametrize(
    "words",
    [("generate", "a person walks", "--seed", "3"), ("edit", "--base", "walk", "--from", "walk", "--to", "a kick")],
    ids=lambda words: words[0],
)
def test_commands_make_of_it_what_they_make_of_the_run(
    run: Run, exported: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    ours, theirs = (
        motions_of(folder, tmp_path / name, *words) for name, folder in (("run", run.folder), ("out", exported))
    )
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(ours, theirs, strict=True):
        assert all(np.array_equal(mine[name], other[name]) for name in mine)


def test_python_reads_it_as_the_run(run: Run, exported: Path) -> None:
    found = MotionClip.from_pretrained(exported).run
    assert (found.fingerprint, found.state, found.fps, found.crop) == (run.fingerprint, run.state, run.fps, run.crop)
    assert run.z_NC is not None
    assert found.z_NC is not None
    assert torch.equal(found.z_NC, run.z_NC)


@pytest.fixture
def hub(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub, without a network, in which someone's model lies as the hub's client leaves it."""
    repository = tmp_path / "hub/models--someone--walker"
    snapshot = repository / "snapshots" / ("a" * 40)
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("a" * 40)
    (repository / "blobs").mkdir()
    snapshot.mkdir(parents=True)
    for file in exported.iterdir():
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return snapshot


def test_a_model_of_the_hub_is_read_by_its_name(run: Run, hub: Path, tmp_path: Path) -> None:
    found = MotionClip.from_pretrained("hf-hub:someone/walker").run
    assert found.folder == hub
    assert found.fingerprint == run.fingerprint
    (mine,) = motions_of(run.folder, tmp_path / "mine", "generate", "karate")
    (theirs,) = motions_of("hf-hub:someone/walker", tmp_path / "theirs", "generate", "karate")
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("name", ["someone/else", "no name", ""])
def test_a_model_that_the_hub_does_not_give_is_told(hub: Path, name: str) -> None:
    with pytest.raises(RunError, match=rf"hf-hub:{name}: could not be fetched .*expected hf-hub:ORG/NAME, or a folder"):
        load_run(f"hf-hub:{name}")


def test_only_documents_and_tensors_are_fetched(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: Path
) -> None:
    asked: dict[str, Any] = {}

    def snapshot_download(name: str, **how: Any) -> str:
        asked.update(how, name=name)
        return str(exported)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)  # the network's side of it
    load_run("hf-hub:someone/walker")
    assert asked == {"name": "someone/walker", "allow_patterns": ["*.json", "*.txt", "*.safetensors"]}


def test_the_card_tells_the_data_the_figures_and_the_hash_of_every_file(run: Run, exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert card.startswith('---\nlibrary_name: mclip\nlicense: other\nlicense_name: "CC \\"BY\\""\n')
    assert "\n# a \\| model\n" in card
    assert "EMBEDDED, 3 sequences: 20 clips of DeepMimic (MIT)" in card
    assert f"| mpjpe\\_mm | {run.state['mpjpe_mm']:.3g} |" in card
    listed = dict(re.findall(r"^\| ([\w.\\]+) \| ([0-9a-f]{64}) \|$", card, re.MULTILINE))
    files = {file.name: file.read_bytes() for file in exported.iterdir() if file.name != "README.md"}
    assert listed == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert str(run.folder) not in card + (exported / "config.json").read_text()


def test_figures_of_the_evaluation_come_with_their_intervals(run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    figures: dict[str, Any] = {"step": 12, "split": "val", "windows": 3, "reconstruction": {"mpjpe_mm": 31.41}}
    figures["ci95"] = {"reconstruction": {"mpjpe_mm": [22.2, 44.4]}}
    (folder / "evaluation.json").write_text(json.dumps(sealed(figures)))
    answer("export-model", folder, tmp_path / "last", "--device", "cpu")
    answer("export-model", folder, tmp_path / "earlier", "--device", "cpu", "--checkpoint", 6)
    last, earlier = ((tmp_path / name / "README.md").read_text() for name in ("last", "earlier"))
    assert "\nReconstruction (split val, 3 windows):\n" in last
    assert "| MPJPE, mm | 31.4 | \\[22.2, 44.4\\] |" in last
    assert "MPJPE, mm" not in earlier  # the evaluation is of other weights
    assert "\nThe last validation while it was trained, without intervals:\n" in earlier
    assert load_run(tmp_path / "earlier").fingerprint == load_run(folder, checkpoint=6).fingerprint


def test_a_folder_that_is_there_stays_unless_it_is_an_exported_model_to_replace(run: Run, model: Path) -> None:
    words = ("export-model", run.folder, model, "--device", "cpu")
    (model / "README.md").write_text("mine")
    assert f"{model}: there already: name another folder, or pass --replace" in refusal(*words)
    assert (model / "README.md").read_text() == "mine"
    answer(*words, "--replace")
    assert (model / "README.md").read_text() != "mine"
    (model / "config.json").write_text("{}")
    assert "is no exported model, so --replace leaves it alone" in refusal(*words, "--replace")
    assert [*model.parent.iterdir()] == [model]


def test_nothing_is_left_of_an_export_that_fails(run: Run, tmp_path: Path, full_disk: Any) -> None:
    with full_disk(10_000):
        said = refusal("export-model", run.folder, tmp_path / "out", "--device", "cpu")
    assert "model.safetensors could not be written" in said
    assert [*tmp_path.iterdir()] == []


def test_a_store_that_it_was_not_trained_on_is_refused(run: Run, prepared: Store, tmp_path: Path) -> None:
    said = refusal("export-model", run.folder, tmp_path / "out", "--store", prepared.url, "--device", "cpu")
    assert f"{prepared.url}: not the store that {run.folder} was trained on" in said


def change(folder: Path, **keys: Any) -> None:
    """Change what config.json says under `exported`."""
    config = json.loads((folder / "config.json").read_text())
    config["exported"] |= keys
    (folder / "config.json").write_text(json.dumps(config))


def test_a_model_of_another_layout_is_told_with_its_version(model: Path) -> None:
    change(model, layout=2)
    with pytest.raises(RunError, match=r"an exported model of layout 2, this mclip reads layout 1: use the mclip that"):
        load_run(model)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "latents.safetensors"])
def test_a_folder_without_its_model_is_told(model: Path, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(RunError, match=rf"model: no {name} here: .*export or fetch it again"):
        load_run(model)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "latents.safetensors"])
def test_a_file_that_changed_is_told(model: Path, name: str) -> None:
    content = bytearray((model / name).read_bytes())
    content[-20] ^= 1
    (model / name).write_bytes(content)
    with pytest.raises(RunError, match=rf"{name}: damaged or changed .*export or fetch it again"):
        load_run(model)


def test_hashes_that_are_left_out_are_missed(model: Path) -> None:
    change(model, sha256={})
    with pytest.raises(RunError, match=r"model.safetensors: damaged or changed"):
        load_run(model)


def test_it_is_its_own_only_checkpoint(model: Path) -> None:
    assert checkpoints(model) == [model]
    assert load_run(model, checkpoint="best").step == load_run(model, checkpoint=12).step == 12
    with pytest.raises(RunError, match=r"--checkpoint 6: no such checkpoint; here are those of the steps 12"):
        load_run(model, checkpoint=6)


def test_an_exported_model_exports_as_itself(model: Path, tmp_path: Path) -> None:
    answer("export-model", model, tmp_path / "again", "--device", "cpu")
    for name in ("model.safetensors", "latents.safetensors", "state.json"):
        assert (tmp_path / "again" / name).read_bytes() == (model / name).read_bytes(), name
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (model, tmp_path / "again"))
    assert ours == theirs


def test_training_does_not_go_on_in_it_but_starts_from_it(model: Path, store: Store, tmp_path: Path) -> None:
    sizes = ("--layers", 1, "--feed-forward", 64, "--unit-latent", "--epochs", 1, "--batch", 2, "--device", "cpu")
    said = refusal("train", store.url, model, *sizes)
    assert f"an exported model, which has no optimizer: train elsewhere, --start-from {model}" in said
    answer("train", store.url, tmp_path / "more", *sizes, "--start-from", model, "--precision", "float32")
    assert load_run(tmp_path / "more").config["started_from"]["weights"] == load_run(model).fingerprint
