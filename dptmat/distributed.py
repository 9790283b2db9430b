"""The processes of a run: one, or those that ``torchrun`` started."""

import os
from dataclasses import dataclass

import torch
import torch.distributed

from dptmat.errors import UserError


@dataclass(frozen=True)
class Ranks:
    """This process among all."""

    rank: int
    count: int
    local_count: int  # processes on this machine
    device: torch.device

    @property
    def first(self):
        """Whether this is the process that writes files and prints."""
        return self.rank == 0


def alone(device):
    """This process without the others.

    Args:
        device: "cpu", "cuda", or "auto" for CUDA where there is a GPU.

    Raises:
        UserError: CUDA is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU; use --device cpu, or check the driver and the torch build")
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return Ranks(0, 1, 1, torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu"))


def start(device):
    """Join the processes that torchrun started, or be the only one; ``device`` as for ``alone``."""
    this = alone(device)
    if this.device.type == "cuda":
        torch.cuda.set_device(this.device)
    if not torch.distributed.is_torchelastic_launched():
        return this
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if this.device.type == "cuda" else "gloo")
    rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return Ranks(rank, count, int(os.environ["LOCAL_WORLD_SIZE"]), this.device)


def mean(values):
    """The mean of a tensor over all processes."""
    if not torch.distributed.is_initialized():
        return values
    values = values.clone()
    torch.distributed.all_reduce(values)
    return values / torch.distributed.get_world_size()


def gather(value):
    """The values of all processes, in the order of their ranks; each a plain Python object."""
    if not torch.distributed.is_initialized():
        return [value]
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def stop():
    """Leave the other processes in order."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
