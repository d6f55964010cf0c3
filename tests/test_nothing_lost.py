"""Nothing is lost, and nothing half done, whatever a folder, a table or a recipe holds: all is counted in and out."""

import json
import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from mclip.cli import cli
from mclip.pipeline.labels.label_files import read_labels
from mclip.pipeline.labels.names import sequence_key
from mclip.pipeline.prepare.options import PrepareOptions
from mclip.pipeline.prepare.prepare import prepare
from mclip.pipeline.store.schema import DONE
from mclip.pipeline.store.store import open_store
from mclip.pipeline.store.validate import validate
from mclip.training import recipe as recipes
from mclip.training.show.export import write
from mclip.training.show.motion import read

ROUNDS = int(os.environ.get("MCLIP_ROUNDS", "1"))  # more of them by hand
WORKFLOWS = Path(__file__).parents[1] / "workflows"
FRAMES = 45


def amass(**changes: object) -> dict[str, object]:
    """Arrays of a body that stands and bends a knee; `changes` replace them, None leaves one out."""
    poses = np.zeros((FRAMES, 72))
    poses[:, 0], poses[:, 12] = np.pi / 2, np.linspace(0.1, 1, FRAMES)
    whole = {"poses": poses, "trans": np.tile([0.0, 0.0, 0.9], (FRAMES, 1)), "mocap_framerate": 30.0}
    arrays = whole | changes
    return {name: array for name, array in arrays.items() if array is not None}


