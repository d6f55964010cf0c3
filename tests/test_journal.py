import sys

import pytest

from mclip.training.model.run import RunError
from mclip.training.train import journal


def test_a_journal_line_that_a_kill_cut_short_is_left_out(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 2, "a": 1}\n{"step": 4, "a": 2}\n{"step": 6, "a')
    assert [line["step"] for line in journal.read_journal(file)] == [2, 4]
    journal.Journal(tmp_path, 2).board.close()
    assert journal.read_journal(file) == [{"step": 2, "a": 1}]


def test_wandb_that_is_not_installed_is_named_with_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RunError, match=r"--wandb needs the package wandb .*pip install 'mclip\[wandb\]'"):
        journal.require_wandb()
