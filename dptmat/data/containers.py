"""Files that hold many images: tar, Parquet and TFRecord, and where the bytes of each image lie in them.

What a file is, its first bytes decide. They are found in one pass, in the order of the file, so that images can be
read from it by ranges ever after.
"""

import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterator

from dptmat.data.parquet import MAGIC, find_in_parquet, read_from_parquet
from dptmat.data.storage import Store
from dptmat.data.stored_file import Found, StoredFile
from dptmat.data.tar import BLOCK, find_in_tar, is_tar
from dptmat.data.tfrecord import find_in_tfrecord, is_tfrecord
from dptmat.errors import UserError, few
from dptmat.file_kinds import HEAD, name_kind

_logger = logging.getLogger(__name__)

CONTAINERS = (".tar", ".parquet", ".tfrecord", ".tfrecords", ".tfrec")  # endings; in them lower case
_FIND = {"tar": find_in_tar, "Parquet": find_in_parquet, "TFRecord": find_in_tfrecord}
_PACKED = ("a gzip archive", "a bzip2 archive", "an xz archive", "a Zstandard archive", "an LZ4 archive")
_EMPTY_TAR = 1 << 16  # bytes of zeros that tar may write for an archive without members


def is_container(name: str) -> bool:
    """Tell whether a file may hold many images by its name, such as a.tar or train-00000-of-01024."""
    return name.lower().endswith(CONTAINERS) or re.search(r"-[0-9]{5}-of-[0-9]{5}$", name) is not None


def find_images(store: Store, name: str, others: Counter[str] | None = None) -> Iterator[Found]:
    """Yield where the images in a tar, a Parquet file or a TFRecord file lie, in the order of the file.

    Args:
        store: The store that the file lies in; each byte is asked for once, of a local tar the headers alone.
        name: The file's name in it.
        others: Counts what the file holds but for images, by what it is; None to log it.

    Raises:
        UserError: It is another file, it is damaged, or its images cannot be read by ranges.
        OSError: The store does not give it.
    """
    file, counted = StoredFile(store, name), Counter[str]() if others is None else others
    kind = _kind(file)
    if kind:
        yield from _FIND[kind](file, counted)
    if others is None:
        _tell(file, counted)


def read_images(store: Store, name: str, others: Counter[str] | None = None) -> Iterator[tuple[str, bytes]]:
    """Yield keys and contents of the images that `find_images` finds, and of a compressed Parquet file, too.

    Raises:
        UserError: It is another file, or it is damaged.
        OSError: The store does not give it.
    """
    file, counted = StoredFile(store, name), Counter[str]() if others is None else others
    kind = _kind(file)
    if kind == "Parquet":
        yield from read_from_parquet(file, counted)
    elif kind:
        for key, offset, length in _FIND[kind](file, counted):
            yield key, file.at(offset, length)
    if others is None:
        _tell(file, counted)


def _tell(file: StoredFile, others: Counter[str]) -> None:
    if others:
        told = few([f"{what} ({count})" for what, count in others.most_common()])
        _logger.info("%s: left out beside its images: %s", file.path, told)


def _kind(file: StoredFile) -> str:
    """Name the kind of a file by its first bytes; "" for a tar without members, which is zeros.

    Raises:
        UserError: It is of none of the kinds.
    """
    head = file.at(0, min(file.size, HEAD))
    if is_tar(head):
        return "tar"
    if head[:4] == MAGIC:
        return "Parquet"
    if is_tfrecord(head):
        return "TFRecord"
    if head and file.size <= _EMPTY_TAR and file.size % BLOCK == 0 and not file.at(0, file.size).strip(b"\0"):
        return ""
    kind = name_kind(head) or "of another kind"
    if kind in _PACKED:
        kind += _inside(file.path, head)
        raise UserError(f"{file.path} is {kind}, of which no part can be read by itself; unpack it")
    raise UserError(f"{file.path} is {kind}; expected a tar, a Parquet file or a TFRecord file")


def _inside(path: str, head: bytes) -> str:
    """Name in words that follow its kind what an archive holds, by what its first bytes give, or else by its name."""
    try:
        inside = zlib.decompressobj(31).decompress(head, BLOCK)  # gzip alone: the others begin in other ways
    except zlib.error:
        inside = b""
    if is_tfrecord(inside):
        return " that holds a TFRecord file"
    return " that holds a tar" if is_tar(inside) or re.search(r"\.(tar\.\w+|t[gbx]z2?)$", path.lower()) else ""
