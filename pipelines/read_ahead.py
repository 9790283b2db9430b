"""What the next batches of a graph are given, made in the background: their files are read by several threads."""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from dptmat.data.color_profiles import has_other_profile
from dptmat.pipelines.encoded import decode_by_pillow, read_encoded

_AHEAD = 2  # batches that are read before a graph asks for them
_UNREADABLE = bytes(20)  # in place of a bad file: no decoder takes it, so that its batch fails


class Reader:
    """Reads files by several threads; what cannot be read, or is plainly bad, comes as something that fails to decode.

    Args:
        threads: Number of them.

    Attributes:
        by_pillow: Paths of files that DALI does not decode, and Pillow does.
    """

    def __init__(self, threads: int) -> None:
        self._threads, self._pool = threads, ThreadPoolExecutor(threads, "read")
        self.by_pillow: set[str] = set()

    def __call__(self, paths: Iterable[str], *, srgb: bool = False) -> list[np.ndarray]:
        """Read some files.

        Args:
            paths: The files.
            srgb: Whether to convert what has another colour profile to sRGB. Pillow does it, at several times the cost
                of decoding.

        Returns:
            uint8 [bytes] each, in order.
        """
        paths = list(paths)
        contents = [np.empty(0, np.uint8)] * len(paths)

        def read_share(first: int) -> None:  # a call for each file would cost as much as to read it
            for i in range(first, len(paths), self._threads):
                contents[i] = np.frombuffer(self._read(paths[i], srgb), np.uint8)

        list(self._pool.map(read_share, range(min(self._threads, len(paths)))))
        return contents

    def _read(self, path: str, srgb: bool) -> bytes:
        try:
            if path not in self.by_pillow:
                content = read_encoded(path)
                if not (srgb and has_other_profile(content)):
                    return content
            return decode_by_pillow(path, srgb=srgb)
        except Exception:  # noqa: BLE001 - whatever it is, the loader asks again and says it
            return _UNREADABLE


class ReadAhead:
    """Makes what one batch after the other is given, some batches ahead of their use.

    Args:
        make: What makes it, called with the batch's number.
        first: Number of the first batch.
    """

    def __init__(self, make: Callable[[int], tuple], first: int) -> None:
        self._make, self._next = make, first
        self._pool = ThreadPoolExecutor(1, "read ahead")
        self._made: deque[Future[tuple]] = deque()

    def __call__(self) -> tuple:
        while len(self._made) <= _AHEAD:
            self._made.append(self._pool.submit(self._make, self._next))
            self._next += 1
        return self._made.popleft().result()

    def close(self) -> None:
        """Make no more; what is being made is forgotten."""
        self._pool.shutdown(wait=False, cancel_futures=True)
