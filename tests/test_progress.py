import json
from types import SimpleNamespace

import pytest
import torch

from mclip.pipeline.machine.speed import Speed
from mclip.training.model.config import TERMS, TrainConfig
from mclip.training.model.run import start_run
from mclip.training.train.progress import Report, loss_line

LOSSES = {"total": 0.12345, **{term: 0.01 for term in TERMS}}


def test_the_live_line_tells_losses_rate_and_share():
    terms = "rot6d 0.01 vertices 0.01 velocity 0.01 text 0.01 image 0.01 places 0.01 steps 0.01 feet 0.01"
    assert loss_line(LOSSES, crops=206.4, used="x") == f"loss 0.1235 ({terms})  206 crops/s  x"


def test_a_report_shows_the_rate_since_the_last_losses_without_validation(tmp_path, monkeypatch, capfd):
    start_run(tmp_path / "run", {"model": {}})
    now = iter([0.0, 10.0, 10.0, 110.0, 112.0, 112.0])  # four steps in ten seconds, a validation, two in two
    monkeypatch.setattr("mclip.training.train.progress.time", SimpleNamespace(perf_counter=lambda: next(now)))
    speed = Speed(rate=2e9, flops=10**9, dtype=torch.float32)
    with Report(tmp_path / "run", TrainConfig(batch=5), first=0, steps=6, speed=speed) as report:
        report.losses(4, LOSSES, torch.tensor(1.5))
        assert "2 crops/s  0.4 of 2 GFLOP/s (MFU 20%)" in report.bar.tasks[0].fields["rate"]
        figures = {"mpjpe_mm": 7.0, "movement_ratio": 0.01, "variety_ratio": 1.0, "z_spread": 1.0}
        report.validation(4, figures, "val")
        report.losses(6, LOSSES, torch.tensor(1.5))
        assert "5 crops/s  1 of 2 GFLOP/s (MFU 50%)" in report.bar.tasks[0].fields["rate"]
        report.advance(6)
    assert report.bar.tasks[0].finished
    assert "step 4: static motion: what is decoded moves 0.01 times" in capfd.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 4, 6]
    assert lines[0]["gradient_norm"] == 1.5
    assert lines[0]["loss/total"] == pytest.approx(0.12345)
    assert lines[1]["val/mpjpe_mm"] == 7.0
    assert (tmp_path / "run/curves.png").exists()
