"""Photographs in Parquet files that are compressed there: by row groups, one after the other, for `dptmat pack`."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from dptmat.data.parquet import count_rows, read_row_group
from dptmat.data.storage import Store
from dptmat.data.stored_file import StoredFile
from dptmat.errors import UserError, first_line

_KEPT = 2  # row groups in memory: photographs come in their order


class StoredRow(NamedTuple):
    """A row of a Parquet file that is a photograph: a `dptmat.pipelines.source.Stored`."""

    store: Store
    file: str
    group: int  # its row group
    place: int  # in the group

    @property
    def name(self) -> str:
        return f"{self.store.url}/{self.file}@{self.group}.{self.place}"

    @property
    def fetch_many(self) -> None:
        return None  # a row group is kept for those that follow

    def read(self, most: int) -> bytes:
        """Read it, or its first bytes; b"" where there is none.

        Raises:
            OSError: Its row group cannot be read.
        """
        try:
            return _read_group(self.store, self.file, self.group)[self.place][:most]
        except UserError as error:  # it is damaged
            raise OSError(first_line(error)) from error


class RowIndex:
    """The rows of Parquet files, in order; those without an image count, and turn out to be empty.

    Args:
        store: Where the files are.
        names: The files.

    Raises:
        UserError: One of them is no Parquet file, or damaged.
        OSError: One of them cannot be read.
    """

    def __init__(self, store: Store, names: Sequence[str]) -> None:
        self.url, self._store = store.url, store
        self._groups: list[tuple[str, int]] = []  # file and number of each row group
        counts, self._sizes = [], []
        for name in names:
            rows = count_rows(StoredFile(store, name))
            self._groups += [(name, group) for group in range(len(rows))]
            counts += rows
            self._sizes.append((name, store.size(name), rows))
        self._starts = [0, *accumulate(counts)]

    def __len__(self) -> int:
        return self._starts[-1]

    def take(self, numbers: Sequence[int] | np.ndarray) -> list[StoredRow]:
        """Return the photographs of some numbers."""
        taken = []
        for number in numbers:
            group = bisect_right(self._starts, int(number)) - 1
            taken.append(StoredRow(self._store, *self._groups[group], int(number) - self._starts[group]))
        return taken

    portable = take  # they can be sent to another process

    def digest(self) -> str:
        """Return a fingerprint of the files, by their names, sizes and rows, as a hexadecimal string."""
        return blake2b(repr(self._sizes).encode(), digest_size=16).hexdigest()

    def require_some_file(self, called: str) -> None:
        """Refuse files without a row.

        Raises:
            UserError: It is so.
        """
        if not len(self):
            raise UserError(f"{called}: no photograph is in {len(self._sizes)} files")


@lru_cache(_KEPT)
def _read_group(store: Store, file: str, group: int) -> list[bytes]:
    return read_row_group(StoredFile(store, file), group)
