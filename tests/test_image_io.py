"""Images on disk: every kind that users have gives the same arrays, and what is wrong is told in one line."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dptmat.data.cases import Case, list_images, pair, require_apart
from dptmat.data.folders import read_lines
from dptmat.data.image_io import (
    EXTENSIONS,
    read_alpha,
    read_image,
    read_mask,
    read_size,
    read_trimap,
    require_same_size,
    write_png,
)
from dptmat.errors import UserError

READERS = [read_image, read_alpha, read_trimap, read_mask]
ORIENTATION = 0x0112  # EXIF tag
GREY = np.arange(256, dtype=np.uint8).reshape(8, 32)
TRIMAP = np.random.default_rng(0).integers(0, 3, (5, 7), np.uint8)
LEVELS = np.array([0, 128, 255], np.uint8)[TRIMAP]


def save(path, array, mode=None, **options):
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def refused(call, *args, **options):
    """The one line that a call is refused with."""
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_a_trimap_of_any_kind(tmp_path, mode, ending):
    path = save(tmp_path / f"a{ending}", LEVELS, mode)
    assert Image.open(path).mode == mode
    trimap = read_trimap(path)
    assert trimap.dtype == np.uint8
    np.testing.assert_array_equal(trimap, TRIMAP)


def test_a_palette_counts_by_its_colours_and_not_by_its_numbers(tmp_path):
    picture = Image.fromarray(2 - TRIMAP).convert("P")
    picture.putpalette([255] * 3 + [128] * 3 + [0] * 3)
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_trimap(tmp_path / "a.png"), TRIMAP)
    picture.putpalette([255, 0, 0] + [128] * 3 + [0] * 3)
    picture.save(tmp_path / "a.png")
    assert refused(read_trimap, tmp_path / "a.png") == (
        f"trimap {tmp_path}/a.png has colours; expected one grey channel, or three equal ones"
    )


def test_other_values_of_a_trimap_are_counted(tmp_path):
    levels = LEVELS.copy()
    levels[0, :3] = 1
    levels[1, 0] = 254
    assert refused(read_trimap, save(tmp_path / "a.png", levels)) == (
        f"trimap {tmp_path}/a.png holds 1 (3 pixels), 254 (1 pixels); expected 0, 128 and 255 alone: save these as PNG"
    )
    message = refused(read_trimap, save(tmp_path / "a.png", GREY))
    assert "holds 1 (1 pixels), 2 (1 pixels), " in message
    assert "5 (1 pixels) and 248 further values; " in message


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_an_alpha_of_any_kind(tmp_path, mode):
    alpha = read_alpha(save(tmp_path / "a.png", GREY, mode))
    assert alpha.dtype == np.uint8
    np.testing.assert_array_equal(alpha, GREY)


def test_an_alpha_of_one_bit(tmp_path):
    path = save(tmp_path / "a.png", (GREY >= 100).astype(np.uint8) * 255, "1")
    assert Image.open(path).mode == "1"
    np.testing.assert_array_equal(read_alpha(path), (GREY >= 100) * 255)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_16_bits_are_rounded_to_the_nearest_of_8(tmp_path, ending):
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    cv2.imwrite(str(tmp_path / f"a{ending}"), deep)
    nearest = np.round(deep / 257).astype(np.uint8)  # 257 is odd: nothing lies half way
    np.testing.assert_array_equal(read_alpha(tmp_path / f"a{ending}"), nearest)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{ending}"), np.dstack([nearest] * 3))


def test_three_channels_of_16_bits_come_as_their_upper_8(tmp_path):
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([deep] * 3))
    np.testing.assert_array_equal(read_alpha(tmp_path / "a.png"), deep >> 8)
    exact = np.arange(256, dtype=np.uint16).reshape(8, 32) * 257  # 8 bits, saved as 16
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([exact] * 3))
    np.testing.assert_array_equal(read_alpha(tmp_path / "a.png"), GREY)


def test_a_jpeg_of_three_channels_may_have_them_some_levels_apart(tmp_path):
    save(tmp_path / "a.jpg", np.dstack([GREY] * 3), quality=50)
    assert np.abs(read_alpha(tmp_path / "a.jpg").astype(int) - GREY).max() < 30


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "grey with a transparent level"])
def test_a_matte_that_is_partly_transparent_is_refused(tmp_path, kind):
    picture, options = Image.fromarray(GREY), {}
    if kind in ("RGBA", "LA"):
        picture = picture.convert(kind)
        picture.putpixel((3, 3), tuple([0] * (len(kind) - 1) + [254]))
    else:
        picture, options = picture.convert("P") if kind == "palette" else picture, {"transparency": 7}
    picture.save(tmp_path / "a.png", **options)
    expected = "is partly transparent; expected one grey channel: save the matte by itself"
    for reader, name in ((read_alpha, "alpha"), (read_trimap, "trimap"), (read_mask, "mask")):
        assert refused(reader, tmp_path / "a.png") == f"{name} {tmp_path}/a.png {expected}"
    assert read_image(tmp_path / "a.png").shape == (8, 32, 3)


def test_an_alpha_with_colours_or_floating_point_is_refused(tmp_path):
    coloured = np.dstack([GREY] * 3)
    coloured[2, 3, 1] += 9
    assert "a.png has colours" in refused(read_alpha, save(tmp_path / "a.png", coloured))
    assert "a.tif holds floating-point numbers" in refused(
        read_alpha, save(tmp_path / "a.tif", GREY.astype(np.float32))
    )
    assert "a.tif holds floating-point numbers" in refused(read_image, tmp_path / "a.tif")
    deep = np.full((2, 2), 65536, np.int32)
    assert "has values from 65536 to 65536; expected 8 or 16 bits" in refused(
        read_alpha, save(tmp_path / "a.tif", deep)
    )


def test_a_mask_of_ones_is_refused(tmp_path):
    assert refused(read_mask, save(tmp_path / "a.png", (GREY > 9).astype(np.uint8))) == (
        f"mask {tmp_path}/a.png has no value above 1; foreground is from 128: save it as 255"
    )
    np.testing.assert_array_equal(read_mask(save(tmp_path / "a.png", GREY)), GREY)
    assert not read_mask(save(tmp_path / "a.png", 0 * GREY)).any()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_an_image_of_any_kind(tmp_path, mode):
    expected = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)).convert(mode)
    expected.save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif", ".webp"])
def test_pictures_are_turned_upright_unless_asked_otherwise(tmp_path, ending):
    stored = np.zeros((16, 32), np.uint8)
    stored[:, :8] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned by a quarter, clockwise
    path = save(tmp_path / f"a{ending}", np.dstack([stored] * 3), exif=exif)
    for read in (read_alpha, lambda path, **options: read_image(path, **options)[..., 1]):
        np.testing.assert_array_equal(read(path) >= 128, np.rot90(stored, -1) >= 128)
        if ending != ".tif":  # which Pillow itself turns, whatever one asks for
            np.testing.assert_array_equal(read(path, upright=False) >= 128, stored >= 128)


def test_a_deep_alpha_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = save(tmp_path / "a.png", GREY.astype(np.uint16) * 257, exif=exif)
    np.testing.assert_array_equal(read_alpha(path), np.rot90(GREY, -1))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("ending", "keep", "message"),
    [
        (".png", 0.5, "cannot be read: it ends before its end"),
        (".jpg", 0.5, "cannot be read: it ends before its end"),
        (".png", 0, "is not an image that can be read: it is empty"),
        (".jpg", 0.01, "cannot be read: it ends before its end"),
        (".jpg", 0, "is not an image that can be read: it is empty"),
    ],
)
def test_a_truncated_file_is_named(tmp_path, reader, ending, keep, message):
    path = save(tmp_path / f"a{ending}", np.random.default_rng(0).integers(0, 256, (99, 99), np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert f"{path} {message}" in refused(reader, path)


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_picture_is_named(tmp_path, reader):
    (tmp_path / "text.png").write_text("a picture")
    (tmp_path / "folder.png").mkdir()
    assert refused(reader, tmp_path / "text.png") == f"{tmp_path}/text.png is not an image that can be read: it is text"
    assert refused(reader, tmp_path / "folder.png") == f"{tmp_path}/folder.png cannot be read: Is a directory"
    assert refused(reader, tmp_path / "none.png") == f"{tmp_path}/none.png cannot be read: No such file or directory"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP"])
def test_damage_anywhere_in_a_header_is_told_in_one_line(tmp_path, form):
    random = np.random.default_rng(0)
    path = save(tmp_path / "a.png", random.integers(0, 256, (12, 9, 3), np.uint8), format=form)
    content = np.fromfile(path, np.uint8)
    messages = []
    for _ in range(60):
        damaged = content.copy()
        damaged[random.integers(0, min(300, len(content)), 3)] = random.integers(0, 256, 3)
        damaged.tofile(path)
        try:
            read_image(path)
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > 5
    assert all(message.startswith(f"{path} ") and "\n" not in message for message in messages)


@pytest.mark.parametrize(
    "error", [struct.error("required argument is not an integer"), TypeError("no float"), KeyError]
)
def test_whatever_pillow_raises_for_a_damaged_file(tmp_path, monkeypatch, error):
    """Seen, among a thousand damaged files: struct.error and TypeError, for the orientation in WebP and TIFF."""

    def fail(picture):
        raise error

    path = save(tmp_path / "a.png", GREY)
    monkeypatch.setattr("PIL.ImageOps.exif_transpose", fail)
    assert refused(read_image, path) == f"{path} cannot be read: {'KeyError' if error is KeyError else error}"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4), (1, 1)])
def test_what_is_written_is_read_back(tmp_path, dtype, shape):
    picture = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype)
    picture.flags.writeable = False
    write_png(tmp_path / "a.png", picture)
    read = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read if len(shape) == 2 else read[..., [2, 1, 0, 3][: shape[2]]], picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_an_alpha_is_read_as_it_was_written(tmp_path):
    write_png(tmp_path / "a.png", GREY)
    assert Image.open(tmp_path / "a.png").mode == "L"
    np.testing.assert_array_equal(read_alpha(tmp_path / "a.png"), GREY)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_png(tmp_path / "a.png", GREY)
    before = (tmp_path / "a.png").read_bytes()
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_png(tmp_path / "a.png", 255 - GREY)
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_sizes_that_differ_are_told_with_the_name():
    require_same_size("cat", image=np.zeros((4, 5, 3)), trimap=np.zeros((4, 5)))
    assert refused(require_same_size, "cat", image=np.zeros((4, 5, 3)), trimap=np.zeros((5, 4))) == (
        "cat: sizes differ: image 5 x 4, trimap 4 x 5 pixels; make them one width and height"
    )


def make_folder(folder, *names):
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_a_folder_is_listed_by_path_without_what_is_no_picture(tmp_path):
    folder = make_folder(tmp_path / "x", "b.png", "a.JPG", "c.d.tiff", "notes.txt", "e")
    make_folder(folder / "below", "f.png")
    listed = list_images("--image", folder)
    assert list(listed.items()) == [
        ("a", folder / "a.JPG"), ("b", folder / "b.png"), ("below/f", folder / "below/f.png"),
        ("c.d", folder / "c.d.tiff"),
    ]  # fmt: skip
    assert list_images("--image", str(folder / "b.png")) == {"b": folder / "b.png"}


def test_a_list_is_relative_to_its_folder(tmp_path):
    make_folder(tmp_path / "x", "b.png")
    (tmp_path / "list.txt").write_bytes(f"\ufeffx/b.png\r\n\n{tmp_path}/y/a b.png \r\n".encode())
    listed = list_images("image", tmp_path / "list.txt")
    assert list(listed.items()) == [("a b", tmp_path / "y/a b.png"), ("b", tmp_path / "x/b.png")]
    assert read_lines("image", tmp_path / "list.txt") == ["x/b.png", f"{tmp_path}/y/a b.png"]


def test_what_cannot_be_listed(tmp_path):
    make_folder(tmp_path / "empty", "notes.txt")
    make_folder(tmp_path / "twins", "a.png", "a.jpg")
    (tmp_path / "list.txt").write_text("\n")
    looked_for = f"(looked for {', '.join(EXTENSIONS)} in it and below)"
    for name, message in (
        ("none", "does not exist; give a folder of images"),
        ("none.png", "does not exist; give a folder of images"),
        ("empty", f"holds no image {looked_for}"),
        ("list.txt", "is an empty list; it holds one path per line"),
        ("twins", "holds both a.jpg and a.png; keep one"),
    ):
        assert refused(list_images, "bg", tmp_path / name) == f"`bg` {tmp_path}/{name} {message}"


def test_pairs_go_by_name_and_the_first_folder_says_which(tmp_path):
    image = make_folder(tmp_path / "image", "b.jpg", "a.jpg")
    trimap = make_folder(tmp_path / "trimap", "a.png", "b.png", "c.png")
    expected = [Case(name, image=image / f"{name}.jpg", trimap=trimap / f"{name}.png") for name in "ab"]
    assert pair(image=image, trimap=str(trimap)) == expected
    assert pair(image=image / "a.jpg", trimap=trimap, alpha=None) == expected[:1]
    assert refused(pair, trimap=trimap, image=image) == (
        f"`image` {image} has no partner of c of `trimap` {trimap}; partners have the same name, whatever their ending"
    )
    assert refused(pair, {"image": "val_image"}, trimap=trimap, image=image).startswith(
        f"`val_image` {image} has no partner of c of `trimap` {trimap};"
    )


def test_a_case_has_the_paths_that_it_was_given(tmp_path):
    case = Case("a", image=tmp_path / "a.jpg", fg=tmp_path / "a.png")
    assert case.paths == {"image": tmp_path / "a.jpg", "fg": tmp_path / "a.png"}
    assert case.path("fg") == tmp_path / "a.png"
    with pytest.raises(ValueError, match="the case a has no alpha; give it one"):
        case.path("alpha")


def test_many_missing_partners_are_counted(tmp_path):
    image = make_folder(tmp_path / "image", *(f"{i}.jpg" for i in range(9)))
    trimap = make_folder(tmp_path / "trimap", "4.png")
    assert "has no partner of 0, 1, 2 and 5 more of `image`" in refused(pair, image=image, trimap=trimap)


def test_single_pictures_are_partners_whatever_their_names(tmp_path):
    folder = make_folder(tmp_path / "x", "cat.jpg", "cat_trimap.png")
    assert pair(image=str(folder / "cat.jpg"), trimap=folder / "cat_trimap.png") == [
        Case("cat", image=folder / "cat.jpg", trimap=folder / "cat_trimap.png")
    ]
    other = make_folder(tmp_path / "y", "dog.png")
    assert "has no partner of cat" in refused(pair, image=folder / "cat.jpg", trimap=other)


def test_a_folder_that_is_read_is_not_written_to(tmp_path):
    folder = make_folder(tmp_path / "x", "a.png")
    (tmp_path / "link").symlink_to(folder)
    for out in (folder, tmp_path / "link", folder / ".." / "x", str(folder)):
        assert refused(require_apart, [tmp_path, Path(out)], [folder / "a.png"]) == (
            f"{folder} is read and would be written to as well; give another folder as `out`"
        )
    assert refused(require_apart, [folder], [tmp_path / "link/a.png"]).startswith(f"{tmp_path}/link is read and ")
    require_apart([folder / "below"], [folder / "a.png"])
    require_apart([tmp_path], [folder / "a.png"])


def turned(array, orientation):
    """What EXIF means by its numbers: which side of what is stored is the upper and which the left one."""
    return {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: x[::-1].swapaxes(0, 1),
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
        8: lambda x: x[:, ::-1].swapaxes(0, 1),
    }[orientation](array)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_tiff_is_upright(tmp_path, mode, compression, orientation):
    colors = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
    if mode == "I;16":
        picture, expected = Image.fromarray(colors[..., 0].astype(np.uint16) * 257), np.dstack([colors[..., 0]] * 3)
    else:
        picture = Image.fromarray(colors).convert(mode)
        expected = np.asarray(picture.convert("RGB"))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture.save(tmp_path / "a.tif", compression=compression, exif=exif)
    expected = turned(expected, orientation)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), expected)
    assert read_size(tmp_path / "a.tif") == expected.shape[1::-1]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_a_size_is_that_of_the_image(tmp_path, ending, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = save(tmp_path / f"a{ending}", np.zeros((6, 10, 3), np.uint8), exif=exif)
    for upright in (True, False):
        assert read_size(path, upright=upright) == read_image(path, upright=upright).shape[1::-1]


def test_values_of_16_bits_are_told_as_they_are_in_the_file(tmp_path):
    deep = LEVELS.astype(np.uint16) * 257
    np.testing.assert_array_equal(read_trimap(save(tmp_path / "a.png", deep)), TRIMAP)
    deep[0, :3] = 700
    assert refused(read_trimap, save(tmp_path / "a.png", deep)) == (
        f"trimap {tmp_path}/a.png holds 700 (3 pixels); expected 0, 32896 and 65535 alone: save these as PNG"
    )
    assert refused(read_mask, save(tmp_path / "a.png", np.array([[0, 20000]], np.uint16))) == (
        f"mask {tmp_path}/a.png has no value above 20000; foreground is from 32768: save it as 65535"
    )
    message = refused(read_alpha, save(tmp_path / "a.png", np.array([[0, 1]], np.uint16)))
    assert message.endswith("no value above 1, where white is 65535; save it multiplied by 65535")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_a_photograph_that_loses_its_transparency_is_told(tmp_path, caplog, mode):
    picture = Image.fromarray(GREY).convert(mode)
    options = {"transparency": 7} if mode in ("P", "L") else {}
    picture.save(tmp_path / "opaque.png")
    read_image(tmp_path / "opaque.png")
    assert not caplog.messages
    if not options:
        picture.putpixel((3, 3), tuple([9] * (len(mode) - 1) + [254]))
    picture.save(tmp_path / "a.png", **options)
    read_image(tmp_path / "a.png")
    assert caplog.messages == [f"{tmp_path}/a.png is partly transparent: its colours are taken as if it were not"]


@pytest.mark.parametrize("reader", [*READERS, read_size])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><title>", "is not an image that can be read: it is an HTML page, such as an error that a"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer, not the file itself: git lfs pull"),
        (b"\0\x05\x16\x07\0\2\0\0", "it is what macOS keeps beside a file (AppleDouble), not the file itself"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is a HEIC file"),
        (bytes(4096), "it is nothing but zero bytes, as a disk or a download leaves them that has failed"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "cannot be read: it begins as a PNG file, but is damaged"),
        (b"II*\0" + bytes(99), "cannot be read: it begins as a TIFF file, but is damaged"),
        (b"\x01\x02\x03\x80", "is not an image that can be read"),
    ],
)
def test_what_a_file_is_instead_of_an_image_is_told(tmp_path, reader, content, message):
    (tmp_path / "a.png").write_bytes(content)
    said = refused(reader, tmp_path / "a.png")
    assert said.startswith(f"{tmp_path}/a.png ")
    assert message in said


@pytest.mark.parametrize("reader", [*READERS, read_size])
def test_an_image_that_claims_too_many_pixels_is_refused(tmp_path, reader):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 13400, 13400, 8, 0, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b""))
    assert refused(reader, tmp_path / "a.png") == (
        f"{tmp_path}/a.png claims more than 178,956,970 pixels; make it smaller"
    )
