"""The images in a column of a Parquet file, and where the bytes of each lie, by pyarrow (the extra ``parquet``).

In pages of the encoding PLAIN a value is its length, four bytes with the lowest first, and its bytes. So each value
that pyarrow has decoded is looked for, after the one before it, and its bytes are compared: no wrong range is given.
"""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dptmat.data.image_io import READABLE
from dptmat.data.storage import Store
from dptmat.data.stored_file import Found, StoredFile
from dptmat.errors import UserError, few, first_line
from dptmat.file_kinds import HEAD, name_kind

MAGIC = b"PAR1"
_PYARROW = 19  # the oldest version that reads all layouts page by page
_NAMES = ("image", "img", "photo", "picture", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "content", "data")
_PLAIN = {"PLAIN", "RLE", "BIT_PACKED"}  # the latter two are of the levels that say which values are null
_ROWS = 16  # decoded at once
_STREAM = 1 << 20  # bytes that pyarrow reads ahead of a page
_APART = 256 << 10  # bytes of a read, such as of the footer or a short column, that is not worth a whole block
_SIMILAR = 1000  # places that begin as a value does, after which it is no longer looked for
_MOST = 1 << 30  # bytes of what the footer may claim


def find_in_parquet(file: StoredFile, others: Counter[str]) -> Iterator[Found]:
    """Yield where the images of the column of images lie, row by row, and count the rows without one.

    The key is the path beside the bytes, as Hugging Face's data sets have it, or else the number of the row.

    Raises:
        UserError: The file is damaged, no column or no single one holds images, or they do not lie there as they are.
        OSError: The store does not give it.
    """
    with _reading(file) as parquet:
        column = _image_column(file, parquet.schema_arrow)
        spans = [_plain_chunk(file, parquet.metadata, group, column) for group in range(parquet.num_row_groups)]
        group = place = end = -1
        for number, key, content in _images(parquet, column, others, file):
            if number != group:
                group, (place, end) = number, spans[number]
            place = _locate(file, content, place, end)
            yield Found(key, place, len(content))
            place += len(content)


def read_from_parquet(file: StoredFile, others: Counter[str]) -> Iterator[tuple[str, bytes]]:
    """Yield keys and contents of the images as `find_in_parquet` does, however they are compressed.

    Raises:
        UserError: The file is damaged, or no column or no single one holds images.
        OSError: The store does not give it.
    """
    with _reading(file) as parquet:
        for _, key, content in _images(parquet, _image_column(file, parquet.schema_arrow), others, file):
            yield key, content


class CompressedError(UserError):
    """The images of a file are compressed together, so that none can be read by itself.

    Attributes:
        files: All files that were to be read, in their store: their rows can be read in order.
    """

    files: "tuple[Store, Sequence[str]] | None" = None


def count_rows(file: StoredFile) -> list[int]:
    """Return the rows of each row group.

    Raises:
        UserError: The file is damaged.
        OSError: The store does not give it.
    """
    with _reading(file) as parquet:
        return [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]


def read_row_group(file: StoredFile, group: int) -> list[bytes]:
    """Return the images of a row group, however they are compressed; b"" for a row without one.

    Raises:
        UserError: The file is damaged, or no column or no single one holds images.
        OSError: The store does not give it.
    """
    with _reading(file) as parquet:
        column = _image_column(file, parquet.schema_arrow)
        batches = parquet.iter_batches(_ROWS, row_groups=[group], columns=[column], use_threads=False)
        values = [value for batch in batches for value in batch.column(0).to_pylist()]
        return [(value.get("bytes") if isinstance(value, dict) else value) or b"" for value in values]


class _AsFile(io.RawIOBase):
    """What pyarrow reads from."""

    def __init__(self, file: StoredFile) -> None:
        self._file, self._position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._file.size)[whence]
        return self._position

    def read(self, length: int = -1) -> bytes:
        rest = max(self._file.size - self._position, 0)
        length = rest if length < 0 else min(length, rest)
        content = (self._file.alone if length < _APART else self._file.at)(self._position, length)
        self._position += length
        return content


