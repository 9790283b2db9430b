"""Colour profiles: images that have one are read in sRGB, by the colours that their profile defines."""

import io
import logging
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms
from profiles import ADOBE, P3, SRGB, SRGB_CURVE, WHITE, fixed, icc, of_colors, of_grey, of_inks

from dptmat.data.color_profiles import has_other_profile
from dptmat.data.image_io import read_alpha, read_image, read_mask, read_trimap

COLORS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
GREY = np.arange(256, dtype=np.uint8).reshape(8, 32)


def linear(values, gamma):
    x = values / 255
    if not isinstance(gamma, tuple):
        return x ** (round(gamma * 256) / 256)
    power, a, b, c, knee = gamma
    return np.where(x >= knee, (a * x + b) ** power, c * x)


def encode(light):
    """From light to levels of sRGB."""
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def in_srgb(colors, matrix, gamma):
    return encode(linear(colors, gamma) @ (np.linalg.inv(SRGB) @ matrix).T)


def save(path, array, profile, mode=None, **options):
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, icc_profile=profile, **options)
    return path


@pytest.mark.parametrize(("matrix", "gamma"), [(P3, SRGB_CURVE), (ADOBE, 2.2), (SRGB, 1.8)])
@pytest.mark.parametrize("ending", [".png", ".tif", ".webp", ".jpg"])
def test_colours_are_those_of_the_profile(tmp_path, matrix, gamma, ending):
    colors = COLORS if ending != ".jpg" else np.full_like(COLORS, (200, 40, 90))
    path = save(tmp_path / f"a{ending}", colors, of_colors(matrix, gamma), quality=100, lossless=True)
    stored = np.asarray(Image.open(path))
    expected = in_srgb(stored, matrix, gamma)
    image = read_image(path)
    assert image.dtype == np.uint8
    # LittleCMS computes 8 bits in fixed point, with 14 bits behind the point: next to a level.
    assert np.abs(image - expected).max() < 1.6
    assert np.abs(image - stored.astype(int)).max() > 10
    assert has_other_profile(path.read_bytes())
    np.testing.assert_array_equal(read_image(path, srgb=False), stored)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_other_modes_are_converted_by_their_colours(tmp_path, mode):
    path = save(tmp_path / "a.png", COLORS, of_colors(ADOBE, 2.2), mode)
    stored = np.asarray(Image.open(path).convert("RGB"))
    assert np.abs(read_image(path) - in_srgb(stored, ADOBE, 2.2)).max() < 1.6


def test_an_image_in_lab_needs_no_profile(tmp_path, caplog):
    srgb, lab = (ImageCms.createProfile(space) for space in ("sRGB", "LAB"))
    dull = COLORS // 3 + 85  # within what 8 bits of Lab hold finely enough
    ImageCms.profileToProfile(Image.fromarray(dull), srgb, lab, outputMode="LAB").save(tmp_path / "a.tif")
    assert Image.open(tmp_path / "a.tif").info["icc_profile"]
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - dull).max() < 8
    assert not caplog.messages


@pytest.mark.parametrize("profile", [of_grey(1.8), of_colors(ADOBE, 1.8)], ids=["grey", "colours"])
@pytest.mark.parametrize("mode", ["L", "LA", "16 bits"])
def test_grey_images_have_profiles_too(tmp_path, profile, mode):
    deep = mode == "16 bits"
    path = save(tmp_path / "a.png", GREY.astype(np.uint16) * 257 if deep else GREY, profile, None if deep else mode)
    expected = encode(linear(GREY, 1.8))
    assert np.abs(read_image(path) - expected[..., None]).max() < 1.6
    assert np.abs(expected - GREY).max() > 10
    assert has_other_profile(path.read_bytes())


@pytest.mark.parametrize("ending", [".jpg", ".tif"])
def test_inks_have_profiles_too(tmp_path, ending):
    inks = np.zeros((8, 32, 4), np.uint8)
    inks[..., 3] = GREY
    picture = Image.frombytes("CMYK", (32, 8), inks.tobytes())
    picture.save(tmp_path / f"a{ending}", icc_profile=of_inks(), quality=100)
    lightness = 100 - np.asarray(Image.open(tmp_path / f"a{ending}"))[..., 3] / 2.55
    light = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness * 27 / 24389)
    # The table of the profile is in 8 bits: its neutral a and b are next to 0 only.
    assert np.abs(read_image(tmp_path / f"a{ending}") - encode(light)[..., None]).max() < 3
    assert has_other_profile((tmp_path / f"a{ending}").read_bytes())


