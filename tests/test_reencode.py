"""Photographs as they are packed: the pixels that training would have seen, but for one generation of JPEG."""

import io
import warnings

import numpy as np
import pytest
import simplejpeg
from image_kinds import DALI, PILLOW, write_kinds
from PIL import Image, ImageOps

from dptmat.data.image_io import decode_photograph
from dptmat.data.jpeg import PROGRESSIVE, segments
from dptmat.data.reencode import decode_upright, encode, shrink_to
from dptmat.pipelines.encoded import BadFileError
from dptmat.pipelines.resample import shrink

KINDS = {**DALI, **PILLOW}


def psnr(image, expected):
    return 10 * np.log10(255**2 / np.mean((image.astype(float) - expected) ** 2))


def read(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_that_training_decodes(kind, tmp_path):
    write_kinds(tmp_path, {kind: KINDS[kind]})
    content = (tmp_path / kind).read_bytes()
    pixels, expected = decode_upright(content, kind), decode_photograph(content, kind, srgb=False)
    assert np.array_equal(np.broadcast_to(pixels, expected.shape), expected)
    is_gray = (expected == expected[..., :1]).all()
    assert pixels.shape[2] == (1 if is_gray and "plain" not in kind else 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_upright_and_has_no_exif(photographs, orientation):
    image = Image.open(min(photographs.iterdir()))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif, icc_profile=b"a profile")
    pixels = decode_upright(file.getvalue(), "a.jpg")
    assert np.array_equal(pixels, ImageOps.exif_transpose(Image.open(file)))
    packed = Image.open(io.BytesIO(encode(shrink_to(pixels, 100), 90, "420")))
    assert not packed.getexif()
    assert "icc_profile" not in packed.info


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0" + bytes(40), b"Exif\0\0MM\0*\xff\xff\xff\xff"]
)
def test_damaged_exif_is_passed_over(photographs, exif):
    image = Image.open(min(photographs.iterdir()))
    file = io.BytesIO()
    image.save(file, "JPEG", exif=b"Exif\0\0" + exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's
        assert decode_upright(file.getvalue(), "a.jpg").shape[:2] == image.size[::-1]


@pytest.mark.parametrize("size", [224, 64])
def test_pixels_are_shrunk_as_training_shrinks_them(photographs, size):
    for path in sorted(photographs.iterdir())[:6]:
        original = np.array(Image.open(path).convert("RGB"))
        expected = shrink(original, size)
        # What JPEG at its best changes: 50.5 dB measured. OpenCV's filters all stay below 48.2.
        fine = read(encode(shrink_to(decode_upright(path.read_bytes(), path.name), size), 100, "444"))
        assert psnr(fine, expected) > 49.5
        # The same as Pillow's, whose chroma differs by a tenth of a dB.
        usual = encode(shrink_to(decode_upright(path.read_bytes(), path.name), size), 90, "420")
        file = io.BytesIO()
        Image.fromarray(expected).save(file, "JPEG", quality=90, subsampling="4:2:0")
        assert psnr(read(usual), expected) > psnr(read(file.getvalue()), expected) - 0.3


def test_nothing_is_enlarged_and_a_strip_is_shrunk_as_training_does():
    for height, width in ((224, 300), (50, 60), (1, 1), (224, 896), (100, 896)):
        pixels = np.zeros((height, width, 3), np.uint8)
        assert shrink_to(pixels, 224) is pixels
    for height, width in ((225, 300), (224, 897), (10, 3000)):
        pixels = np.zeros((height, width, 3), np.uint8)
        assert shrink_to(pixels, 224).shape == shrink(pixels, 224).shape


def test_gray_stays_gray_and_has_the_same_pixels():
    gray = np.random.default_rng(0).integers(0, 256, (300, 400, 1), np.uint8)
    small = shrink_to(gray, 64)
    assert small.shape[2] == 1
    assert np.array_equal(np.repeat(small, 3, 2), shrink(np.repeat(gray, 3, 2), 64))
    packed = Image.open(io.BytesIO(encode(small, 90, "420")))
    assert packed.mode == "L"


@pytest.mark.parametrize(("sampling", "name"), [("420", "420"), ("444", "444")])
def test_jpegs_are_baseline_of_one_scan(photographs, sampling, name):
    content = encode(shrink_to(decode_upright(min(photographs.iterdir()).read_bytes(), "a"), 64), 90, sampling)
    markers = [marker for marker, _ in segments(content)]
    assert 0xC0 in markers
    assert PROGRESSIVE not in markers
    assert not {0xE1, 0xE2, 0xDD} & set(markers)  # EXIF, colour profile, restart interval
    assert content.count(b"\xff\xda") == 1
    assert simplejpeg.decode_jpeg_header(content)[3] == name


def test_damage_is_told_as_index_does(photographs):
    noise = np.random.default_rng(1).integers(0, 256, (96, 128, 3), np.uint8)
    content = bytearray(encode(noise, 90, "420"))
    middle = len(content) // 2
    content[middle : middle + 200] = bytes([7]) * 200
    with pytest.raises(BadFileError, match="Corrupt JPEG data"):
        decode_upright(bytes(content), "a.jpg")
    with pytest.raises(BadFileError, match="^is not an image"):
        decode_upright(b"\x89PNG\r\n\x1a\n" + bytes(100), "a.png")