def write_file(path: Path, kind: str) -> str:
    """A file of a kind, and what must become of it: done, failed, or passed over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    npz = path.with_name(f"{path.name}_poses.npz")
    match kind:
        case "whole":
            np.savez(npz, **amass())
        case "one frame":
            np.savez(npz, **{name: value[:1] if np.ndim(value) > 1 else value for name, value in amass().items()})
        case "no rate":
            np.savez(npz, **amass(mocap_framerate=None))
        case "cut":
            np.savez(npz, **amass())
            npz.write_bytes(npz.read_bytes()[:-200])
        case "not finite":
            np.savez(npz, **amass(trans=np.full((FRAMES, 3), np.inf)))
        case "claims more":
            np.savez(npz, **amass(poses=np.zeros((2, 72))))
        case "shape":
            np.savez(path.with_name(f"{path.name}_shape.npz"), betas=np.zeros(16))
        case "calibration":
            np.savez(npz, camera=np.eye(4))
        case "bvh" | "bvh of nan":
            np.savez(npz, **amass())
            write(path.with_suffix(".bvh"), read(npz))
            npz.unlink()
            if kind == "bvh of nan":
                text = path.with_suffix(".bvh").read_text()
                path.with_suffix(".bvh").write_text(text[:-60] + "nan " + text[-60:])
    return {"whole": "done", "bvh": "done", "shape": "passed over", "calibration": "passed over"}.get(kind, "failed")


KINDS = (
    "whole",
    "bvh",
    "one frame",
    "no rate",
    "cut",
    "not finite",
    "claims more",
    "shape",
    "calibration",
    "bvh of nan",
)
LABEL = st.tuples(
    st.integers(0, 11),  # of which file; those beyond the last have none
    st.sampled_from(("walk", "run =1", "", "  ", "turn left")),
    st.sampled_from(("", "0", "0.5", "1.2", "9", "1e300")),
    st.sampled_from(("", "1", "1.4", "2", "inf", "-1")),
)


@settings(max_examples=12 * ROUNDS, deadline=None)
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=8), st.lists(LABEL, max_size=12))
def test_every_file_and_every_label_is_done_or_told_with_its_reason(kinds, labels):
    with tempfile.TemporaryDirectory() as folder:
        source, table = Path(folder, "A"), Path(folder, "own.csv")
        expected = Counter(write_file(source / f"SET/S{n}/clip{n}", kind) for n, kind in enumerate(["whole", *kinds]))
        rows = [(f"SET/S{n}/clip{n}", *told) for n, *told in [(0, "stand", "", ""), *labels]]
        table.write_text("path,text,start,end\n" + "".join(",".join(row) + "\n" for row in rows))
        found = read_labels([table])
        store = open_store(Path(folder, "s.zarr"), create=True)
        summary = prepare(source, store, labels=found, options=PrepareOptions())
        told = store.attributes("prepare")

        assert (summary.done, summary.failed, len(told["passed_over"])) == (
            expected["done"],
            expected["failed"],
            expected["passed over"],
        )
        lines = [json.loads(line) for line in Path(f"{store.url}.manifest.jsonl").read_text().splitlines()]
        assert Counter(line["outcome"] for line in lines) == expected
        assert {line["file"] for line in lines} == {p.relative_to(source).as_posix() for p in source.rglob("*.*")}
        assert all(line["reason"] for line in lines if line["outcome"] != "done")
        assert validate(store) == []
        ready = store.read("sequences/done") == DONE
        for row, frames, is_ready in zip(*store.columns("sequences", "row", "frames"), ready, strict=True):
            motion = store.read("motion/rot6d", slice(row, row + frames))
            assert motion.any(axis=(1, 2)).all() if is_ready else not motion.any()

        keys = {sequence_key(name) for name in store.strings("sequences/name")}
        nobodys = {key: spans for key, spans in found.spans.items() if key not in keys}
        stored, passed = len(store.read("spans/text")), sum(told["labels_passed_over"].values())
        assert stored + passed + sum(map(len, nobodys.values())) == len(rows)
        assert told["labels_without_file"] == len(nobodys)


# --- recipes


def damaged(text: str, chance: np.random.Generator) -> bytes:
    """A recipe with one or two values, keys, tables or bytes changed."""
    lines = text.splitlines()
    for _ in range(chance.integers(1, 3)):
        at = int(chance.integers(len(lines)))
        key, equals, value = lines[at].partition(" = ")
        match chance.integers(6):
            case 0 if equals:
                lines[at] = f"{key} = {chance.choice(VALUES)}"
            case 1 if equals:
                lines[at] = f"{key[:-1]}{chance.choice(['', 'x', '-', '.y'])} = {value}"
            case 2:
                lines[at:at] = [str(chance.choice(("[bake]", "[train]", "[prepare.2]", "x = 1", "[[render]]", "[")))]
            case 3:
                del lines[at]
            case 4:
                lines[at] = lines[at][: int(chance.integers(len(lines[at]) + 1))]
            case _:
                lines.append(lines[at])
        lines = lines or ["x"]
    data = bytearray("\n".join(lines).encode())
    if chance.random() < 0.2:
        data[int(chance.integers(len(data)))] ^= 1 << int(chance.integers(8))
    return bytes(data)


VALUES = (
    "-1",
    "nan",
    "1e999",
    '"x"',
    "true",
    "[]",
    "[1, [2]]",
    "{}",
    "1979-05-27",
    "9" * 5000,
    '"--help"',
    '"\\u0000"',
    "''",
)


@pytest.mark.parametrize("name", ["tiny", "quickstart", "paper", "babel60", "cmu"])
def test_a_hundred_damaged_recipes_are_planned_or_refused_by_file_and_place(tmp_path, monkeypatch, name):
    planned: list[list[str]] = []
    monkeypatch.setattr(
        recipes, "run_command", lambda _, words: planned.append(words)
    )  # the plan, and no hours of work
    text, outcomes = (WORKFLOWS / f"{name}.toml").read_text(), Counter()
    for seed in range(100 * ROUNDS):
        file, folder = tmp_path / f"{name}-{seed}.toml", tmp_path / f"out-{seed}"
        file.write_bytes(damaged(text, np.random.default_rng(seed)))
        planned.clear()
        told = CliRunner().invoke(cli, ["run", str(file), "--folder", str(folder)])
        outcomes[told.exit_code] += 1
        assert told.exception is None or isinstance(told.exception, SystemExit), told.exception
        if told.exit_code == 0:
            assert [f"$ mclip {words[0]}" for words in planned] == [
                " ".join(line.split()[:3]) for line in told.output.splitlines() if line.startswith("$ mclip ")
            ]
            continue
        assert str(file) in told.output
        assert any(
            place in told.output for place in ("[", "line ", "(at ", "no command", "UTF-8", "outside", "digits")
        ), told.output
        assert not planned
        assert not folder.exists()
    assert outcomes.keys() == {0, 1}
    assert min(outcomes.values()) > 10, outcomes
