"""What a file is by its first bytes, whatever its name says."""

from pathlib import Path

HEAD = 512  # bytes that `name_kind` looks at

_STARTS = {
    b"\xff\xd8\xff": "a JPEG file",
    b"\x89PNG\r\n\x1a\n": "a PNG file",
    b"GIF8": "a GIF file",
    b"II*\0": "a TIFF file",
    b"MM\0*": "a TIFF file",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 file",
    b"\xff\x4f\xff\x51": "a JPEG 2000 file",
    b"\xff\x0a": "a JPEG XL file",
    b"\0\0\0\x0cJXL ": "a JPEG XL file",
    b"\x76\x2f\x31\x01": "an OpenEXR file",
    b"#?RADIANCE": "a Radiance HDR file",
    b"8BPS": "a Photoshop file",
    b"%!PS": "a PostScript file",
    b"%PDF": "a PDF file",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\0": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"\x04\x22\x4d\x18": "an LZ4 archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"\x1aE\xdf\xa3": "a film",
    b"\0\x05\x16\x07": "what macOS keeps beside a file (AppleDouble), not the file itself",
    b"\0\x05\x16\0": "what macOS keeps beside a file (AppleSingle), not the file itself",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: git lfs pull fetches it",
    b"/annex/objects/": "a git-annex pointer, not the file itself: git annex get fetches it",
    b"<!doctype html": "an HTML page, such as an error that a server has sent",
    b"<html": "an HTML page, such as an error that a server has sent",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML file",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
# The brand of a file of the ISO base media format, from its byte 8 on.
_BRANDS = {
    b"avi": "an AVIF file",
    b"hei": "a HEIC file",
    b"hev": "a HEIC file",
    b"mif": "a HEIC file",
    b"msf": "a HEIC file",
    b"crx": "a Canon raw file",
}


def name_kind(head: bytes) -> str:
    """Name what a file is by its first bytes, at least ``HEAD`` of them where it has as many; "" if they tell nothing.

    The words can follow "it is": "a GIF file", "an HTML page", "text".
    """
    if not head:
        return "empty"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:11], "a film")
    if head[:4] == b"RIFF":
        return {b"WEBP": "a WebP file", b"AVI ": "a film"}.get(head[8:12], "a RIFF file")
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "a BMP file"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "a PPM file"
    words = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, kind in _STARTS.items():
        if head.startswith(start) or words.startswith(start):
            return kind
    if not head.strip(b"\0"):
        return "nothing but zero bytes, as a disk or a download leaves them that has failed"
    return "text" if _is_text(head) else ""


def name_kind_of(path: str | Path) -> str:
    """Name what a file is, as `name_kind`; "" also where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return name_kind(file.read(HEAD))
    except OSError:
        return ""


def _is_text(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else a character that is cut at the end
            return False
    return not any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head)