def sampled_srgb():
    """The curve of sRGB in 1024 steps, as the profile of 1998 has it that most files carry."""
    points = np.round(linear(np.linspace(0, 255, 1024), SRGB_CURVE) * 65535).astype(">u2").tobytes()
    tags = {bytes([x]) + b"TRC": b"curv" + struct.pack(">4xI", 1024) + points for x in b"rgb"}
    tags |= {bytes([x]) + b"XYZ": b"XYZ \0\0\0\0" + fixed(*np.array(SRGB)[:, i]) for i, x in enumerate(b"rgb")}
    return icc(b"RGB ", {b"wtpt": b"XYZ \0\0\0\0" + fixed(*WHITE), **tags})


@pytest.mark.parametrize(
    "profile",
    [
        of_colors(SRGB, SRGB_CURVE),
        sampled_srgb(),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        of_colors(np.round(np.array(SRGB), 4), SRGB_CURVE),
    ],
    ids=["exact", "sampled", "LittleCMS", "rounded"],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_profile_of_srgb_changes_no_bit(tmp_path, profile, mode):
    pixels = COLORS if mode == "RGB" else GREY
    path = save(tmp_path / "a.png", pixels, profile)
    assert not has_other_profile(path.read_bytes())
    expected = pixels if mode == "RGB" else np.dstack([pixels] * 3)
    np.testing.assert_array_equal(read_image(path), expected)


def test_mattes_are_numbers_and_no_colours(tmp_path):
    path = save(tmp_path / "a.png", GREY, of_grey(1.8))
    np.testing.assert_array_equal(read_alpha(path), GREY)
    np.testing.assert_array_equal(read_mask(path), GREY)
    levels = np.array([[0, 128, 255]], np.uint8)
    np.testing.assert_array_equal(read_trimap(save(tmp_path / "b.png", levels, of_grey(1.8))), [[0, 1, 2]])


@pytest.mark.parametrize(
    "profile",
    [
        b"no profile",
        of_colors(ADOBE, 2.2)[:150],
        of_colors(ADOBE, 2.2)[:300],
        of_grey(1.8),
        of_inks(),
        icc(b"RGB ", {}),
        icc(b"Lab ", {}, b"abst"),
        bytes(4096),
    ],
    ids=["text", "cut", "cut later", "of grey", "of inks", "no tags", "abstract", "zeros"],
)
def test_a_profile_that_cannot_be_used_is_ignored_with_a_warning(tmp_path, caplog, profile):
    path = save(tmp_path / "a.png", COLORS, profile)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(read_image(path), COLORS)
    (message,) = caplog.messages
    assert message.startswith(f"{path}: its colour profile cannot be used: ")
    assert message.endswith("; its colours are taken for sRGB")
    assert "\n" not in message
    assert not has_other_profile(path.read_bytes())


def large(profile):
    """The same profile with a tag that is ignored, so that a JPEG has it in several parts."""
    tags = {profile[at : at + 4]: struct.unpack_from(">II", profile, at + 4) for at in range(132, 132 + 12 * 7, 12)}
    content = {name: profile[start : start + length] for name, (start, length) in tags.items()}
    return icc(b"RGB ", {**content, b"priv": b"data" + bytes(150_000)})


def test_the_beginning_of_a_file_tells_of_its_profile(tmp_path):
    """As far as the pixels, and behind whatever else may stand there."""
    exif = Image.Exif()
    exif[0x010E] = "ICC_PROFILE\0\1\1 iCCP " * 500
    for ending, profile in ((".jpg", large(of_colors(ADOBE, 2.2))), (".png", of_colors(ADOBE, 2.2))):
        path = save(tmp_path / f"a{ending}", COLORS, profile, exif=exif)
        content = path.read_bytes()
        head = content[: content.index(b"\xff\xc0" if ending == ".jpg" else b"IDAT") + 12]
        assert has_other_profile(head)
        assert not has_other_profile(save(path, COLORS, None, exif=exif).read_bytes())


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_cut_and_damaged_files_have_no_profile_or_their_own(form):
    file = io.BytesIO()
    Image.fromarray(COLORS).save(file, form, icc_profile=of_colors(ADOBE, 2.2))
    content = np.frombuffer(file.getvalue(), np.uint8)
    random = np.random.default_rng(0)
    assert has_other_profile(content.tobytes()) == (form != "BMP")
    for end in range(0, 300, 7):
        assert not has_other_profile(content[:end].tobytes()) or form in ("WEBP", "PNG")
    for _ in range(200):
        damaged = content.copy()
        damaged[random.integers(0, min(700, len(content)), 4)] = random.integers(0, 256, 4)
        assert has_other_profile(damaged.tobytes()) in (True, False)
