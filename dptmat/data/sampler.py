"""The order of an endless run: which sample ids a rank gets at a step, and which photograph each id shows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from dptmat.errors import UserError
from dptmat.kernels.permutation import permute, round_keys
from dptmat.kernels.philox import Stream


@dataclass(frozen=True)
class Sampler:
    """Every batch as a function of ``(seed, step)``; nothing is stored, so any step can be asked for directly.

    Sample id = epoch * images + position; position p of an epoch shows image pi(p), where pi is the keyed permutation
    of stream SHUFFLE. Rank r takes the contiguous slice r of each global batch; a last partial batch is dropped.

    Raises:
        UserError: The batch does not divide among the processes, or there are too few photographs for one.
    """

    seed: int
    images: int  # photographs in the index
    batch_size: int  # samples per step over all ranks
    rank: int = 0
    world_size: int = 1  # number of ranks

    def __post_init__(self) -> None:
        if self.batch_size % self.world_size:
            raise UserError(f"`batch_size` {self.batch_size} does not divide among {self.world_size} processes")
        if self.images < self.batch_size:
            raise UserError(
                f"`batch_size` {self.batch_size} is more than the {self.images} photographs that there are; "
                f"use a `batch_size` of {self.images} or less, or more photographs"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which each photograph comes once, but for a last partial batch."""
        return self.images // self.batch_size

    def ids(self, step: int) -> np.ndarray:
        """Return the sample ids of this rank at ``step``: int64 [batch_size / world_size]."""
        epoch, step = divmod(step, self.steps_per_epoch)
        local = self.batch_size // self.world_size
        first = epoch * self.images + step * self.batch_size + self.rank * local
        return first + np.arange(local, dtype=np.int64)

    def micro_batch(self, step: int, part: int, size: int) -> np.ndarray:
        """Return the sample ids of one micro-batch of this rank.

        Args:
            step: The step.
            part: Number of the micro-batch in its step, from 0.
            size: Samples of a micro-batch; divides batch_size / world_size.

        Returns:
            int64 [size].
        """
        return self.ids(step)[part * size : (part + 1) * size]

    def global_ids(self, step: int) -> np.ndarray:
        """Return the sample ids of all ranks at ``step``: int64 [batch_size]."""
        return replace(self, rank=0, world_size=1).ids(step)

    def images_of(self, ids: np.ndarray) -> np.ndarray:
        """Return the number of the photograph that each sample shows: int64 [N], 0 <= number < images."""
        epochs, positions = np.divmod(np.asarray(ids, np.int64), self.images)
        return permute(positions, self.images, round_keys(self.seed, Stream.SHUFFLE, epochs))

    def substitutes(self, ident: int) -> Iterator[int]:
        """Yield photographs to try, each once, in place of an unreadable one in sample ``ident``."""
        keys = round_keys(self.seed, Stream.SUBSTITUTE, ident)
        for k in range(self.images):
            yield int(permute(k, self.images, keys)[0])
