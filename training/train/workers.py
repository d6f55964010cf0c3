"""Several processes that train one model, started by torchrun: each takes a part of every batch.

    torchrun --nproc-per-node 2 -m mclip.cli train STORE RUN

Every process draws the whole batch (a gather, so nothing is sent) and works on its part. Its loss terms are sums over
the part, divided by the counts of the whole batch, so adding the gradients gives the gradient of one process, also
where parts hold unequal padding.
"""

import itertools
import os
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from mclip.training.data.crops import Batch


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

    def own(self, batch: Batch) -> tuple[Batch, dict[str, Tensor]]:
        """This worker's part of a batch, and by term its share of the whole batch's frames or items."""
        if self.count == 1:
            return batch, {}
        part = batch.part(self.rank, self.count)
        return part, {term: part.counts[term] / whole.clamp_min(1) for term, whole in batch.counts.items()}

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
    return Workers(torch.distributed.get_rank(), torch.distributed.get_world_size()), device
