"""The members of a tar and where their bytes lie: ustar, GNU and pax, each with long names and sizes.

The standard library's tarfile is not used since it takes a damaged header for the end of the archive.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from dptmat.data.folders import is_litter
from dptmat.data.image_io import EXTENSIONS
from dptmat.data.stored_file import Found, StoredFile

_logger = logging.getLogger(__name__)

BLOCK = 512  # bytes, of which headers and content have a whole number
_LONGEST = 1 << 20  # bytes of a name or of pax records
_RECORD = re.compile(rb"([0-9]{1,7}) ([^=\n]{1,1000})=")
_REGULAR = (b"0", b"\0", b"7")
_EMPTY = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders: nothing follows the header
_GNU_NAME, _GNU_LINK, _GNU_SPARSE = b"L", b"K", b"S"
_PAX, _PAX_SOLARIS, _PAX_GLOBAL = b"x", b"X", b"g"
_BEFORE = (_GNU_NAME, _GNU_LINK, _PAX, _PAX_SOLARIS, _PAX_GLOBAL)  # say something of the member after them
_SPARSE = "GNU.sparse."  # begins the keys of pax records of sparse members


@dataclass
class _Told:
    """What the headers before a member's own say of it: pax records, and GNU's long name as the record path."""

    of_all: dict[str, bytes] = field(default_factory=dict)
    of_next: dict[str, bytes] = field(default_factory=dict)

    def get(self, key: str) -> bytes | None:
        return self.of_next.get(key, self.of_all.get(key))

    def is_sparse(self) -> bool:
        return self.get(_SPARSE) is not None


def is_tar(head: bytes) -> bool:
    """Tell whether a file is a tar by its first ``BLOCK`` bytes; one without members has nothing but zeros."""
    return head[257:262] == b"ustar" or _has_checksum(head)


def find_in_tar(file: StoredFile, others: Counter[str]) -> Iterator[Found]:
    """Yield the images of a tar by their endings, in order, and count what else it holds.

    Raises:
        UserError: It is damaged or was cut short.
        OSError: The store does not give it.
    """
    position, told = 0, _Told()
    while position < file.size:
        header = file.at(position, BLOCK, "a header")
        if not header.strip(b"\0"):
            _warn_of_more(file, position)
            return
        if not _has_checksum(header):
            raise file.damaged(position, "this is no header of a tar")
        kind, content = header[156:157], position + BLOCK
        length = 0 if kind in _EMPTY else _size(file, position, header[124:136])
        if kind in _BEFORE:
            _note(file, content, kind, length, told)
        else:
            if kind not in _EMPTY and (size := told.get("size")) is not None:
                length = _decimal(file, position, size)
            name = _name(header, told)
            if kind == _GNU_SPARSE:
                content = _skip_sparse(file, content, header)
            if content + length > file.size:
                raise file.damaged(content, f"{ascii(name[:200])} has {length} bytes, and {file.size - content} follow")
            if _is_image(name, kind, told, others):
                yield Found(name, content, length)
            told.of_next = {}
        position = content + -(-length // BLOCK) * BLOCK
    if told.of_next or position > file.size:
        raise file.damaged(file.size, "the last member is not whole")
    _logger.warning("%s has no mark at its end: it may have been cut short at byte %s", file.path, file.size)


def _is_image(name: str, kind: bytes, told: _Told, others: Counter[str]) -> bool:
    """Tell whether a member is an image to be read; if it is not, count it as what it is."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    if kind == b"5" or name.endswith("/") or not parts:  # a folder
        return False
    ending = os.path.splitext(parts[-1])[1].lower() or "no ending"
    if ending not in EXTENSIONS:
        others[ending] += 1
    elif any(map(is_litter, parts)):
        others["names that begin with a dot"] += 1
    elif kind in _EMPTY:
        others["links"] += 1
    elif kind not in _REGULAR or told.is_sparse():
        others["sparse files"] += 1
    else:
        return True
    return False


def _has_checksum(header: bytes) -> bool:
    """Tell whether a block is a header: the sum of its bytes, which some have taken for signed, stands in it."""
    told = _octal(header[148:156])
    if told is None or len(header) < BLOCK:
        return False
    summed = header[:148] + b" " * 8 + header[156:BLOCK]
    total = sum(summed)
    return told == total or told == total - 256 * sum(byte > 127 for byte in summed)


def _octal(digits: bytes) -> int | None:
    digits = digits.split(b"\0")[0].strip(b" ")
    return int(digits, 8) if re.fullmatch(rb"[0-7]+", digits) else None


def _size(file: StoredFile, position: int, digits: bytes) -> int:
    """Return the size in a header: octal digits, or a binary number beyond 8 GB."""
    if digits[0] & 0x80:
        return int.from_bytes(digits, "big") & ((1 << 95) - 1)
    size = _octal(digits) if digits.strip(b" \0") else 0
    if size is None:
        raise file.damaged(position, "the size in a header is no number")
    return size


def _decimal(file: StoredFile, position: int, digits: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,20}", digits):
        raise file.damaged(position, "the size of a member is no number")
    return int(digits)


def _name(header: bytes, told: _Told) -> str:
    name = told.get("path")
    if name is None:
        name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
        if header[257:263] == b"ustar\0" and prefix:  # GNU's own headers have times there
            name = prefix + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _note(file: StoredFile, content: int, kind: bytes, length: int, told: _Told) -> None:
    """Keep what a header says of the member after it, or of all."""
    if length > _LONGEST:
        raise file.damaged(content, f"the header of a member claims {length} bytes")
    text = file.at(content, length, "the name of a member")
    if kind == _GNU_NAME:
        told.of_next["path"] = text.split(b"\0")[0]
    elif kind != _GNU_LINK:
        records = told.of_all if kind == _PAX_GLOBAL else told.of_next
        for key, value in _pax_records(file, content, text):
            if key in ("path", "size", _SPARSE):
                records[key] = value


def _pax_records(file: StoredFile, content: int, text: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the records of a pax header, each "LENGTH KEY=VALUE" and a line's end, whose length counts all of it."""
    start, text = 0, text.rstrip(b"\0")
    while start < len(text):
        match = _RECORD.match(text, start)
        end = start + int(match[1]) if match else 0
        if not match or not match.end() < end <= len(text) or text[end - 1 : end] != b"\n":
            raise file.damaged(content + start, "this is no record of a pax header")
        key = match[2].decode("utf-8", "replace")
        yield _SPARSE if key.startswith(_SPARSE) else key, text[match.end() : end - 1]
        start = end


def _skip_sparse(file: StoredFile, content: int, header: bytes) -> int:
    """Return where the bytes of a sparse member begin: behind the rest of the list of its parts."""
    more = header[482]
    while more:
        more = file.at(content, BLOCK, "the parts of a sparse member")[504]
        content += BLOCK
    return content


def _warn_of_more(file: StoredFile, position: int) -> None:
    """Warn of what follows the mark at the end, as in tars joined by cat: tar itself does not read it either."""
    rest = file.at(position, min(file.size - position, 1 << 16))
    if rest.strip(b"\0") or file.size - position > 1 << 20:
        _logger.warning("%s ends as a tar at byte %s: what follows is left out", file.path, position)