@contextmanager
def _reading(file: StoredFile) -> Iterator[Any]:
    """Open a file by pyarrow, and tell in a line what it finds wrong with it."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{file.path} is a Parquet file, which pyarrow reads: pip install 'dptmat[parquet]'") from error
    if int(pyarrow.__version__.partition(".")[0]) < _PYARROW:
        told = f"pyarrow {pyarrow.__version__} is too old to read {file.path} page by page"
        raise UserError(f"{told}: pip install --upgrade 'dptmat[parquet]'")
    if file.alone(max(file.size - 4, 0), min(file.size, 4)) != MAGIC:
        raise file.damaged(file.size, "a Parquet file ends with PAR1")
    try:
        yield parquet.ParquetFile(
            _AsFile(file), buffer_size=_STREAM, pre_buffer=False,
            thrift_string_size_limit=_MOST, thrift_container_size_limit=_MOST // 64,
        )  # fmt: skip
    except UserError:
        raise
    except (pyarrow.ArrowException, OSError, MemoryError, ValueError, UnicodeError) as error:
        if file.error:
            raise file.error from None
        reason = first_line(error)
        raise UserError(f"{file.path} cannot be read as a Parquet file: {reason}; fetch or write it again") from error


def _image_column(file: StoredFile, schema: Any) -> str:
    """Return the path of the column of images in a schema: of bytes, or of a struct of bytes and a path.

    Of several it is the one whose name stands first among the usual ones.
    """
    from pyarrow import types

    def is_binary(kind: Any) -> bool:
        return types.is_binary(kind) or types.is_large_binary(kind)

    columns = {}
    for entry in schema:
        if is_binary(entry.type):
            columns[entry.name] = entry.name
        elif types.is_struct(entry.type) and any(part.name == "bytes" and is_binary(part.type) for part in entry.type):
            columns[entry.name] = f"{entry.name}.bytes"
    if not columns:
        told = few([f"{entry.name} {entry.type}" for entry in schema])
        raise UserError(f"{file.path} has no column of encoded images: {told}; expected one of bytes named image")
    usual = [name for name in columns if name.lower() in _NAMES]
    if len(usual or columns) > 1 and "image" not in usual:
        told = ", ".join(usual or columns)[:500]
        raise UserError(f"{file.path} has several columns of bytes: {told}; name that of the images image")
    return columns["image" if "image" in usual else (usual or [*columns])[0]]


def _plain_chunk(file: StoredFile, metadata: Any, group: int, column: str) -> tuple[int, int]:
    """Return where the values of a column of a row group start and end, if they lie there as they are."""
    row_group = metadata.row_group(group)
    chunks = [row_group.column(k) for k in range(row_group.num_columns)]
    chunk = next((chunk for chunk in chunks if chunk.path_in_schema == column), None)
    if chunk is None or chunk.file_path:
        raise UserError(f"{file.path}: its column {column} is not in row group {group}; write it again")
    how = ""
    if chunk.compression != "UNCOMPRESSED":
        how = f"compressed by {chunk.compression}"
    elif chunk.has_dictionary_page or not set(chunk.encodings) <= _PLAIN or "PLAIN" not in chunk.encodings:
        how = f"encoded as {', '.join(chunk.encodings)}"
    if how and chunk.num_values:
        remedy = "copy them into shards first: dptmat pack --no-reencode"
        raise CompressedError(f"{file.path}: its images, the column {column}, are {how}, not plain bytes; {remedy}")
    start = chunk.data_page_offset
    return start, min(start + chunk.total_compressed_size, file.size)


def _images(parquet: Any, column: str, others: Counter[str], file: StoredFile) -> Iterator[tuple[int, str, bytes]]:
    """Yield number of the row group, key and content of each image of a column; count what is none."""
    name = column.removesuffix(".bytes") if column not in parquet.schema_arrow.names else column
    columns = [column] if name == column else [column, f"{name}.path"]
    row, found, kind = 0, 0, ""
    for group in range(parquet.num_row_groups):
        batches = parquet.iter_batches(_ROWS, row_groups=[group], columns=columns, use_threads=False)
        for value in (value for batch in batches for value in batch.column(0).to_pylist()):
            value = value if isinstance(value, dict) else {"bytes": value}
            content, path = value.get("bytes"), value.get("path")
            if content is None:
                others["rows without bytes"] += 1
            elif (kind := name_kind(content[:HEAD])) not in READABLE:
                others[kind or "of no known kind"] += 1
            else:
                found += 1
                yield group, path if isinstance(path, str) and path else str(row), content
            row += 1
    if row and not found:
        told = f"the last value is {kind}" if kind else "none begins as one does"
        raise UserError(f"{file.path}: its column {column} holds no encoded image: {told}")


def _locate(file: StoredFile, content: bytes, start: int, end: int) -> int:
    """Return where the bytes of a value lie, the first place after that of the value before it."""
    head = len(content).to_bytes(4, "little") + content[:64]
    if start + 4 + len(content) <= end and file.at(start, 4 + len(content)) == head[:4] + content:  # within one page
        return start + 4
    for count, place in enumerate(file.find(head, start, end)):
        if place + 4 + len(content) <= end and file.at(place + 4, len(content)) == content:
            return place + 4
        if count == _SIMILAR:
            break
    raise file.damaged(start, "the bytes of an image are not found where its column lies")
