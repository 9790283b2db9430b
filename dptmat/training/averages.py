"""What the steps since the last report gave, kept on the device until it is read."""

import math

import torch
from torch import Tensor

from dptmat.training import distributed


class Averages:
    """Means of the scalars of some steps, and which steps were skipped.

    Attributes:
        longest: Most steps in a row that were skipped, among those that were read last.
    """

    def __init__(self, start: int) -> None:
        self._first, self._row, self.longest = start, 0, 0
        self._names: list[str] = []
        self._sums: Tensor | None = None
        self._flags: list[Tensor] = []

    def add(
        self,
        scalars: dict[str, Tensor],  # each []
        flags: Tensor,  # bool [1 + micro-batches], as of ``Trainer.step``
    ) -> None:
        """Add what one step gave; does not wait for the device."""
        self._names = list(scalars)
        values = torch.where(flags[0], 0, torch.stack(list(scalars.values())))
        self._sums = values if self._sums is None else self._sums + values
        self._flags.append(flags)

    def read(self) -> tuple[dict[str, float], dict[int, list[int]]]:
        """Read all that was added since the last time; waits for the device, and for the other processes.

        Returns:
            Mean of each scalar over all processes and the steps that were not skipped, NaN if all were; and for each
            step skipped the numbers of this process's micro-batches whose loss is not finite.
        """
        assert self._sums is not None, "no step was added"
        flags, sums = torch.stack(self._flags).tolist(), distributed.mean(self._sums)
        good = sum(not skipped for skipped, *_ in flags)
        means = dict(zip(self._names, (sums / good if good else sums * math.nan).tolist(), strict=True))
        self._sums, self._flags, self.longest = None, [], 0
        steps = {}
        for step, (skipped, *parts) in enumerate(flags, start=self._first):
            self._row = self._row + 1 if skipped else 0
            self.longest = max(self.longest, self._row)
            if skipped:
                steps[step] = [part for part, lost in enumerate(parts) if lost]
        self._first += len(flags)
        return means, steps
