"""Many ranges of files that lie behind a network: neighbours by one request, and many requests at once."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dptmat.data.storage import Span

_AT_ONCE = 64  # requests: at 25 ms of latency 1,700 a second
_GAP = 1 << 15  # bytes between two spans that cost less than a request of their own: 170 us of CPU, and its price
_BLOCK = 8 << 20  # bytes of a joined request: providers advise 8 or 16 MB


def join_spans(spans: Sequence[Span]) -> list[list[int]]:
    """Return which spans are read by one request: neighbours in a file, of 8 MB at most unless one alone is longer."""
    blocks: list[list[int]] = []
    start = end = 0
    for i in sorted(range(len(spans)), key=lambda i: spans[i][:2]):
        name, offset, length = spans[i]
        near = bool(blocks) and spans[blocks[-1][0]].name == name and offset <= end + _GAP
        if near and max(end, offset + length) - start <= _BLOCK:
            blocks[-1].append(i)
            end = max(end, offset + length)
        else:
            blocks.append([i])
            start, end = offset, offset + length
    return blocks


class Readers:
    """Threads that read, 64 at once whoever asks; an interrupted program does not wait for them."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any], threading.Event]]
        self._jobs = queue.SimpleQueue()
        for _ in range(_AT_ONCE):
            threading.Thread(target=self._work, name="object store", daemon=True).start()

    def run(self, jobs: Sequence[Callable[[], Any]]) -> Iterator[Any]:
        """Yield what the jobs return, in no order, or raise what the first of them has raised."""
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        given_up = threading.Event()
        for job in jobs:
            self._jobs.put((job, done, given_up))
        try:
            for _ in jobs:
                result = done.get()
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            given_up.set()  # what has not begun is left out

    def run_one(self, job: Callable[[], Any]) -> Any:
        """Return what a job returns, or raise what it has raised."""
        return next(self.run([job]))

    def _work(self) -> None:
        while True:
            job, done, given_up = self._jobs.get()
            if not given_up.is_set():
                try:
                    done.put(job())
                except BaseException as error:
                    done.put(error)
            del job, done, given_up  # while it waits it holds no results
