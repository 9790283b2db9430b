"""Object stores: S3 and what speaks it, Google, Azure, and web servers. The only file that imports obstore."""

import os
import tempfile
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cache
from typing import Any, BinaryIO

import obstore
from obstore.exceptions import BaseError, UnknownConfigurationKeyError
from obstore.store import AzureStore, GCSStore, S3Store, from_url

from dptmat.data.range_reads import Readers, join_spans
from dptmat.data.storage import Span, cut_short
from dptmat.data.store_address import Address
from dptmat.data.store_answers import explain_listing, is_beyond_end, os_error
from dptmat.errors import StoreAwayError

_PART = 32 << 20  # bytes of a part of an upload: S3 takes 10,000 of them, and has a price for each

_RETRIES = {
    "max_retries": 12,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=3), "base": 2},
}
# A reader waits 10 s for the next bytes, and retries for 20: a store that stays away is known after 30 s. A writer has
# no such limit, which would count the time that sending takes.
_WRITER: dict[str, Any] = {"allow_http": True, "connect_timeout": "5s", "timeout": "300s"}
_READER = {**_WRITER, "read_timeout": "10s"}

# For the question whether a store answers, which is to be settled within 5 s.
_ASKED = {**_WRITER, "connect_timeout": "1500ms", "timeout": "4s"}
_ASKED_AGAIN = {**_RETRIES, "max_retries": 3, "retry_timeout": timedelta(seconds=2)}

ERRORS = (BaseError, FileNotFoundError, ValueError)  # what obstore raises

_first_process: int | None = None  # that has used obstore


