"""The segments of a JPEG file before its pixels, which hold all that can be known without decoding it."""

from collections.abc import Iterator

SCAN = 0xDA  # marker of the start of a scan
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of the start of a frame: what size, how many channels
PROGRESSIVE = 0xC2  # the usual one among these whose scans hold a part of the coefficients

_END, _FILL = 0xD9, 0xFF  # end of the image, padding
_ALONE = {0x01, *range(0xD0, 0xD8)}  # without a segment


def segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Walk over the segments of a JPEG file up to its first scan; thumbnails, which lie in one, are not looked into.

    Args:
        content: The file.

    Yields:
        (marker, where it begins): its two bytes are followed by the segment's length, of two bytes too. The last one is
        ``SCAN``, unless this is no JPEG file after all.

    Raises:
        IndexError: The file ends before its first scan.
    """
    position = 2
    while content[position] == _FILL and (marker := content[position + 1]) != _END:
        if marker == _FILL:
            position += 1
        elif marker in _ALONE:
            position += 2
        else:
            yield marker, position
            if marker == SCAN:
                return
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
