"""How long training waits for data, by the clock of the host and by that of the GPU."""

import time
from collections.abc import Iterator
from typing import Any

import torch


class DataWait:
    """Iterator over the batches of another one that measures the wait for each.

    Host and GPU differ: while the GPU still works on earlier batches, a wait of the host costs nothing; and where data
    arrive by a copy that the GPU has to finish first, the host does not see it. On the GPU a wait is the time between
    two CUDA events on the current stream, one recorded when a batch is asked for, thus reached after the last kernel
    of all work so far, and one when it has been handed over, thus reached before the first kernel that uses it. With
    data at hand the two are a few microseconds apart.

    Args:
        batches: Iterator.
        device: Where training computes.

    Attributes:
        host_seconds: For which the host has waited so far.
    """

    def __init__(self, batches: Iterator[Any], device: str | torch.device) -> None:
        self._batches, self._on_gpu = batches, torch.device(device).type == "cuda"
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._gpu_seconds = 0.0
        self.host_seconds = 0.0

    def __iter__(self) -> "DataWait":
        return self

    def __next__(self) -> Any:
        requested = _record_event() if self._on_gpu else None
        began = time.perf_counter()
        batch = next(self._batches)
        self.host_seconds += time.perf_counter() - began
        if requested is not None:
            self._events.append((requested, _record_event()))
        return batch

    @property
    def gpu_seconds(self) -> float | None:
        """Seconds that the GPU has waited for the batches that it has begun with, or None without a GPU."""
        if not self._on_gpu:
            return None
        while self._events and self._events[0][1].query():  # does not wait
            requested, received = self._events.pop(0)
            self._gpu_seconds += requested.elapsed_time(received) / 1e3
        return self._gpu_seconds

    @property
    def seconds(self) -> float:
        """Seconds that training has waited for data: those of the GPU where there is one, else of the host."""
        gpu_seconds = self.gpu_seconds
        return self.host_seconds if gpu_seconds is None else gpu_seconds


def _record_event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