class ObjectStore:
    """A bucket or container, below a prefix.

    Args:
        address: The URL, taken apart.
        options: What `obstore.store.from_url` is given beside it, such as the region.
    """

    remote = True

    def __init__(self, address: Address, options: dict[str, Any] | None = None) -> None:
        self.url = str(address)
        self._address, self._options = address, options or {}
        self._clients: dict[str, Any] = {}

    def __reduce__(self) -> tuple[type, tuple[Address, dict[str, Any]]]:
        return ObjectStore, (self._address, self._options)

    def __repr__(self) -> str:
        return f"ObjectStore({self.url!r})"

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if length is None:
            return self._do(name, lambda: self._read_to_end(name, offset))
        content = self._do(name, lambda: bytes(self._fetch(name, offset, length)))
        if len(content) < length:
            raise cut_short(self._file(name), offset, length, len(content))
        return content

    def read_many(self, spans: Sequence[Span]) -> list[bytes | OSError]:
        found: list[bytes | OSError] = [b""] * len(spans)
        jobs = [lambda block=block: self._read_block(spans, block) for block in join_spans(spans)]
        for pieces in _readers(os.getpid()).run(jobs):
            for i, piece in pieces:
                found[i] = piece
        return found

    def size(self, name: str) -> int:
        return self._do(name, lambda: obstore.head(self._client("read"), name)["size"])

    def names(self) -> Iterator[tuple[str, int]]:
        try:
            found = self._do("", self._list)
        except OSError as error:
            raise explain_listing(error, self._address) from None
        found.sort(key=lambda pair: pair[0].encode())
        for name, size in found:
            # Consoles make objects without content for folders.
            if size or (name and not _is_folder(name, found)):
                yield name, size

    def write(self, name: str, write: Callable[[BinaryIO], object], *, replace: bool = True) -> None:
        with tempfile.TemporaryFile() as spool:
            write(spool)
            spool.seek(0)
            how: dict[str, Any] = {"mode": "overwrite" if replace else "create", "chunk_size": _PART}
            self._do(name, lambda: obstore.put(self._client("write"), name, spool, max_concurrency=4, **how))

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError):  # S3 does not say, others do
            self._do(name, lambda: obstore.delete(self._client("write"), name))

    def _file(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _do(self, name: str, job: Callable[[], Any]) -> Any:
        """Do what asks obstore. The main thread has another one do it, so that it can be interrupted meanwhile."""

        def do() -> Any:
            try:
                return job()
            except ERRORS as error:
                raise os_error(error, self._file(name)) from None

        return _readers(os.getpid()).run_one(do) if threading.current_thread() is threading.main_thread() else do()

    def _list(self) -> list[tuple[str, int]]:
        pages = obstore.list(self._client("read"), chunk_size=1000)
        return [(entry["path"], entry["size"]) for page in pages for entry in page]

    def _client(self, purpose: str) -> Any:
        """Return obstore's store: made where it is first used, after it has come to another process by pickle."""
        note_process(self.url)
        if purpose not in self._clients:
            limits = _READER if purpose == "read" else _WRITER
            self._clients[purpose] = _make_client(self._address, self._options, limits, _RETRIES)
        return self._clients[purpose]

    def _fetch(self, name: str, offset: int, length: int) -> Any:
        """Return bytes of a file, fewer where it ends."""
        try:
            return obstore.get_range(self._client("read"), name, start=offset, length=length) if length else b""
        except BaseError as error:
            if is_beyond_end(error):
                return b""
            raise

    def _read_to_end(self, name: str, offset: int) -> bytes:
        try:
            got = obstore.get(self._client("read"), name, options={"range": {"offset": offset}} if offset else None)
            content = bytes(got.bytes())
        except BaseError as error:
            if is_beyond_end(error):
                return b""
            raise
        if len(content) < got.meta["size"] - offset:
            raise cut_short(self._file(name), offset, got.meta["size"] - offset, len(content))
        return content

    def _read_block(self, spans: Sequence[Span], block: list[int]) -> list[tuple[int, bytes | OSError]]:
        """Read spans by one request. Each is copied, so that one that is kept does not keep the whole block."""
        name, start = spans[block[0]].name, spans[block[0]].offset
        end = max(spans[i].offset + spans[i].length for i in block)
        try:
            content = memoryview(self._do(name, lambda: self._fetch(name, start, end - start)))
        except StoreAwayError:
            raise
        except OSError as error:
            return [(i, error) for i in block]
        pieces: list[tuple[int, bytes | OSError]] = []
        for i in block:
            _, offset, length = spans[i]
            piece = bytes(content[offset - start : offset - start + length])
            short = cut_short(self._file(name), offset, length, len(piece))
            pieces.append((i, piece if len(piece) == length else short))
        return pieces


def _is_folder(name: str, found: list[tuple[str, int]]) -> bool:
    """Tell whether there are files below a name, among all that are sorted by their names as bytes."""
    i = bisect_left(found, f"{name}/".encode(), key=lambda pair: pair[0].encode())
    return i < len(found) and found[i][0].startswith(f"{name}/")


def note_process(url: str) -> None:
    """Note that this process uses obstore.

    Raises:
        RuntimeError: It was forked from one that has: obstore's threads have stayed behind, and it would wait for them.
    """
    global _first_process
    if _first_process not in (None, os.getpid()):
        raise RuntimeError(
            f"{url} cannot be read in a process that was forked from one that has used an object store; "
            'start worker processes by "spawn" or "forkserver"'
        )
    _first_process = os.getpid()


@cache
def _readers(process: int) -> Readers:
    """Return the threads of this process; made where they are first needed, also after a fork."""
    return Readers()


def _make_client(address: Address, options: dict[str, Any], limits: dict[str, Any], retries: dict[str, Any]) -> Any:
    """Return obstore's store, with the credentials of the environment or, by boto3, of a profile."""
    open_url: Any = from_url  # of which there is a type for each provider
    more: dict[str, Any] = {"config": {"region": options["region"]}} if options.get("region") else {}
    if options.get("profile"):
        more["credential_provider"] = profile_credentials()
    return open_url(address.encoded, client_options=limits, retry_config=retries, **more)


def profile_credentials() -> Any:
    """Return what asks boto3 for the credentials of the profile that the environment names."""
    from obstore.auth.boto3 import Boto3CredentialProvider

    return Boto3CredentialProvider()


def ask(address: Address, options: dict[str, Any]) -> bool:
    """Ask a store whether it is there, and return whether the address is that of one file.

    Raises:
        Exception: What obstore raises, one of ``ERRORS``; FileNotFoundError where there is nothing yet, too.
        RuntimeError: As `note_process` does.
    """
    note_process(str(address))
    client = _make_client(address, options, _ASKED, _ASKED_AGAIN)
    if address.provider and next(iter(obstore.list(client, chunk_size=1)), None):
        return False
    obstore.head(client, "")
    return bool(address.provider and address.prefix)


def is_read(provider: str, variable: str) -> bool:
    """Tell whether obstore reads a variable of the environment for a provider's stores."""
    stores: dict[str, Any] = {"AWS": S3Store, "GOOGLE": GCSStore, "AZURE": AzureStore}
    try:
        stores[provider]("bucket", config={variable.lower(): ""})
    except UnknownConfigurationKeyError:
        return False
    except ERRORS:  # it is read, and its value is not one
        pass
    return True
