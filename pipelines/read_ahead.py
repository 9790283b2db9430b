"""What the next batches of a graph are given, made in the background: their files are read by several threads."""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from dptmat.data.color_profiles import has_other_profile
from dptmat.pipelines.encoded import decode_by_pillow, fetch, judge, read_encoded
from dptmat.pipelines.source import Photo, name_of

_AHEAD = 2  # batches that are read before a graph asks for them
_UNREADABLE = bytes(20)  # in place of a bad file: no decoder takes it, so that its batch fails


class Reader:
    """Reads photographs by several threads; what cannot be read, or is plainly bad, comes as something that fails to
    decode.

    Args:
        threads: Number of them.

    Attributes:
        by_pillow: Names of those that DALI does not decode, and Pillow does.
    """

    def __init__(self, threads: int) -> None:
        self._threads, self._pool = threads, ThreadPoolExecutor(threads, "read")
        self.by_pillow: set[str] = set()

    def __call__(self, photos: Iterable[Photo], *, srgb: bool = False) -> list[np.ndarray]:
        """Read some photographs.

        Args:
            photos: The photographs.
            srgb: Whether to convert what has another colour profile to sRGB. Pillow does it, at several times the cost
                of decoding.

        Returns:
            uint8 [bytes] each, in order.
        """
        photos = list(photos)
        fetched = fetch(photos)
        contents = [np.empty(0, np.uint8)] * len(photos)

        def read_share(first: int) -> None:  # a call for each file would cost as much as to read it
            for i in range(first, len(photos), self._threads):
                contents[i] = np.frombuffer(self._read(photos[i], fetched.get(i), srgb), np.uint8)

        list(self._pool.map(read_share, range(min(self._threads, len(photos)))))
        return contents

    def _read(self, photo: Photo, fetched: bytes | OSError | None, srgb: bool) -> bytes:
        """Give the bytes of a photograph, or of those that were ``fetched`` already."""
        try:
            if isinstance(fetched, OSError):
                return _UNREADABLE
            if not self.by_pillow or name_of(photo) not in self.by_pillow:
                content = read_encoded(photo) if fetched is None else judge(fetched)
                if not (srgb and has_other_profile(content)):
                    return content
            return decode_by_pillow(photo, srgb=srgb)
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
