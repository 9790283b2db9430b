"""The order of an endless run: which sample ids a rank gets at a step, and which photograph each id shows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from dptmat.errors import UserError
from dptmat.kernels.permutation import permute, round_keys
from dptmat.kernels.philox import Stream

_BLOCK = 256  # photographs: 6 to 8 MB of packed ones, which object stores advise to read together
_LEFT_OUT = 8  # blocks leave out less than one photograph in so many


@dataclass(frozen=True)
class Sampler:
    """Every batch as a function of ``(seed, step)``; nothing is stored, so any step can be asked for directly.

    Sample id = epoch * images + position; position p of an epoch shows image pi(p), where pi is the keyed permutation
    of stream SHUFFLE. Rank r takes the contiguous slice r of each global batch; a last partial batch is dropped.

    In blocks, photographs that lie together are shown together, so that they can be read by a few large requests: see
    `_in_blocks`.

    Raises:
        UserError: The batch does not divide among the processes, or there are too few photographs for one.
    """

    seed: int
    images: int  # photographs in the index
    batch_size: int  # samples per step over all ranks
    rank: int = 0
    world_size: int = 1  # number of ranks
    in_blocks: bool = False  # whether the order is one of blocks; else any photograph can follow any other

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
        """Steps in which each photograph comes once, but for a last partial batch, or what blocks leave out."""
        return self._rounds * self.block if self.in_blocks else self.images // self.batch_size

    @property
    def block(self) -> int:
        """Photographs of a block: 256, or less where an eighth of all would be left out: a power of two."""
        fitting = self.images // (_LEFT_OUT * self.batch_size)
        return min(_BLOCK, 1 << max(0, fitting.bit_length() - 1))

    @property
    def blocks_at_once(self) -> int:
        """Blocks that this rank shows photographs of at a step: one for each sample."""
        return self.batch_size // self.world_size

    @property
    def _rounds(self) -> int:
        """Blocks that each place in the batch goes through in an epoch."""
        return self.images // self.block // self.batch_size

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
        if self.in_blocks:
            return self._in_blocks(epochs, positions)
        return permute(positions, self.images, round_keys(self.seed, Stream.SHUFFLE, epochs))

    def _in_blocks(self, epochs: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Return the photographs at some positions of an epoch, int64 [N], in the order of blocks.

        Each place in the batch shows the photographs of one block after the other, in an order of the block's own. The
        places begin at different photographs of their blocks, so that in every step equally many come to the end of
        theirs: all ranks together begin ``batch_size / block`` blocks a step. No block is shown at two places, hence
        none read by two ranks, and the batch of a step is the same for any number of them. The blocks that are over,
        others in each epoch, are left out.
        """
        steps, places = np.divmod(positions, self.batch_size)
        ahead = places * self.block // self.batch_size
        rounds, within = np.divmod((steps + ahead) % self.steps_per_epoch, self.block)
        blocks = self.images // self.block
        order = round_keys(self.seed, Stream.SHUFFLE, epochs)
        block = permute(rounds * self.batch_size + places, blocks, order)
        inside = permute(within, self.block, round_keys(self.seed, Stream.BLOCK, epochs * blocks + block))
        return block * self.block + inside

    def substitutes(self, ident: int) -> Iterator[int]:
        """Yield photographs to try, each once, in place of an unreadable one in sample ``ident``."""
        keys = round_keys(self.seed, Stream.SUBSTITUTE, ident)
        for k in range(self.images):
            yield int(permute(k, self.images, keys)[0])
