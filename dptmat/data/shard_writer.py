"""Shards as `dptmat pack` writes them: tars that are equal wherever they are written, and what lies beside each."""

import os
from collections.abc import Iterable
from hashlib import blake2b
from typing import BinaryIO, NamedTuple

import numpy as np

from dptmat.data.shard_table import ENTRY

BLOCK = 512  # bytes, of which a tar is made
_VERSION = "v1.2"  # of DALI's index of a tar


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int  # of its first byte in the tar
    length: int


class TarWriter:
    """Writes a tar that every reader of tars knows: no owner, no time, no names but numbers.

    Members are called by the number of their source, of 12 digits: a key of WebDataset ends at the first dot, a name in
    DALI's index at a blank, and one in a tar after 100 bytes.

    Args:
        file: Where to.

    Attributes:
        members: What has been written.
        bytes: Size so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.members: list[Member] = []
        self.bytes = 0
        self._file, self._digest = file, blake2b(digest_size=16)

    def add(self, number: int, ending: str, content: bytes) -> None:
        """Add a file of some content, such as 000000012345.jpg.

        Raises:
            OSError: It cannot be written.
        """
        name = f"{number:012d}.{ending}"
        self._write(_header(name, len(content)))
        self.members.append(Member(name, self.bytes, len(content)))
        self._write(content)
        self._write(bytes(-len(content) % BLOCK))

    def close(self) -> None:
        """Write the end of the tar, and leave the file open."""
        self._write(bytes(2 * BLOCK))

    def digest(self) -> str:
        """Return a fingerprint of what has been written, as a hexadecimal string."""
        return self._digest.hexdigest()

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._digest.update(content)
        self.bytes += len(content)


def _header(name: str, length: int) -> bytes:
    """Make the header of a regular file in a tar of the kind ustar, of mode 0644, owner 0 and time 0."""
    parts = (
        name.encode().ljust(100, b"\0"), b"0000644\0", b"0000000\0", b"0000000\0", b"%011o\0" % length,
        b"00000000000\0", b" " * 8, b"0", bytes(100), b"ustar\x0000", bytes(247),
    )  # fmt: skip
    header = b"".join(parts)
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]  # the sum counts its own place as blanks


def render_idx(members: Iterable[Member]) -> bytes:
    """Make DALI's index of a tar, for the readers of others."""
    lines = [f"{name.partition('.')[2]} {offset} {length} {name}\n" for name, offset, length in members]
    return f"{_VERSION} {len(lines)}\n{''.join(lines)}".encode()


def parse_idx(content: bytes) -> np.ndarray:
    """Read what `render_idx` has made: `ENTRY` [N].

    Raises:
        ValueError: It is something else.
    """
    head, *rows = content.decode().splitlines()
    version, _, count = head.partition(" ")
    if version != _VERSION or int(count) != len(rows):
        raise ValueError(f"it begins as {head[:40]!r} and has {len(rows)} further lines")
    return np.array([(int(offset), int(length)) for _, offset, length, _ in map(str.split, rows)], ENTRY)


def render_names(names: Iterable[str]) -> bytes:
    r"""Make a text of names of files, a line for each: \n and \r stand for line breaks in a name, \\ for its \."""
    return b"".join(escape_name(name) + b"\n" for name in names)


def escape_name(name: str) -> bytes:
    """Write the name of a file, which may hold anything, in one line."""
    return os.fsencode(name).replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
