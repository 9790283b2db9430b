"""Where each of any number of photographs lies in its shard: 12 bytes for each, of which none is held in memory."""

import os
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

from dptmat.data.storage import Span, Store

ENTRY = np.dtype([("offset", "<u8"), ("length", "<u4")])
_PAGE = 4096  # entries that are read together from an object store
_MOST_PAGES = 1024  # that are kept: 50 MB


class Table:
    """Offsets and lengths by the numbers of photographs, read where they lie.

    A map of the file would take all of it into memory by and by, and end the process where the file is cut short.

    Args:
        store: Where it is.
        name: The file.

    Attributes:
        bytes: Size of the file.

    Raises:
        OSError: It cannot be read.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._file: int | None = None
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()
        if store.remote:
            self.bytes = store.size(name)
        else:
            self._own(os.open(os.path.join(store.url, name), os.O_RDONLY))

    @classmethod
    def of(cls, parts: Iterable[np.ndarray]) -> "Table":
        """Put entries, `ENTRY` [N] each, one after the other into a file without a name, and read them there.

        Raises:
            OSError: It cannot be written.
        """
        table = cls.__new__(cls)
        with tempfile.TemporaryFile() as file:
            file.writelines(part.tobytes() for part in parts)
            file.flush()
            table._own(os.dup(file.fileno()))
        return table

    def _own(self, descriptor: int) -> None:
        self._file, self.bytes = descriptor, os.fstat(descriptor).st_size
        if hasattr(os, "posix_fadvise"):  # entries are wanted here and there: what lies around them need not be read
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        weakref.finalize(self, os.close, descriptor)

    def lookup(self, numbers: np.ndarray) -> np.ndarray:
        """Return the entries of some numbers.

        Args:
            numbers: int64 [N].

        Returns:
            `ENTRY` [N].
        """
        size = ENTRY.itemsize
        if self._file is not None:
            content = b"".join([os.pread(self._file, size, size * number) for number in numbers.tolist()])
            return np.frombuffer(content, ENTRY)
        pages, places = np.divmod(numbers, _PAGE)
        rows = zip(pages.tolist(), (size * places).tolist(), strict=True)
        with self._lock:
            self._read_pages(np.unique(pages).tolist())
            return np.frombuffer(b"".join([self._pages[page][at : at + size] for page, at in rows]), ENTRY)

    def entries(self, start: int, stop: int) -> np.ndarray:
        """Return the entries from one number up to another: `ENTRY` [stop - start]."""
        offset, length = ENTRY.itemsize * int(start), ENTRY.itemsize * int(stop - start)
        if not length:
            return np.empty(0, ENTRY)
        if self._file is not None:
            return np.frombuffer(os.pread(self._file, length, offset), ENTRY)
        return np.frombuffer(self._store.read(self._name, offset, length), ENTRY)

    def _read_pages(self, pages: list[int]) -> None:
        """Have some pages at hand, and drop those that have not been wanted for long."""
        missing = [page for page in pages if page not in self._pages]
        size = ENTRY.itemsize * _PAGE
        lengths = [min(size, self.bytes - size * page) for page in missing]
        spans = [Span(self._name, size * page, length) for page, length in zip(missing, lengths, strict=True)]
        for page, content in zip(missing, self._store.read_many(spans), strict=True):
            if isinstance(content, OSError):
                raise content
            self._pages[page] = content
        for page in pages:
            self._pages.move_to_end(page)
        while len(self._pages) > max(_MOST_PAGES, len(pages)):
            self._pages.popitem(last=False)
