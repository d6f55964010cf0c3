import pytest
import torch

from mclip.pipeline.machine.devices import DeviceError, free_bytes, pick_device, require_bfloat16
from mclip.training.train import speed as machine

CPU = torch.device("cpu")


def test_an_asked_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == CPU
    with pytest.raises(DeviceError, match="--device cuda:1: no CUDA device is visible .*use --device cpu"):
        pick_device("cuda:1")


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
    assert str(speed) == "matrix products: 2 GFLOP/s in float32, 0.5 GFLOP a step: at best 4 steps/s"


def test_free_memory_is_what_the_system_tells():
    with open("/proc/meminfo") as file:
        told = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in file}
    assert free_bytes(CPU) == pytest.approx(told["MemAvailable"], rel=0.2)
