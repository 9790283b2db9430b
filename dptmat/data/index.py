"""The photographs of a run: a folder or a list of paths, of which little is held in memory."""

import codecs
import hashlib
import itertools
import mmap
import os
import sys
import tempfile
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dptmat.data.folders import walk_images
from dptmat.data.image_io import EXTENSIONS
from dptmat.data.spread import spread
from dptmat.errors import UserError
from dptmat.files import write_output, write_whole
from dptmat.pipelines.source import name_of

_CHUNK = 1 << 22  # bytes of a list that are looked at together
_BLANKS = (b" ", b"\t", b"\r")
_LOOKED_AT = 100  # lines of a list, of which one at least has to name a file


class ImageIndex:
    """Paths of photographs in a fixed order; ``index[i]`` is the i-th path and ``len(index)`` their number.

    The paths of a list lie in a nameless copy of its file, of which a map is held, and those of a folder are one block
    of bytes. Beside that there is the end of each line: 8 bytes per path.

    Args:
        lines: The paths, each ended by a newline but for the last one.
        root: Folder that relative paths are relative to.
    """

    def __init__(self, lines: bytes | mmap.mmap, root: str | Path) -> None:
        self._lines, self._root = lines, Path(root)
        self._ends = _find_ends(lines)  # int64 [N]
        first = lines[: self._ends[0]] if len(self._ends) else b""
        self._of_windows = first.endswith(b"\r") and not self._is_there(first)  # lines end as there

    @classmethod
    def open(
        cls,
        data: str | Path,
        parameter: str = "data",
        begun_with: str | Path | None = None,
        leave_out: str | Path | None = None,
    ) -> "ImageIndex":
        """List the photographs of ``data``: a folder, searched with all its subfolders, or a text file of paths; "-" is
        the standard input.

        A folder gives the files whose ending is in ``EXTENSIONS``, sorted by path, without what
        `dptmat.data.folders.walk_images` leaves out and logs. A text file holds one path per line; relative ones are
        relative to the file's folder, or for "-" to the working directory; empty lines do not count, nor blanks at the
        end of a line unless a file's name has them.

        Args:
            data: The folder or the file.
            parameter: How messages call ``data``.
            begun_with: The list that a run has written. Where it exists, a folder that still holds at least half of it
                gives what is in there: files that have gone since then are found to be bad, and the others keep their
                numbers.
            leave_out: A folder whose content does not count, such as that of the run itself.

        Raises:
            UserError: ``data`` does not exist or holds no photograph, its path or a name holds a line break, or a list
                is no text.
            OSError: The folder or the file cannot be read.
        """
        called = f"`{parameter}` {data}"
        if str(data) == "-":
            return cls(_copy_list(sys.stdin.buffer, called), Path.cwd())
        data = Path(data)
        if "\n" in os.path.abspath(data):
            raise UserError(
                f"the path {os.path.abspath(data)!r} of `{parameter}` holds a line break; rename the folder"
            )
        if data.is_dir():
            index = cls(_as_begun(_scan(data, called, leave_out), begun_with), data)
            if not len(index):
                raise UserError(
                    f"{called} holds no photograph (looked for {', '.join(EXTENSIONS)} in it and below); "
                    "point it at a folder of photographs or a text file of paths"
                )
            return index
        if not data.exists():
            raise UserError(f"{called} does not exist; point it at a folder of photographs")
        if data.suffix.lower() in EXTENSIONS:
            raise UserError(f"{called} is one photograph; point it at a folder of them or a text file of paths")
        with open(data, "rb") as file:
            return cls(_copy_list(file, called), data.absolute().parent)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: int) -> str:
        if not 0 <= i < len(self):
            raise IndexError(f"there is no photograph {i} among {len(self)}")
        return str(self._root / os.fsdecode(self._line(i)))

    def take(self, numbers: Sequence[int] | np.ndarray) -> list[str]:
        """Return the paths of some numbers."""
        return [self[i] for i in numbers]

    def _line(self, i: int) -> bytes:
        """Return a line without its end, and without blanks before it unless there is a file with them in its name."""
        start = self._ends[i - 1] + 1 if i else 0
        line = self._lines[start : self._ends[i]]
        if not line.endswith(_BLANKS):
            return line
        line = line.removesuffix(b"\r") if self._of_windows else line
        return line if line.endswith(_BLANKS) and self._is_there(line) else line.rstrip()

    def _is_there(self, line: bytes) -> bool:
        return os.path.lexists(os.path.join(os.fsencode(self._root), line))

    def require_some_file(self, called: str) -> None:
        """Refuse a list none of whose lines is the path of a file, by some that are spread over it.

        Raises:
            UserError: It is so; the message calls the list ``called``.
        """
        looked_at = spread(len(self), _LOOKED_AT)
        if any(os.path.exists(self[i]) for i in looked_at):
            return
        line, path = os.fsdecode(self._line(0)), self[0]
        relative = "" if os.path.isabs(line) else f"; relative paths are relative to {self._root}, the list's folder"
        raise UserError(
            f"{called}: none of {len(looked_at)} lines looked at is the path of a file, such as the first, {line!r}, "
            f"tried as {path}{relative}; see whether the file system is there, and write one plain path per line"
        )

    def portable(self, numbers: Sequence[int] | np.ndarray) -> list[str]:
        """Return the photographs of some numbers as what can be sent to another process: by their absolute paths."""
        return [name_of(path) for path in self.take(numbers)]

    @property
    def prefers_blocks(self) -> bool:
        """Whether photographs that lie together are read together at less cost."""
        return False

    def occurrences(self, paths: Iterable[str]) -> np.ndarray:  # int64, one for each path
        """Count how often each of some absolute, normalized paths is in the list.

        The first call takes three seconds and 8 MB for a million photographs; further ones look the paths up.
        """
        wanted = np.fromiter((hash(os.fsencode(path)) for path in paths), np.int64)
        if not len(wanted):  # as at the end of a run without a bad file
            return wanted
        return np.searchsorted(self._hashes, wanted, "right") - np.searchsorted(self._hashes, wanted, "left")

    @cached_property
    def _hashes(self) -> np.ndarray:
        """Hashes of the absolute, normalized paths in ascending order: int64 [N]."""
        root = os.path.join(os.fsencode(os.path.abspath(self._root)), b"")
        hashes = (hash(_normalize(root, self._line(i))) for i in range(len(self)))
        return np.sort(np.fromiter(hashes, np.int64, len(self)))

    def write(self, path: str | Path) -> None:
        """Write the paths, relative to the folder, as ``begun_with``.

        Raises:
            OSError: The file cannot be written.
        """
        write_whole(path, lambda file: file.writelines(self._chunks()))

    def digest(self) -> str:
        """Return a fingerprint of the paths and their order, relative to the folder, as a hexadecimal string."""
        digest = hashlib.blake2b(digest_size=16)
        for chunk in self._chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def _chunks(self) -> Iterator[bytes]:
        """Yield all lines, each with its end, in pieces of some megabytes."""
        for start in range(0, len(self._lines), _CHUNK):
            yield self._lines[start : start + _CHUNK]
        if self._lines[-1:] != b"\n":
            yield b"\n"


