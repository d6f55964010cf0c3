"""status: what a store holds, how large it is, and how fast its stages last went."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from mclip.cli import cli
from mclip.pipeline.store.stage import Summary
from mclip.pipeline.store.status import last_rates, record_runs, status
from mclip.pipeline.store.store import open_store


def mclip(*words: str) -> str:
    """What a command that works says."""
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def test_size_is_that_of_all_files_of_the_store(prepared):
    size = sum(path.stat().st_size for path in Path(prepared.url).rglob("*") if path.is_file())
    assert f"  {size / 1e6:,.1f} MB" in status(prepared).splitlines()[0]
    (Path(prepared.url) / "more").write_bytes(bytes(3_000_000))
    assert f"  {(size + 3e6) / 1e6:,.1f} MB" in status(prepared).splitlines()[0]


@pytest.mark.parametrize("url", ["local.zarr", "memory://status/s.zarr"])
def test_rate_is_the_last_runs_that_did_anything(tmp_path, amass_folder, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    done = re.search(r"done, .* s, ([\d,]+) sequences/s", mclip("prepare", amass_folder, url))
    assert done is not None
    mclip("prepare", amass_folder, url)  # does nothing, and leaves the rate
    told = mclip("status", url)
    assert f"5 of 5 sequences, 0 pending, 0 failed, last run {done[1]} sequences/s" in told
    assert not told.splitlines()[0].endswith(" 0.0 MB")


def test_a_store_that_no_command_made_has_no_rate(prepared):
    assert "last run" not in status(prepared)


def test_a_broken_line_is_told_and_passed_over_and_one_cut_short_is_passed_over(prepared, capsys):
    run = Summary("prepare", "sequences", done=30, skipped=0, failed=0, left=0, seconds=2.0)
    record_runs(prepared, [run, run])
    journal = Path(f"{prepared.url}.runs.jsonl")
    first, second = journal.read_text().splitlines()
    flipped = first.replace('"done": 30', '"done": 31')
    journal.write_text(f'{flipped}\n[]\n\xff\n{second}\n{{"stage": "pre')
    assert last_rates(open_store(prepared.url)) == {("prepare", "sequences"): 15.0}
    told = capsys.readouterr().err.splitlines()
    assert [line.split(" is broken")[0] for line in told] == [f"{journal}: line {number}" for number in (1, 2, 3)]
    assert "it does not fit its crc32" in told[0]
