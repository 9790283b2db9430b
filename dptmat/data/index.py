"""The photographs of a run: a folder or a list of paths, of which little is held in memory."""

import hashlib
import os
from pathlib import Path

import numpy as np

from dptmat.data.image_io import EXTENSIONS
from dptmat.errors import UserError
from dptmat.files import write_whole

_CHUNK = 1 << 22  # bytes of a list that are searched for line ends at a time
_EVERY = 256  # lines between two whose position is kept


class ImageIndex:
    """Paths of photographs in a fixed order; ``index[i]`` is the i-th path and ``len(index)`` their number.

    The paths of a list stay in the file, and are read when they are asked for: ten million of them take two
    megabytes. Those of a folder are kept as one block of bytes.

    Args:
        lines: The paths, each ended by a newline but for the last one: bytes, or anything with their length and slices.
        root: Folder that relative paths are relative to.
    """

    def __init__(self, lines, root):
        self._lines, self._root = lines, Path(root)
        self._starts, self._count, self._shortest = _find_lines(lines)

    @classmethod
    def open(cls, data, option="--data", begun_with=None):
        """List the photographs of ``data``: a folder, searched with all its subfolders, or a text file of paths.

        A folder gives the files whose ending is in ``EXTENSIONS``, sorted by path. A text file holds one path per
        line; relative ones are relative to the file's folder. Messages call ``data`` by the name of ``option``.

        Where ``begun_with``, the list that a run has written, exists, a folder that still holds at least half of it
        gives what is in there: files that have gone since then are found to be bad, and the others keep their numbers.

        Raises:
            UserError: ``data`` does not exist, holds no photograph, or the list has an empty line.
        """
        data = Path(data)
        if data.is_dir():
            index = cls(_as_begun(_scan(data, option), begun_with), data)
            if not len(index):
                raise UserError(
                    f"{option} {data} holds no photograph (looked for {', '.join(EXTENSIONS)} in it and below); "
                    "point it at a folder of photographs or a text file of paths"
                )
            return index
        if not data.exists():
            raise UserError(f"{option} {data} does not exist; point it at a folder of photographs")
        if data.suffix.lower() in EXTENSIONS:
            raise UserError(f"{option} {data} is one photograph; point it at a folder of them or a text file of paths")
        if not data.stat().st_size:
            raise UserError(f"{option} {data} is an empty file; a list holds one path per line")
        lines = _File(data)
        if b"\0" in lines[:_CHUNK]:
            raise UserError(f"{option} {data} is not a text file; a list holds one path per line")
        index = cls(lines, data.absolute().parent)
        empty = next((number for number in index._shortest if not index._line(number)), None)
        if empty is not None:
            raise UserError(f"{option} {data}: line {empty + 1} is empty; a list holds one path per line")
        return index

    def __len__(self):
        return self._count

    def __getitem__(self, i):
        if not 0 <= i < self._count:
            raise IndexError(f"there is no photograph {i} among {self._count}")
        return str(self._root / os.fsdecode(self._line(i)))

    def _line(self, i):
        """A line without its end: bytes."""
        block, line = divmod(i, _EVERY)
        start, end = self._starts[block : block + 2]
        return self._lines[start:end].split(b"\n", line + 1)[line].rstrip(b"\r")

    def write(self, path):
        """Write the paths, relative to the folder, as ``begun_with``."""
        write_whole(path, lambda file: file.writelines(self._chunks()))

    def digest(self):
        """Fingerprint of the paths and their order, relative to the folder, as a hexadecimal string."""
        digest = hashlib.blake2b(digest_size=16)
        for chunk in self._chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def _chunks(self):
        """All lines, each with its end, in pieces of some megabytes."""
        for start in range(0, len(self._lines), _CHUNK):
            yield self._lines[start : start + _CHUNK]
        if self._lines[-1:] != b"\n":
            yield b"\n"


class _File:
    """Content of a file that is open, read piece by piece; what replaces the file does not matter."""

    def __init__(self, path):
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - for as long as this lives
        self._size = os.fstat(self._file.fileno()).st_size

    def __len__(self):
        return self._size

    def __getitem__(self, part):
        start, end, _ = part.indices(self._size)
        return os.pread(self._file.fileno(), end - start, start)  # from any thread


def write_list(path, index, leave_out):
    """Write the paths of ``index`` but for those in ``leave_out`` as a list that ``ImageIndex.open`` reads.

    ``path`` may be the list that ``index`` was read from.
    """
    good = (photograph for photograph in map(index.__getitem__, range(len(index))) if photograph not in leave_out)
    write_whole(path, lambda file: file.writelines(os.fsencode(os.path.abspath(name)) + b"\n" for name in good))


def _scan(folder, option):
    """Paths below ``folder``, relative to it, sorted, each ended by a newline: bytes."""
    found, seen = [], set()
    for here, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        folders.sort()  # where two links lead to one folder, the first counts on every machine
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in seen:  # a symbolic link that leads back up
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        prefix = os.path.relpath(here, folder)
        prefix = "" if prefix == "." else prefix + os.sep
        found += [os.fsencode(prefix + name) for name in names if name.lower().endswith(EXTENSIONS)]
    broken = next((path for path in found if b"\n" in path), None)
    if broken:
        raise UserError(f"the name {os.fsdecode(broken)!r} in {option} {folder} holds a line break; rename the file")
    found.sort()
    return b"".join(path + b"\n" for path in found)


def _as_begun(lines, begun_with):
    """The list that a run began with in place of what its folder holds now, unless that is another folder."""
    if not begun_with or not Path(begun_with).exists():
        return lines
    begun = Path(begun_with).read_bytes()
    if begun == lines:
        return lines
    paths = begun.split(b"\n")[:-1]
    return begun if 2 * len(set(lines.split(b"\n")).intersection(paths)) >= len(paths) else lines


def _raise(error):
    raise error


def _find_lines(lines):
    """Where the lines of a text are.

    Returns:
        Positions at which every ``_EVERY``-th line starts, and of the end: list; number of lines; and numbers of those
        that are a byte long or empty.
    """
    starts, count, short, last = [0], 0, [], -1
    for begin in range(0, len(lines), _CHUNK):
        ends = np.flatnonzero(np.frombuffer(lines[begin : begin + _CHUNK], np.uint8) == ord("\n")) + begin
        starts += (ends[_EVERY - 1 - count % _EVERY :: _EVERY] + 1).tolist()
        short += (count + np.flatnonzero(np.diff(ends, prepend=last) <= 2)).tolist()
        count, last = count + len(ends), ends[-1] if len(ends) else last
    if last + 1 < len(lines):  # the last line, without an end
        count += 1
    if starts[-1] < len(lines):
        starts.append(len(lines))
    return starts, count, short
