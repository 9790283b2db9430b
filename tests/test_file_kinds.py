"""What a file is by its first bytes: against files that other libraries write, and heads from published formats."""

import bz2
import io
import lzma
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from dptmat.file_kinds import HEAD, name_kind, name_kind_of

SAVED = {
    "JPEG": "a JPEG file",
    "PNG": "a PNG file",
    "GIF": "a GIF file",
    "BMP": "a BMP file",
    "TIFF": "a TIFF file",
    "WEBP": "a WebP file",
    "JPEG2000": "a JPEG 2000 file",
    "PDF": "a PDF file",
    "PPM": "a PPM file",
    "EPS": "a PostScript file",
    "AVIF": "an AVIF file",
}


@pytest.mark.parametrize("image_format", SAVED)
def test_images_of_other_libraries(image_format):
    file = io.BytesIO()
    if image_format == "AVIF" and "AVIF" not in Image.SAVE:
        Image.init()
        if "AVIF" not in Image.SAVE:
            pytest.skip("this Pillow writes no AVIF")
    Image.new("RGB", (40, 30), "teal").save(file, image_format)
    assert name_kind(file.getvalue()[:HEAD]) == SAVED[image_format]


def test_archives_and_arrays():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.add(__file__)
    assert name_kind(file.getvalue()[:HEAD]) == "a tar archive"
    assert name_kind(bz2.compress(file.getvalue())[:HEAD]) == "a bzip2 archive"
    assert name_kind(lzma.compress(file.getvalue())[:HEAD]) == "an xz archive"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "a")
    assert name_kind(file.getvalue()) == "a ZIP archive"
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    assert name_kind(file.getvalue()) == "a NumPy array"


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "empty"),
        (b"\n <!DOCTYPE HTML PUBLIC>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "Git LFS pointer"),
        (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "AppleDouble"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1", "a HEIC file"),
        (b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00", "a film"),
        (bytes(100), "nothing but zero bytes"),
        (b"\xff\xfea\0.\0j\0", "text in UTF-16"),
        ("Köln/a.jpg\n".encode(), "text"),
        (("a" * (HEAD - 1) + "ä").encode()[:HEAD], "text"),  # the head ends within a character
        (b"\x01\x02\x03\x04", ""),
        (b"BMW/a.jpg\nBMW/b.jpg\n", "text"),
        (b"abc\x00def", ""),
    ],
)
def test_heads(head, words):
    assert words in name_kind(head) if words else name_kind(head) == ""


def test_what_cannot_be_read_has_no_kind(tmp_path):
    assert name_kind_of(tmp_path / "missing") == ""
    (tmp_path / "a").write_bytes(b"GIF89a")
    assert name_kind_of(tmp_path / "a") == "a GIF file"
