"""Blocks of photographs that lie together, read whole and kept as long as they are shown."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

Content = bytes | OSError  # of a photograph, or why it cannot be read


class BlockCache:
    """Reads photographs by whole blocks, and keeps the blocks that were used last.

    In an order of blocks each place of a batch goes through one block after the other. So as many blocks are in use as
    a batch has samples, and a block that is over is the one that was used longest ago.

    Args:
        read: Reads photographs by their numbers, in order.
        images: Number of all.
        size: Photographs of a block.
        most: Blocks to keep.
    """

    def __init__(self, read: Callable[[Sequence[int]], list[Content]], images: int, size: int, most: int) -> None:
        self._read, self._images, self.size, self._most = read, images, size, most
        self._blocks: OrderedDict[int, list[Content]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._blocks)

    def fetch(self, numbers: Sequence[int]) -> list[Content]:
        """Return the contents of some photographs.

        Raises:
            StoreAwayError: Their store does not answer.
        """
        wanted = list(dict.fromkeys(number // self.size for number in numbers))
        with self._lock:
            kept = {block: self._blocks[block] for block in wanted if block in self._blocks}
        missing = [block for block in wanted if block not in kept]
        spans = [range(block * self.size, min((block + 1) * self.size, self._images)) for block in missing]
        contents = self._read([number for span in spans for number in span]) if spans else []
        for block, span in zip(missing, spans, strict=True):
            kept[block], contents = contents[: len(span)], contents[len(span) :]
        with self._lock:
            for block in wanted:
                if any(isinstance(content, OSError) for content in kept[block]):
                    self._blocks.pop(block, None)  # it is asked for again
                else:
                    self._blocks[block] = kept[block]
                    self._blocks.move_to_end(block)
            while len(self._blocks) > max(self._most, len(wanted)):
                self._blocks.popitem(last=False)
        return [kept[number // self.size][number % self.size] for number in numbers]
