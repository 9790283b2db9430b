"""Photographs that lie together in large files, shards: where each one is, and how they are read by ranges of bytes."""

import logging
import math
import os
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from dptmat.data.block_cache import BlockCache
from dptmat.data.containers import find_images
from dptmat.data.parquet import CompressedError
from dptmat.data.shard_list import INDEX, TABLE, Shard, read_index, render_index
from dptmat.data.shard_table import ENTRY, Table
from dptmat.data.spread import spread
from dptmat.data.storage import Span, Store, open_store
from dptmat.data.stored_range import StoredRange
from dptmat.errors import StoreAwayError, UserError, first_line
from dptmat.file_kinds import HEAD, name_kind
from dptmat.files import write_whole

_logger = logging.getLogger(__name__)

_LONGEST = 2**32 - 1  # bytes of an image that the table can tell of; no photograph is nearly as long
_LOOKED_AT = 20  # shards, and photographs, that are looked at before a run


class Packed(NamedTuple):
    """A photograph in a shard: a `dptmat.pipelines.source.Stored`."""

    source: "ShardIndex"
    number: int
    shard: int
    offset: int
    length: int

    @property
    def name(self) -> str:
        return f"{self.source.url}/{self.source.shards[self.shard].name}@{self.offset}"

    @property
    def fetch_many(self) -> "Callable[[Sequence[Packed]], list[bytes | OSError]] | None":
        return self.source.fetch_many if self.source.is_fetched_together else None

    def read(self, most: int) -> bytes:
        """Read it, or its first bytes.

        Raises:
            OSError: It cannot be read, or its shard is not the one that the index was made of.
        """
        return self.source.read(self, most)


