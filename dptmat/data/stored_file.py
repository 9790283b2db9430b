"""A file in a store, read part by part: by few large requests where each is paid for, by small ones on a disk."""

from collections.abc import Iterator
from typing import NamedTuple

from dptmat.data.storage import Store
from dptmat.errors import UserError

_REMOTE = 8 << 20  # bytes of a request, as object stores advise
_LOCAL = 4 << 10  # a page: what a disk gives at least
_KEPT = 4  # blocks in memory beside those of the largest part
_PIECE = 32 << 10  # that is searched at a time


class Found(NamedTuple):
    """An image in a file that holds many."""

    key: str  # its name there, which is no path of anything
    offset: int  # of its first byte in the file
    length: int  # in bytes


class StoredFile:
    """A file in a store, of which the blocks that were used last are kept.

    Args:
        store: A local folder or an object store.
        name: Of the file in it.

    Attributes:
        path: The file as messages call it.
        size: In bytes.
        error: The last error of the store, where a library that reads from this may hide it.

    Raises:
        OSError: The store does not give it.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.path, self.size = f"{store.url}/{name}", store.size(name)
        self.error: OSError | None = None
        self._store, self._name = store, name
        self._block = _REMOTE if store.remote else _LOCAL
        self._blocks: dict[int, bytes] = {}
        self._kept = _KEPT

    def at(self, offset: int, length: int, what: str = "what follows") -> bytes:
        """Read a part of the file; ``what`` it is, a message says.

        Raises:
            UserError: It goes beyond the file's end.
            OSError: The store does not give it.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self.damaged(offset, f"{what} has {length} bytes, and the file ends at byte {self.size}")
        first, last = offset // self._block, (offset + length - 1) // self._block
        if last < first:
            return b""
        if not self._store.remote and last > first:
            return self._read(offset, length)
        self._kept = max(self._kept, last - first + 1 + _KEPT)
        start = first * self._block
        return b"".join(map(self._read_block, range(first, last + 1)))[offset - start : offset - start + length]

    def alone(self, offset: int, length: int) -> bytes:
        """Read a part as `at` does, but no more than it: for what lies apart from all else."""
        if offset // self._block in self._blocks or length >= self._block:
            return self.at(offset, length)
        return self._read(offset, length)

    def find(self, wanted: bytes, start: int, end: int) -> Iterator[int]:
        """Yield where a few bytes stand between two places, in order.

        Raises:
            OSError: The store does not give the file.
        """
        while start + len(wanted) <= end:
            piece = self.at(start, min(_PIECE + len(wanted) - 1, end - start))
            place = piece.find(wanted)
            while place >= 0:
                yield start + place
                place = piece.find(wanted, place + 1)
            start += _PIECE

    def damaged(self, offset: int, reason: str) -> UserError:
        """Return the error that tells that the file is damaged, and where."""
        return UserError(f"{self.path} is damaged or was cut short at byte {offset}: {reason}; fetch it again")

    def _read_block(self, number: int) -> bytes:
        block = self._blocks.pop(number, None)
        if block is None:
            start = number * self._block
            block = self._read(start, min(self._block, self.size - start))
        self._blocks[number] = block  # at the end: the first is the one that was not used for longest
        if len(self._blocks) > self._kept:
            del self._blocks[next(iter(self._blocks))]
        return block

    def _read(self, offset: int, length: int) -> bytes:
        try:
            return self._store.read(self._name, offset, length)
        except OSError as error:
            self.error = error
            raise
