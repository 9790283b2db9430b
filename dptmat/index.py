"""The photographs of a run: a folder or a list of paths, held in two arrays however many there are; and their check."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg

from dptmat.errors import UserError
from dptmat.files import write_whole
from dptmat.pipelines.probe import find_unreadable

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_CHUNK = 1 << 24  # bytes of a list that are searched for line ends at a time
_CHECKED_AT_ONCE = 256  # photographs that a thread checks before it reports


class ImageIndex:
    """Paths of photographs in a fixed order; ``index[i]`` is the i-th path and ``len(index)`` their number.

    The paths stay in one block of bytes, memory-mapped when they come from a list: then ten million of them take 80 MB
    and open as fast as the disk reads.

    Args:
        blob: uint8 [bytes], the paths, each ended by a newline.
        root: Folder that relative paths are relative to.
    """

    def __init__(self, blob, root):
        self._blob = blob
        self._ends = _line_ends(blob)  # int64 [images]
        self._root = Path(root)

    @classmethod
    def open(cls, data):
        """List the photographs of ``data``: a folder, searched with all its subfolders, or a text file of paths.

        A folder gives the files whose ending is in ``EXTENSIONS``, sorted by path. A text file holds one path per
        line; relative ones are relative to the file's folder.

        Raises:
            UserError: ``data`` does not exist, holds no photograph, or the list has an empty line.
        """
        data = Path(data)
        if data.is_dir():
            index = cls(_scan(data), data)
            if not len(index):
                raise UserError(
                    f"--data {data} holds no photograph (looked for {', '.join(EXTENSIONS)} in it and below); "
                    "point it at a folder of photographs or a text file of paths"
                )
            return index
        if not data.exists():
            raise UserError(f"--data {data} does not exist; point it at a folder of photographs")
        if data.suffix.lower() in EXTENSIONS:
            raise UserError(f"--data {data} is one photograph; point it at a folder of them or a text file of paths")
        if not data.stat().st_size:
            raise UserError(f"--data {data} is an empty file; a list holds one path per line")
        index = cls(_read_list(data), data.absolute().parent)
        empty = index._empty_lines()
        if len(empty):
            raise UserError(f"--data {data}: line {empty[0] + 1} is empty; a list holds one path per line")
        return index

    def __len__(self):
        return len(self._ends)

    def __getitem__(self, i):
        start = self._ends[i - 1] + 1 if i else 0
        return str(self._root / os.fsdecode(self._blob[start : self._ends[i]].tobytes().rstrip(b"\r")))

    def _empty_lines(self):
        lengths = np.diff(self._ends, prepend=-1) - 1
        return np.flatnonzero((lengths == 0) | ((lengths == 1) & (self._blob[self._ends - 1] == ord("\r"))))

    def digest(self):
        """Fingerprint of the paths and their order, relative to the folder, as a hexadecimal string."""
        return hashlib.blake2b(self._blob, digest_size=16).hexdigest()


def check_photographs(index):
    """Decode every photograph once on all cores, JPEG files strictly: damage that decoders pass over counts.

    libjpeg-turbo conceals most damage in the middle of a file; here its warnings are errors. Damage that happens to
    make valid codes shows in no decoder.

    Args:
        index: ``ImageIndex``.

    Yields:
        (number of photographs newly checked, list of (path, reason) of the bad ones among them).
    """
    starts = range(0, len(index), _CHECKED_AT_ONCE)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        yield from threads.map(lambda start: _check(index, start), starts)


def write_list(path, index, leave_out):
    """Write the paths of ``index`` but for those in ``leave_out`` as a list that ``ImageIndex.open`` reads.

    ``path`` may be the list that ``index`` was read from.
    """
    good = (photograph for photograph in map(index.__getitem__, range(len(index))) if photograph not in leave_out)
    write_whole(path, lambda file: file.writelines(os.fsencode(os.path.abspath(name)) + b"\n" for name in good))


def _check(index, start):
    """Check up to ``_CHECKED_AT_ONCE`` photographs: their number and (path, reason) of the bad ones, in order."""
    paths = [index[i] for i in range(start, min(start + _CHECKED_AT_ONCE, len(index)))]
    strict = {path: _jpeg_damage(path) for path in paths}
    others = dict(find_unreadable([path for path in paths if strict[path] is None], None))
    reasons = {path: others.get(path) if strict[path] is None else strict[path] for path in paths}
    return len(paths), [(path, reason) for path, reason in reasons.items() if reason]


def _jpeg_damage(path):
    """What is wrong with a JPEG file; "" for nothing, None if the file is no JPEG or cannot be read."""
    if not os.path.isfile(path):
        return None
    try:
        content = Path(path).read_bytes()
    except OSError:
        return None
    if not content.startswith(b"\xff\xd8"):
        return None
    try:
        simplejpeg.decode_jpeg(content)
    except ValueError as error:
        return str(error)
    return ""


def _scan(folder):
    """Paths below ``folder``, relative to it, sorted: uint8 [bytes]."""
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
        raise UserError(f"the name {os.fsdecode(broken)!r} in --data {folder} holds a line break; rename the file")
    found.sort()
    return np.frombuffer(b"".join(path + b"\n" for path in found), np.uint8)


def _raise(error):
    raise error


def _read_list(path):
    """Content of a list of paths, every line of which ends in a newline: uint8 [bytes]."""
    blob = np.memmap(path, np.uint8, mode="r")
    if (blob[:_CHUNK] == 0).any():
        raise UserError(f"--data {path} is not a text file; a list holds one path per line")
    if blob[-1] != ord("\n"):
        blob = np.append(blob, np.uint8(ord("\n")))
    return blob


def _line_ends(blob):
    """Positions of the newlines: int64 [lines]."""
    starts = range(0, len(blob), _CHUNK)
    ends = [np.flatnonzero(blob[start : start + _CHUNK] == ord("\n")) + start for start in starts]
    return np.concatenate(ends) if ends else np.zeros(0, np.int64)