class ShardIndex:
    """The photographs in some shards, in a fixed order; a `dptmat.pipelines.source.Photographs`.

    Nothing that grows with their number is in memory.

    Args:
        store: Where the shards are.
        shards: The shards, in order.
        table: Offset and length of each photograph in its shard, in order.
        settings: What they were packed by.
    """

    def __init__(self, store: Store, shards: list[Shard], table: Table, settings: dict[str, Any] | None = None) -> None:
        self.url, self.shards, self.settings = store.url, shards, settings or {}
        self._store, self._table = store, table
        self._starts = np.concatenate([[0], np.cumsum([shard.images for shard in shards], dtype=np.int64)])
        self._sizes: dict[int, int] = {}  # bytes of the shards that were read, as they are
        self._blocks: BlockCache | None = None

    @classmethod
    def open(cls, store: Store, called: str) -> "ShardIndex":
        """Open the index of a folder of shards.

        Raises:
            UserError: It is none, or its two files do not belong together.
            OSError: It cannot be read.
        """
        shards, settings, root = read_index(store, called)
        images = sum(shard.images for shard in shards)
        table = Table(store, TABLE)
        if table.bytes != images * ENTRY.itemsize:
            raise UserError(
                f"{called}: {TABLE} has {table.bytes:,} bytes, where {INDEX} tells of {images:,} photographs of "
                f"{ENTRY.itemsize} bytes each: they do not belong together; copy both again, or dptmat pack --finish"
            )
        return cls(open_store(root, "data") if root else store, shards, table, settings)

    @classmethod
    def scan(cls, store: Store, names: Sequence[str], called: str) -> "ShardIndex":
        """Look where the photographs lie in files of many: tar, parquet or TFRecord.

        Args:
            store: Where they are.
            names: The files, in order.
            called: How messages call the data.

        Raises:
            UserError: A file is none of these, or cannot be read by ranges; or there is no photograph in any.
            OSError: A file cannot be read.
        """
        shards: list[Shard] = []

        def entries() -> Iterator[np.ndarray]:
            for name in names:
                found = (image[1:] for image in find_images(store, name) if image.length <= _LONGEST)
                try:
                    of_shard = np.fromiter(found, ENTRY)
                except CompressedError as error:
                    error.files = store, names
                    raise
                shards.append(Shard(name, len(of_shard), store.size(name), _digest_of(of_shard)))
                yield of_shard

        _logger.info("looking where the photographs are in %s files of %s; dptmat index keeps it", len(names), called)
        table = Table.of(entries())
        if not table.bytes:
            raise UserError(f"{called}: no photograph is in {len(names)} files, such as {names[0]}")
        return cls(store, shards, table)

    @classmethod
    def of_files(cls, store: Store, files: Sequence[tuple[str, int]]) -> "ShardIndex":
        """Take files that are one photograph each, by name and bytes."""
        table = Table.of([np.array([(0, min(size, _LONGEST)) for _, size in files], ENTRY)])
        return cls(store, [Shard(name, 1, size, "") for name, size in files], table)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, i: int) -> Packed:
        return self.take([i])[0]

    def take(self, numbers: Sequence[int] | np.ndarray) -> list[Packed]:
        """Return the photographs of some numbers.

        Raises:
            IndexError: There is no such number.
        """
        wanted = np.asarray(numbers, np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"there is no photograph {wanted.max()} among {len(self)}")
        shards = np.searchsorted(self._starts, wanted, "right") - 1
        entries = self._table.lookup(wanted)
        columns = wanted.tolist(), shards.tolist(), entries["offset"].tolist(), entries["length"].tolist()
        return [Packed(self, *row) for row in zip(*columns, strict=True)]

    def portable(self, numbers: Sequence[int] | np.ndarray) -> list[StoredRange]:
        """Return the photographs of some numbers as what can be sent to another process.

        Raises:
            IndexError: There is no such number.
            UserError: A shard is not the one that the index was made of, or cannot be read.
        """
        photos = self.take(numbers)
        for shard in {photo.shard for photo in photos}:
            try:
                self._require_same(shard)
            except OSError as error:
                raise UserError(f"`data` {self.url}: {first_line(error)}; copy the shard again") from error
        return [StoredRange(self._store, Span(self.shards[p.shard].name, p.offset, p.length)) for p in photos]

    def read(self, photo: Packed, most: int) -> bytes:
        """Read one photograph, or its first bytes; as `Packed.read`."""
        if not self._store.remote:
            self._require_same(photo.shard)
        return self._store.read(self.shards[photo.shard].name, photo.offset, min(most, photo.length))

    @property
    def short_side(self) -> float:
        """Pixels on the shorter side to which the photographs were shrunk when they were packed, or infinity."""
        told = self.settings.get("short_side") if self.settings.get("reencode") else None
        return told if isinstance(told, int) else math.inf

    @property
    def prefers_blocks(self) -> bool:
        """Whether photographs that lie together are read together at less cost."""
        return self._store.remote and len(self) > len(self.shards)

    @property
    def is_fetched_together(self) -> bool:
        """Whether photographs are better read together than one by one."""
        return self._store.remote or self._blocks is not None

    def keep_blocks(self, size: int, most: int) -> None:
        """Read whole blocks of photographs from now on, and keep the last used ones.

        Args:
            size: Photographs of a block.
            most: Blocks to keep.
        """
        self._blocks = BlockCache(lambda numbers: self._fetch(self.take(numbers)), len(self), size, most)

    def fetch_many(self, photos: Sequence[Packed]) -> list[bytes | OSError]:
        """Read many photographs: their bytes, or the error of each that cannot be read.

        Raises:
            StoreAwayError: Their store does not answer.
        """
        if self._blocks is None:
            return self._fetch(photos)
        return self._blocks.fetch([photo.number for photo in photos])

    def _fetch(self, photos: Sequence[Packed]) -> list[bytes | OSError]:
        others: dict[int, OSError] = {}
        # A store would be asked once more for each shard, one after the other: its ranges tell nearly as much.
        for shard in {photo.shard for photo in photos if not self._store.remote}:
            try:
                self._require_same(shard)
            except OSError as error:
                others[shard] = error
        whole = [photo for photo in photos if photo.shard not in others]
        spans = [Span(self.shards[photo.shard].name, photo.offset, photo.length) for photo in whole]
        contents = iter(self._store.read_many(spans))
        return [others[photo.shard] if photo.shard in others else next(contents) for photo in photos]

    def _require_same(self, shard: int) -> None:
        """Refuse a shard that is not as long as the one that the index was made of."""
        name, _, expected, _ = self.shards[shard]
        if shard not in self._sizes:
            self._sizes[shard] = self._store.size(name)
        if self._sizes[shard] != expected:
            raise OSError(f"its shard {name} has {self._sizes[shard]:,} bytes, where the index tells of {expected:,}")

    def require_some_file(self, called: str) -> None:
        """Refuse shards that are not there, are not those of the index, or hold something else, by some of them.

        Raises:
            UserError: It is so; the message calls the data ``called``.
        """
        for shard in spread(len(self.shards), _LOOKED_AT):
            try:
                self._require_same(shard)
            except FileNotFoundError as error:
                missing = f"{self.url}/{self.shards[shard].name}"
                raise UserError(f"{called}: {INDEX} names {missing}, which is not there; copy it again") from error
            except StoreAwayError:
                raise
            except OSError as error:
                reason = error.strerror or first_line(error)
                raise UserError(f"{called}: {reason}; copy the shard again, or index the folder anew") from error
        heads = [photo.read(HEAD) for photo in self.take(spread(len(self), _LOOKED_AT))]
        kinds = [name_kind(head) for head in heads]
        if not any(kind.endswith(" file") for kind in kinds):
            raise UserError(
                f"{called}: none of {len(kinds)} photographs looked at is an image: {INDEX} or {TABLE} is of other data"
            )

    def occurrences(self, names: Iterable[str]) -> np.ndarray:  # int64, one for each name
        """Count how often each of some photographs is among these, by its name."""
        wanted = [_parse(name, f"{self.url}/") for name in names]
        offsets: dict[int, np.ndarray] = {}
        counts = np.zeros(len(wanted), np.int64)
        for i, (shard_name, offset) in enumerate(wanted):
            shard = self._by_name.get(shard_name)
            if shard is None:
                continue
            if shard not in offsets:
                offsets[shard] = self._table.entries(*self._starts[shard : shard + 2])["offset"]
            counts[i] = np.count_nonzero(offsets[shard] == offset)
        return counts

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return {shard.name: i for i, shard in enumerate(self.shards)}

    def digest(self) -> str:
        """Return a fingerprint of the photographs and their order, wherever they lie, as a hexadecimal string."""
        digest = blake2b(digest_size=16)
        for shard in self.shards:
            digest.update(f"{shard.name}\n{shard.images} {shard.bytes} {shard.digest}\n".encode())
        return digest.hexdigest()

    def write(self, path: str | Path) -> None:
        """Write the shards as a text file: a line with name, photographs and bytes for each.

        Raises:
            OSError: The file cannot be written.
        """
        lines = (os.fsencode(f"{self.url}/{shard.name}\t{shard.images}\t{shard.bytes}\n") for shard in self.shards)
        write_whole(path, lambda file: file.writelines(lines))

    def write_index(self, store: Store, leave_out: Container[str]) -> int:
        """Write an index of these photographs into a folder that need not be theirs.

        Args:
            store: The folder.
            leave_out: Names of those that do not count.

        Returns:
            Number of photographs in it.

        Raises:
            OSError: It cannot be written.
        """
        shards = []

        def write(file: BinaryIO) -> None:
            for i, shard in enumerate(self.shards):
                entries = self._table.entries(*self._starts[i : i + 2])
                names = (f"{self.url}/{shard.name}@{offset}" for offset in entries["offset"].tolist())
                good = entries[np.array([name not in leave_out for name in names], bool)]
                file.write(good.tobytes())
                same = len(good) == len(entries)
                shards.append(shard._replace(images=len(good), digest=shard.digest if same else _digest_of(good)))

        store.write(TABLE, write)
        images = sum(shard.images for shard in shards)
        store.write(INDEX, lambda file: file.write(render_index(shards, self.settings, self.url)))
        return images


def _parse(name: str, prefix: str) -> tuple[str, int]:
    """Take the name of a photograph apart: its shard's, and its offset, or -1."""
    shard, _, offset = name.rpartition("@")
    if not shard.startswith(prefix) or not (offset.isascii() and offset.isdigit()):
        return "", -1
    return shard.removeprefix(prefix), int(offset)


def _digest_of(entries: np.ndarray) -> str:
    return blake2b(entries.tobytes(), digest_size=16).hexdigest()
