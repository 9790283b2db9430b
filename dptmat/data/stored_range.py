"""A photograph that is a byte range of a file in a store, by itself: it can be sent to another process or machine."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dptmat.data.storage import Span, Store


class StoredRange(NamedTuple):
    """A range of a file in a store that is a photograph: a `dptmat.pipelines.source.Stored`."""

    store: Store
    span: Span

    @property
    def name(self) -> str:
        return f"{self.store.url}/{self.span.name}@{self.span.offset}"

    @property
    def fetch_many(self) -> "Callable[[Sequence[StoredRange]], list[bytes | OSError]]":
        return fetch_ranges

    def read(self, most: int) -> bytes:
        """Read it, or its first bytes.

        Raises:
            OSError: It cannot be read.
        """
        return self.store.read(self.span.name, self.span.offset, min(most, self.span.length))


def fetch_ranges(photos: Sequence[StoredRange]) -> list[bytes | OSError]:
    """Read many ranges of one store together: their bytes, or the error of each that cannot be read."""
    return photos[0].store.read_many([photo.span for photo in photos])
