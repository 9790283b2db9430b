"""Where photographs and shards lie: a folder, or a bucket of an object store with a prefix, read by byte ranges."""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from dptmat.data.local_files import Descriptor, walk_files, write_new
from dptmat.errors import UserError
from dptmat.files import write_whole

SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "https", "http")
_KEPT_OPEN = 128  # descriptors of a local store; a process may often have 1,024
_ADVISED = 64  # spans that the system is asked for together, so that a disk reads while earlier ones are taken


class Span(NamedTuple):
    """A byte range of a file in a store."""

    name: str  # of the file, relative to its store, "/" between folders
    offset: int
    length: int


class Store(Protocol):
    """A folder or a bucket with a prefix. It can be pickled, and read by many threads at once."""

    url: str  # absolute path, or URL without credentials and without a slash at its end
    remote: bool

    def __hash__(self) -> int: ...

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return exactly ``length`` bytes of a file, or all from ``offset`` on.

        Raises:
            FileNotFoundError: There is no such file.
            PermissionError: It may not be read.
            StoreAwayError: The store is away.
            OSError: It cannot be read, or "was cut short": it ends before.
        """

    def read_many(self, spans: Sequence[Span]) -> list[bytes | OSError]:
        """Return for each span its bytes or, in their place, what `read` would have raised.

        Raises:
            StoreAwayError: The store is away.
        """

    def size(self, name: str) -> int:
        """Return the bytes of a file. Raises as `read` does."""

    def names(self) -> Iterator[tuple[str, int]]:
        """Yield all files below, sorted by name as bytes: (relative name, bytes). There are none where none is made.

        Raises:
            UserError: The store lists no files.
            OSError: It cannot be listed.
        """

    def write(self, name: str, write: Callable[[BinaryIO], object], *, replace: bool = True) -> None:
        """Make a file of what ``write(file)`` writes, all or nothing; folders are made.

        Raises:
            FileExistsError: It is there, and ``replace`` is false.
            OSError: It cannot be written.
        """

    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is no error."""


def is_url(text: str) -> bool:
    """Tell whether a user means an address and not a path: s3://bucket, also of a scheme that is not known."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def open_store(url: str | Path, parameter: str = "data") -> Store:
    """Open a folder, which need not exist yet, or what a URL stands for, which is asked once whether it answers.

    Args:
        url: Path of a folder, or URL: s3://bucket/prefix, gs://, az://, abfs://, https://. Credentials come from the
            environment, as each provider's own tools read them.
        parameter: How messages call it.

    Raises:
        UserError: It is a file, the scheme is not known, the URL holds credentials, the extra ``remote`` is not
            installed, or the store refuses or does not answer within 5 seconds.
    """
    text = str(url)
    if is_url(text):
        scheme = text.partition("://")[0].lower()
        if scheme not in SCHEMES:
            raise UserError(
                f"`{parameter}` has an address of a kind that is not known, {scheme}://; "
                f"give a path, or one of {', '.join(f'{known}://' for known in SCHEMES)}"
            )
        try:
            from dptmat.data import store_opening
        except ModuleNotFoundError as error:
            if error.name != "obstore":
                raise
            raise UserError(
                f"`{parameter}` is a {scheme}:// address, which needs the package obstore; "
                "install it: pip install 'dptmat[remote]'"
            ) from None
        return store_opening.connect(text, parameter)
    if not text:
        raise UserError(f"`{parameter}` is empty; give the path of a folder, or an address such as s3://bucket/folder")
    if match := re.match(rf"({'|'.join(SCHEMES)}):/", text):
        raise UserError(f"`{parameter}` begins with {match[0]}; an address is text with two slashes, and no Path")
    if os.path.lexists(text) and not os.path.isdir(text):
        raise UserError(f"`{parameter}` {text} is no folder; point it at the folder that holds the files")
    return LocalStore(text)


class LocalStore:
    """A folder. Files that were read last stay open: one that is replaced is read as it was, and not half and half.

    Args:
        root: The folder; made where the first file is written.
    """

    remote = False

    def __init__(self, root: str | Path) -> None:
        self.url = os.path.abspath(root)
        self._open = lru_cache(maxsize=_KEPT_OPEN)(Descriptor)  # by path; safe with threads

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return LocalStore, (self.url,)

    def __repr__(self) -> str:
        return f"LocalStore({self.url!r})"

    def close(self) -> None:
        """Close all files; a later read opens them again."""
        self._open.cache_clear()

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        path = self._path(name)
        try:
            try:
                return self._read(path, offset, length)
            except OSError as error:
                if error.errno != errno.ESTALE:  # a network file system: the file was replaced
                    raise
                self.close()
                return self._read(path, offset, length)
        except OSError as error:
            if error.filename is None and error.errno is not None:
                raise OSError(error.errno, error.strerror, path) from None
            raise

    def _read(self, path: str, offset: int, length: int | None) -> bytes:
        file = self._open(path)
        if length is None:
            length = max(0, os.fstat(file.number).st_size - offset)
        content = file.read(offset, length)
        if len(content) < length:
            raise cut_short(path, offset, length, len(content))
        return content

    def read_many(self, spans: Sequence[Span]) -> list[bytes | OSError]:
        found: list[bytes | OSError] = []
        for start in range(0, len(spans), _ADVISED):
            group = spans[start : start + _ADVISED]
            held = [self._advise(span) for span in group]
            for span in group:
                try:
                    found.append(self.read(*span))
                except OSError as error:
                    found.append(error)
            del held
        return found

    def _advise(self, span: Span) -> Descriptor | None:
        try:
            file = self._open(self._path(span.name))
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.number, span.offset, span.length, os.POSIX_FADV_WILLNEED)
        except OSError:  # said where it is read
            return None
        return file

    def size(self, name: str) -> int:
        path = self._path(name)
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return status.st_size

    def names(self) -> Iterator[tuple[str, int]]:
        yield from walk_files(self.url)

    def write(self, name: str, write: Callable[[BinaryIO], object], *, replace: bool = True) -> None:
        path = self._path(name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except FileExistsError as error:  # which would say that the file itself is there
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None
        if replace:
            write_whole(path, write)
        else:
            write_new(path, write)
        self.close()  # what was open by this name is another file now

    def delete(self, name: str) -> None:
        Path(self._path(name)).unlink(missing_ok=True)
        self.close()

    def _path(self, name: str) -> str:
        return os.path.join(self.url, name)


def cut_short(file: str, offset: int, length: int, came: int) -> OSError:
    """Return the error of a range that goes beyond the end of its file."""
    return OSError(f"{file} was cut short: of {length} bytes from byte {offset} on only {came} are there")
