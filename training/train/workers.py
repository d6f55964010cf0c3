"""Several processes that train one model, started by torchrun: each takes a part of every batch.

    torchrun --nproc-per-node 2 -m mclip.cli train STORE RUN

Every process draws the whole batch (a gather, so nothing is sent) and works on its part. Its loss terms are sums over
the part, divided by the counts of the whole batch, so adding the gradients gives the gradient of one process, also
where parts hold unequal padding.
"""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from mclip.training.data.crops import Batch
from mclip.training.model.run import RunError


@dataclass(frozen=True)
class Workers:
    """Which worker this process is, among how many."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes files and measures; one does."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all workers are here."""
        if self.count > 1:
            torch.distributed.barrier()

    def own(self, batch: Batch, parts: int = 1) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
        """This worker's parts of a batch, and by term the share of each of the whole batch's frames or items."""
        of = self.count * parts
        if of == 1:
            yield batch, {}
            return
        whole = batch.counts
        for part in (batch.part(number, of) for number in range(self.rank * parts, (self.rank + 1) * parts)):
            yield part, {term: count / whole[term].clamp_min(1) for term, count in part.counts.items()}

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their sums over all workers, in one message."""
        if self.count > 1:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            torch.distributed.all_reduce(flat)
            ends = list(itertools.accumulate(tensor.numel() for tensor in tensors))
            for tensor, summed in zip(tensors, flat.tensor_split(ends[:-1]), strict=True):
                tensor.copy_(summed.view_as(tensor))

    def agree(self, said: bool, device: torch.device) -> bool:
        """Whether any worker says so, which all of them learn in the same step."""
        if self.count == 1:
            return said
        told = torch.tensor(float(said), device=device)
        torch.distributed.all_reduce(told)
        return bool(told)

    def sum_of(self, named: dict[str, Tensor]) -> dict[str, float]:
        """Sums over all workers of named scalars, as numbers."""
        values = torch.stack(list(named.values())).detach()
        self.add_up([values])
        return dict(zip(named, values.tolist(), strict=True))


def is_first() -> bool:
    """Whether this process is the one that speaks, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def join(device: torch.device) -> tuple[Workers, torch.device]:
    """This process among those that torchrun started, and its device; one alone when there is no torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Workers(), device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    workers = Workers(torch.distributed.get_rank(), torch.distributed.get_world_size())
    if device.type == "cuda":
        kinds: list[str] = [""] * workers.count
        torch.distributed.all_gather_object(kinds, torch.cuda.get_device_name(device))
        require_one_kind(kinds)
    return workers, device


def require_one_kind(kinds: list[str]) -> None:
    """RunError where the workers' GPUs are of several kinds: from one seed these draw different batches."""
    if len(set(kinds)) > 1:
        told = ", ".join(f"process {rank} has {kind}" for rank, kind in enumerate(kinds))
        raise RunError(
            f"the GPUs are of different kinds ({told}), which draw different batches from one seed: choose those of "
            "one kind with CUDA_VISIBLE_DEVICES"
        )
