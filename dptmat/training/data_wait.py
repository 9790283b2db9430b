"""How long training waits for data, by the clock of the host and by that of the GPU."""

import time

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
        device: torch device that trains.

    Attributes:
        host: Seconds that the host has waited so far.
    """

    def __init__(self, batches, device):
        self._batches, self._gpu = batches, torch.device(device).type == "cuda"
        self._events, self._device = [], 0.0
        self.host = 0.0

    def __iter__(self):
        return self

    def __next__(self):
        asked = self._record()
        began = time.perf_counter()
        batch = next(self._batches)
        self.host += time.perf_counter() - began
        if self._gpu:
            self._events.append((asked, self._record()))
        return batch

    @property
    def device(self):
        """Seconds that the GPU has waited for the batches that it has begun with, or None without a GPU."""
        if not self._gpu:
            return None
        while self._events and self._events[0][1].query():  # does not wait
            asked, given = self._events.pop(0)
            self._device += asked.elapsed_time(given) / 1e3
        return self._device

    @property
    def seconds(self):
        """Seconds that training has waited for data: those of the device where there is a GPU, else of the host."""
        return self.device if self._gpu else self.host

    def _record(self):
        if not self._gpu:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
