"""Photographs that lie together in large files, shards: where each one is, and how they are read by ranges of bytes."""

import json
import logging
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from dptmat.data.containers import find_images
from dptmat.data.shard_table import ENTRY, Table
from dptmat.data.storage import Span, Store, open_store
from dptmat.data.stored_range import StoredRange
from dptmat.errors import StoreAwayError, UserError, first_line
from dptmat.file_kinds import HEAD, name_kind
from dptmat.files import write_whole

_logger = logging.getLogger(__name__)

INDEX, TABLE = "index.json", "index.bin"  # of a folder of shards
FORMAT = 1
_LONGEST = 2**32 - 1  # bytes of an image that the table can tell of; no photograph is nearly as long
_LOOKED_AT = 20  # shards, and photographs, that are looked at before a run


class Shard(NamedTuple):
    """A file of photographs."""

    name: str  # relative to the folder or prefix of all
    images: int
    bytes: int
    digest: str  # of its content, or where that has not been read of where its photographs lie


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
        self._blocks: OrderedDict[int, list[bytes | OSError]] = OrderedDict()
        self._block, self._most_blocks = 0, 0
        self._lock = threading.Lock()

    @classmethod
    def open(cls, store: Store, called: str) -> "ShardIndex":
        """Open the index of a folder of shards.

        Raises:
            UserError: It is none, or its two files do not belong together.
            OSError: It cannot be read.
        """
        where = f"{called}: {INDEX}"
        try:
            content = json.loads(store.read(INDEX))
            if content["format"] != FORMAT:
                raise UserError(
                    f"{where} is of format {content['format']}, and this version reads {FORMAT}; upgrade dptmat"
                )
            shards = [Shard(str(n), int(i), int(b), str(d)) for n, i, b, d in content["shards"]]
            root, settings = str(content.get("root", "")), dict(content["settings"])
            images = int(content["images"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{where} is not what dptmat pack or dptmat index writes: {first_line(error)}") from error
        _require_sound(shards, images, where)
        table = Table(store, TABLE, images)
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
        shards = []
        _logger.info("looking where the photographs are in %s files of %s; dptmat index keeps it", len(names), called)
        with tempfile.TemporaryFile() as file:  # whose content the table goes on to read
            for name in names:
                found = (image[1:] for image in find_images(store, name) if image.length <= _LONGEST)
                entries = np.fromiter(found, ENTRY)
                file.write(entries.tobytes())
                shards.append(Shard(name, len(entries), store.size(name), _digest_of(entries)))
            file.flush()
            images = sum(shard.images for shard in shards)
            if not images:
                raise UserError(f"{called}: no photograph is in {len(names)} files, such as {names[0]}")
            return cls(store, shards, Table.of_file(os.dup(file.fileno()), images))

    @classmethod
    def of_files(cls, store: Store, files: Sequence[tuple[str, int]]) -> "ShardIndex":
        """Take files that are one photograph each, by name and bytes."""
        with tempfile.TemporaryFile() as file:
            file.write(np.array([(0, min(size, _LONGEST)) for _, size in files], ENTRY).tobytes())
            file.flush()
            table = Table.of_file(os.dup(file.fileno()), len(files))
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

    def ranges(self, numbers: Sequence[int] | np.ndarray) -> list[StoredRange]:
        """Return the photographs of some numbers as what can be sent to another process.

        Raises:
            IndexError: There is no such number.
            OSError: A shard is not the one that the index was made of.
        """
        photos = self.take(numbers)
        for shard in {photo.shard for photo in photos}:
            self._require_same(shard)
        return [StoredRange(self._store, Span(self.shards[p.shard].name, p.offset, p.length)) for p in photos]

    def read(self, photo: Packed, most: int) -> bytes:
        """Read one photograph, or its first bytes; as `Packed.read`."""
        if not self._store.remote:
            self._require_same(photo.shard)
        return self._store.read(self.shards[photo.shard].name, photo.offset, min(most, photo.length))

    @property
    def prefers_blocks(self) -> bool:
        """Whether photographs that lie together are read together at less cost."""
        return self._store.remote and len(self) > len(self.shards)

    @property
    def is_fetched_together(self) -> bool:
        """Whether photographs are better read together than one by one."""
        return self._store.remote or self._block > 0

    def keep_blocks(self, size: int, most: int) -> None:
        """Read whole blocks of photographs from now on, and keep the last used ones.

        Args:
            size: Photographs of a block.
            most: Blocks to keep.
        """
        self._block, self._most_blocks = size, most

    def fetch_many(self, photos: Sequence[Packed]) -> list[bytes | OSError]:
        """Read many photographs: their bytes, or the error of each that cannot be read.

        Raises:
            StoreAwayError: Their store does not answer.
        """
        if not self._block:
            return self._fetch(photos)
        wanted = list(dict.fromkeys(photo.number // self._block for photo in photos))
        with self._lock:
            missing = [block for block in wanted if block not in self._blocks]
        ends = [(block * self._block, min((block + 1) * self._block, len(self))) for block in missing]
        contents = self._fetch(self.take(np.concatenate([np.arange(*pair) for pair in ends]))) if ends else []
        with self._lock:
            for block, (start, end) in zip(missing, ends, strict=True):
                self._blocks[block], contents = contents[: end - start], contents[end - start :]
            for block in wanted:
                self._blocks.move_to_end(block)
            kept = {block: self._blocks[block] for block in wanted}
            for block in missing:  # what has failed is asked for again
                if any(isinstance(content, OSError) for content in kept[block]):
                    self._blocks.pop(block)
            while len(self._blocks) > max(self._most_blocks, len(wanted)):
                self._blocks.popitem(last=False)
        return [kept[photo.number // self._block][photo.number % self._block] for photo in photos]

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
        for shard in _spread(len(self.shards)):
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
        heads = [photo.read(HEAD) for photo in self.take(_spread(len(self)))]
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
            for shard in self._by_name.get(shard_name, ()):
                if shard not in offsets:
                    offsets[shard] = self._table.entries(*self._starts[shard : shard + 2])["offset"]
                counts[i] += np.count_nonzero(offsets[shard] == offset)
        return counts

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        return {shard.name: [i] for i, shard in enumerate(self.shards)}

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


def render_index(shards: Sequence[Shard], settings: dict[str, Any], root: str = "") -> bytes:
    """Make the content of index.json.

    Args:
        shards: All shards, in order.
        settings: What they were packed by.
        root: Where the shards are, if not beside it.
    """
    head = {"format": FORMAT, "images": sum(shard.images for shard in shards), "settings": settings}
    content = {**head, **({"root": root} if root else {}), "shards": shards}
    return json.dumps(content, indent=None, separators=(",", ":")).encode() + b"\n"


def _require_sound(shards: list[Shard], images: int, where: str) -> None:
    names = [shard.name for shard in shards]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{where} names {twice} twice; write it anew by dptmat pack --finish")
    if any(name.startswith("/") or ".." in name.split("/") for name in names):
        raise UserError(f"{where} names shards outside of its folder; it is not what dptmat writes")
    if not images or images != sum(shard.images for shard in shards) or any(min(s.images, s.bytes) < 0 for s in shards):
        raise UserError(f"{where} tells of {images} photographs, and its shards of another number; write it anew")


def _digest_of(entries: np.ndarray) -> str:
    return blake2b(entries.tobytes(), digest_size=16).hexdigest()


def _spread(count: int) -> list[int]:
    """Return up to ``_LOOKED_AT`` numbers below ``count``, spread over them."""
    return np.unique(np.linspace(0, count - 1, _LOOKED_AT).round().astype(np.int64)).tolist()


def _parse(name: str, prefix: str) -> tuple[str, int]:
    """Take the name of a photograph apart: its shard's, and its offset, or -1."""
    shard, _, offset = name.rpartition("@")
    if not shard.startswith(prefix) or not (offset.isascii() and offset.isdigit()):
        return "", -1
    return shard.removeprefix(prefix), int(offset)