def _copy_list(file: BinaryIO, called: str) -> mmap.mmap:
    """Take a copy of a list: what is written into the file later does not matter, and a pipe can be read but once.

    Raises:
        UserError: It holds no path, or is no text.
    """
    with tempfile.TemporaryFile() as copy:
        first = file.readline()
        if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UserError(f"{called} is text in UTF-16; save it as UTF-8, one path per line")
        # Editors on Windows begin it with a mark.
        for line in itertools.chain([first.removeprefix(codecs.BOM_UTF8)], file):
            if b"\0" in line:
                raise UserError(f"{called} is not a text file; a list holds one path per line")
            if line.strip():
                copy.write(line)
        copy.flush()
        if not copy.tell():
            raise UserError(f"{called} is an empty file; a list holds one path per line")
        return mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ)


def _find_ends(lines: bytes | mmap.mmap) -> np.ndarray:
    """Find where each line ends, at its newline or at the end of the text: int64 [N]."""
    ends = [np.empty(0, np.int64)]
    for start in range(0, len(lines), _CHUNK):
        ends.append(np.flatnonzero(np.frombuffer(lines[start : start + _CHUNK], np.uint8) == ord("\n")) + start)
    if lines[-1:] not in (b"\n", b""):  # the last line, without an end
        ends.append(np.array([len(lines)]))
    return np.concatenate(ends)


def _normalize(root: bytes, line: bytes) -> bytes:
    """Return the absolute path of a line as ``os.path.abspath`` gives it, which takes ten times as long."""
    if os.name == "posix" and b"//" not in line and b"./" not in line and not line.endswith((b"/", b".")):
        return line if line.startswith(b"/") else root + line
    return os.path.abspath(os.path.join(root, line))


def write_list(path: str | Path, index: ImageIndex, leave_out: Container[str]) -> None:
    """Write the absolute paths of ``index`` but for those in ``leave_out`` as a list that ``ImageIndex.open`` reads.

    ``path`` may be the list that ``index`` was read from.

    Raises:
        OSError: The file cannot be written.
    """
    names = (name_of(index[i]) for i in range(len(index)))
    write_output(
        path, lambda file: file.writelines(os.fsencode(name) + b"\n" for name in names if name not in leave_out)
    )


def _scan(folder: Path, called: str, leave_out: str | Path | None) -> bytes:
    """List the paths below ``folder``, relative to it, sorted, each ended by a newline."""
    found = sorted(map(os.fsencode, walk_images(folder, called, leave_out)))
    broken = next((path for path in found if b"\n" in path), None)
    if broken:
        raise UserError(f"the name {os.fsdecode(broken)!r} in {called} holds a line break; rename the file")
    return b"".join(path + b"\n" for path in found)


def _as_begun(lines: bytes, begun_with: str | Path | None) -> bytes:
    """Take the list that a run began with in place of what its folder holds now, unless that is another folder."""
    if not begun_with or not Path(begun_with).exists():
        return lines
    begun = Path(begun_with).read_bytes()
    if begun == lines:
        return lines
    paths = begun.split(b"\n")[:-1]
    return begun if 2 * len(set(lines.split(b"\n")).intersection(paths)) >= len(paths) else lines
