"""The processes of a run: one, or those that ``torchrun`` started."""

import datetime
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed

from dptmat.device import choose_device, count_cores
from dptmat.errors import UserError, first_line

T = TypeVar("T")

_START = datetime.timedelta(seconds=60)  # until all processes have to be there
_END = datetime.timedelta(days=1)  # for which the first process may evaluate while the others wait
_WORK = datetime.timedelta(minutes=30)  # for which one may keep the others waiting, as by a slow disk


@dataclass(frozen=True)
class Process:
    """This process among all."""

    rank: int
    world_size: int
    local_world_size: int  # processes on this machine
    device: torch.device

    @property
    def cores(self) -> int:
        """Processor cores that this process may use beside the others on this machine."""
        return max(1, count_cores() // self.local_world_size)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0


def single_process(device: str) -> Process:
    """Make the only process of a run; ``device`` as for `dptmat.device.choose_device`.

    Raises:
        UserError: CUDA is asked for and there is none.
    """
    return Process(0, 1, 1, choose_device(device))


def start(device: str) -> Process:
    """Join the processes that torchrun started, or be the only one; ``device`` as for `single_process`.

    Raises:
        UserError: A process has no GPU, or some are not there within a minute; the message says which.
    """
    this = single_process(device)
    if this.device.type == "cuda":
        local, gpus = this.device.index, torch.cuda.device_count()
        if local >= gpus:
            raise UserError(
                f"process {local} of {socket.gethostname()} has no GPU: PyTorch sees {gpus}; use torchrun with "
                f"--nproc-per-node {gpus}, or `device` cpu"
            )
        torch.cuda.set_device(this.device)
    if not torch.distributed.is_torchelastic_launched():
        return this
    if not torch.distributed.is_initialized():
        store, rank, count = _wait_for_all("started", _START)
        # gloo beside NCCL: what is said from host to host does not wait for the device.
        backend = "cpu:gloo,cuda:nccl" if this.device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_WORK)
    rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return Process(rank, count, int(os.environ["LOCAL_WORLD_SIZE"]), this.device)


def _wait_for_all(what: str, time: datetime.timedelta) -> tuple[torch.distributed.Store, int, int]:
    """Wait until every process has said that it has ``what``, without gloo or NCCL: (store, rank, processes)."""
    try:
        store, rank, count = next(torch.distributed.rendezvous("env://", timeout=_START))
    except torch.distributed.DistError as error:
        place, reason = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}", first_line(error)
        raise UserError(
            f"the processes do not meet at {place}: {reason.rstrip('.')}; see whether all have started, and all "
            "machines reach each other"
        ) from error
    # After a restart by torchrun the store may still hold the addresses of processes that have gone.
    store = torch.distributed.PrefixStore("start " + os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    key = f"{what} {{}}"
    store.set(key.format(rank), socket.gethostname())
    try:
        store.wait([key.format(other) for other in range(count)], time)
    except RuntimeError as error:  # DistStoreError among them
        missing = [str(other) for other in range(count) if not store.check([key.format(other)])]
        raise UserError(
            f"of {count} processes {', '.join(missing)} have not {what} within {time.total_seconds():.0f} s; see their "
            "messages, and whether all machines reach each other"
        ) from error
    return store, rank, count


def on_all_ranks(function: Callable[[], T]) -> T:
    """Call ``function`` in every process and return its result; if it fails in one, all end with that one's reason.

    Raises:
        UserError, OSError: Of this process, or of another one with its number and machine in front.
    """
    try:
        result = function()
    except (UserError, OSError) as error:
        gather(f"process {_rank()} on {socket.gethostname()}: {error}")
        raise
    own: str | None = None
    reasons = [reason for reason in gather(own) if reason]
    if reasons:
        raise UserError(reasons[0])
    return result


class Tally:
    """Sums of small counts over all processes, step by step, that wait for no device.

    The sums of a step come with the next one, when the other processes have long sent their part; in a run of one
    process they come at once.
    """

    def __init__(self) -> None:
        self._under_way: tuple[torch.distributed.Work, torch.Tensor] | None = None

    def add(self, *counts: int) -> list[int]:
        """Add this process's counts of a step, and return the newest sums; zeros before the first ones have come."""
        if not torch.distributed.is_initialized():
            return list(counts)
        sums = self.drain() or [0] * len(counts)
        summed = torch.tensor(counts)
        self._under_way = torch.distributed.all_reduce(summed, async_op=True), summed
        return sums

    def drain(self) -> list[int] | None:
        """Wait for the sums that are still to come, and return them; None if there are none."""
        if self._under_way is None:
            return None
        (work, counts), self._under_way = self._under_way, None
        work.wait()
        return counts.tolist()


def _rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def mean(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of a tensor over all processes."""
    if not torch.distributed.is_initialized():
        return values
    values = values.clone()
    torch.distributed.all_reduce(values)
    return values / torch.distributed.get_world_size()


def broadcast_(tensors: Iterable[torch.Tensor]) -> None:
    """Give all processes the values that the first one has, in place."""
    if torch.distributed.is_initialized():
        for tensor in tensors:
            torch.distributed.broadcast(tensor, 0)


def gather(value: T) -> list[T]:
    """Return the values of all processes, in the order of their ranks; each a plain Python object."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def is_loss_of_another(error: RuntimeError) -> bool:
    """Tell whether an exception says that another process of the run has gone."""
    lost = isinstance(error, torch.distributed.DistBackendError) or "gloo" in str(error)
    return torch.distributed.is_initialized() and lost


def shutdown(graceful: bool) -> None:
    """Leave the other processes; ``graceful``: when all have got so far, since gloo fails where a peer goes first."""
    if torch.distributed.is_initialized():
        if graceful:
            _wait_for_all("ended", _END)
        torch.distributed.destroy_process_group()
