"""The records of a TFRecord file and where the images in them lie, without TensorFlow.

A record is a length of 8 bytes, its checksum of 4, the content, and its checksum. The content is a tf.train.Example: in
the wire format of protocol buffers a map from names of features to lists of bytes, integers or floats.
"""

from collections import Counter
from collections.abc import Iterator

from dptmat.data.image_io import READABLE
from dptmat.data.stored_file import Found, StoredFile
from dptmat.errors import UserError, few
from dptmat.file_kinds import HEAD, name_kind

FRAME = 12  # bytes before the content of a record
_FEATURES = ("image/encoded", "image", "image_raw", "jpeg")  # that usually hold the image, the first that does
_FILE_NAME = "image/filename"
_LONGEST = 1024  # bytes of a name
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5  # wire types; there are no others in use


def is_tfrecord(head: bytes) -> bool:
    """Tell whether a file is a TFRecord file by its first ``FRAME`` bytes."""
    return len(head) >= FRAME and _masked_crc(head[:8]) == int.from_bytes(head[8:FRAME], "little")


def find_in_tfrecord(file: StoredFile, others: Counter[str]) -> Iterator[Found]:
    """Yield the first image of each record, in order, and count the records without one.

    Its key is the feature image/filename, or else the number of the record.

    Raises:
        UserError: The file is damaged or was cut short, or no record has an image.
        OSError: The store does not give it.
    """
    position, found, features = 0, 0, dict[str, tuple[int, int]]()
    for number, (start, end) in enumerate(_records(file)):
        features = dict(_byte_features(file, start, end))
        image = _image(file, features)
        if image:
            found += 1
            yield Found(_file_name(file, features) or str(number), *image)
        else:
            others["records without an image"] += 1
        position = end
    if position and not found:
        names = few(sorted(features)) or "none"
        raise UserError(f"{file.path}: its records hold no encoded image (features of bytes: {names}); convert it")


def _records(file: StoredFile) -> Iterator[tuple[int, int]]:
    """Yield where the content of each record starts and ends."""
    position = 0
    while position < file.size:
        head = file.at(position, min(FRAME, file.size - position))
        if not is_tfrecord(head):
            raise file.damaged(position, "this is no head of a record")
        start = position + FRAME
        end = start + int.from_bytes(head[:8], "little")
        if end + 4 > file.size:
            raise file.damaged(start, f"a record has {end - start} bytes, and {max(file.size - start - 4, 0)} follow")
        yield start, end
        position = end + 4


def _image(file: StoredFile, features: dict[str, tuple[int, int]]) -> tuple[int, int] | None:
    """Return offset and length of the feature that is an image by its first bytes, rather one of a usual name."""
    for name in sorted(features, key=lambda name: _FEATURES.index(name) if name in _FEATURES else len(_FEATURES)):
        offset, length = features[name]
        if name_kind(file.at(offset, min(length, HEAD))) in READABLE:
            return offset, length
    return None


def _file_name(file: StoredFile, features: dict[str, tuple[int, int]]) -> str:
    offset, length = features.get(_FILE_NAME, (0, 0))
    return file.at(offset, length).decode("utf-8", "surrogateescape") if length <= _LONGEST else ""


def _byte_features(file: StoredFile, start: int, end: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the names of an Example's features of bytes, with offset and length of the first value of each."""
    for features in _fields(file, start, end, 1):
        for entry in _fields(file, *features, 1):
            name = next(_fields(file, *entry, 1), None)
            if name is None or name[1] - name[0] > _LONGEST:
                continue
            for feature in _fields(file, *entry, 2):
                for values in _fields(file, *feature, 1):
                    for first, last in _fields(file, *values, 1):
                        text = file.at(name[0], name[1] - name[0]).decode("utf-8", "replace")
                        yield text, (first, last - first)
                        break


def _fields(file: StoredFile, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Yield where each field of a number starts and ends in a message, of those that have a length."""
    while start < end:
        tag, content = _varint(file, start, end)
        length, wire = 0, tag & 7
        if wire == _VARINT:
            _, content = _varint(file, content, end)
        elif wire == _BYTES:
            length, content = _varint(file, content, end)
        elif wire in (_FIXED_64, _FIXED_32):
            length = 8 if wire == _FIXED_64 else 4
        else:
            raise file.damaged(start, "this is no field of a tf.train.Example")
        if content + length > end:
            raise file.damaged(start, f"a field has {length} bytes, and {end - content} follow")
        if tag >> 3 == wanted and wire == _BYTES:
            yield content, content + length
        start = content + length


def _varint(file: StoredFile, start: int, end: int) -> tuple[int, int]:
    """Return a number of 7 bits a byte, the lowest first, and where it ends."""
    number = 0
    for place, byte in enumerate(file.at(start, min(10, end - start))):
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, start + place + 1
    raise file.damaged(start, "a number in a record does not end")


def _table() -> tuple[int, ...]:
    """Return the table of CRC-32C (RFC 3720, appendix B.4) for a byte."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC = _table()


def _masked_crc(data: bytes) -> int:
    """Return the checksum as TFRecord files have it, turned by 15 bits and moved by a constant."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
