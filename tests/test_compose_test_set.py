"""Test sets of composites: pixel for pixel by the published rule, and in the published order."""

from math import ceil

import numpy as np
import pytest
from options import as_words
from PIL import Image
from profiles import ADOBE, of_colors

from dptmat.data.image_io import LEVELS, read_alpha, read_image, write_png
from dptmat.tasks import compose_test_set as compose_module
from dptmat.tasks.compose_test_set import compose_test_set, composite_as_published, find_compositions, fit_background


def make(path, height, width, seed, channels=3):
    path.parent.mkdir(exist_ok=True, parents=True)
    shape = (height, width, channels) if channels > 1 else (height, width)
    picture = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    write_png(path, picture)
    return picture


@pytest.fixture
def folders(tmp_path):
    """Two foregrounds, one of them with an alpha of three channels, and five backgrounds from small to large."""
    for i, (name, height, width) in enumerate([("cat", 13, 17), ("dog", 20, 9)]):
        make(tmp_path / f"fg/{name}.png", height, width, i)
        alpha = make(tmp_path / f"alpha/{name}.png", height, width, i + 10, channels=1)
        alpha[0], alpha[1] = 0, 255
        write_png(tmp_path / f"alpha/{name}.png", alpha if name == "cat" else np.dstack([alpha] * 3))
        make(tmp_path / f"trimap/{name}.png", height, width, 0)
        write_png(tmp_path / f"trimap/{name}.png", LEVELS[alpha % 3])
    for i, (height, width) in enumerate([(5, 40), (40, 5), (30, 30), (3, 4), (13, 17)]):
        make(tmp_path / f"bg/{i}.png", height, width, i + 20)
    return tmp_path


def plain_composite(fg_path, alpha_path, bg_path):
    """The rule, pixel by pixel."""
    fg, bg = Image.open(fg_path), Image.open(bg_path)
    alpha = Image.open(alpha_path).convert("L")
    w, h = fg.size
    bw, bh = bg.size
    if bw < w or bh < h:
        ratio = max(w / bw, h / bh)
        bg = bg.resize((ceil(bw * ratio), ceil(bh * ratio)), Image.BICUBIC)
    result = np.zeros((h, w, 3), np.uint8)
    for y in range(h):
        for x in range(w):
            a = alpha.getpixel((x, y)) / 255
            for c in range(3):
                f, b = fg.getpixel((x, y))[c], bg.getpixel((x, y))[c]
                result[y, x, c] = f if a >= 1 else int(a * f + (1 - a) * b)
    return result


def given(folder, **options):
    words = {name: folder / name for name in ("fg", "alpha", "bg", "out")}
    return as_words(words | options)


def listed(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("rows", [1, 4, 256])
def test_every_pixel_is_by_the_rule(folders, dptmat, monkeypatch, rows):
    monkeypatch.setattr(compose_module, "_ROWS", rows)
    status, printed, _ = dptmat("compose", *given(folders, each=2))
    assert (status, printed) == (0, f"{folders}/out: 4 composites of 2 foregrounds\n")
    names = ["cat_0", "cat_1", "dog_0", "dog_1"]
    assert listed(folders / "out") == [f"{where}/{name}.png" for where in ("alpha_copy", "merged") for name in names]
    for k, name in enumerate(names):
        stem = name[:3]
        expected = plain_composite(folders / f"fg/{stem}.png", folders / f"alpha/{stem}.png", folders / f"bg/{k}.png")
        np.testing.assert_array_equal(read_image(folders / f"out/merged/{name}.png"), expected)
        alpha = Image.open(folders / f"out/alpha_copy/{name}.png")
        assert alpha.mode == "L"
        np.testing.assert_array_equal(np.asarray(alpha), read_alpha(folders / f"alpha/{stem}.png"))


def test_all_alphas_and_colours():
    """Against whole numbers: the rule truncates in float64, and is then up to one level below the exact quotient."""
    alpha = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 256, 1)
    fg = np.dstack([np.repeat(np.arange(256, dtype=np.uint8)[None], 256, 0)] * 3)
    for value in (0, 1, 77, 254, 255):
        merged = composite_as_published(fg, np.full_like(fg, value), alpha).astype(int)
        exact = (alpha[..., None].astype(int) * fg + (255 - alpha[..., None].astype(int)) * value) // 255
        assert set(np.unique(merged - exact)) <= {-1, 0}
        np.testing.assert_array_equal(merged[255], fg[255])
        np.testing.assert_array_equal(merged[0], value)
    # A plain colour over itself loses a level where the two products add up to a little less.
    same = composite_as_published(fg, fg, alpha)
    a = 5 / 255
    assert [int(a * f + (1 - a) * f) for f in range(256)] == same[5, :, 0].tolist()
    assert (same[5, :, 0] != np.arange(256)).any()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 11), (50, 3), (3, 50), (60, 90)])
def test_a_background_covers_its_foreground(height, width):
    for h in range(1, 30):
        bg = np.random.default_rng(h).integers(0, 256, (h, 31 - h, 3), np.uint8)
        fitted = fit_background(bg, (height, width))
        assert fitted.shape == (height, width, 3)
        if h >= height and 31 - h >= width:
            np.testing.assert_array_equal(fitted, bg[:height, :width])


def test_the_enlarged_size_is_rounded_up_as_floats_are():
    """49 / 49.0 * 49 and the like give a little more than a whole number, and the published rule a further pixel."""
    seen = [(bw, w) for bw in range(1, 400) for w in range(bw + 1, 800) if ceil(bw * (w / bw)) != w]
    assert seen  # or this shows nothing
    for bw, w in seen[:5]:
        bg = np.random.default_rng(bw).integers(0, 256, (bw, bw, 3), np.uint8)
        expected = np.asarray(Image.fromarray(bg).resize((w + 1, w + 1), Image.BICUBIC))[:w, :w]
        np.testing.assert_array_equal(fit_background(bg, (w, w)), expected)


def test_lists_say_the_order(folders, dptmat):
    (folders / "fg.txt").write_text("dog\ncat.png\n")
    (folders / "bg.txt").write_bytes(b"3.png\r\n0\r\n\r\n2.jpg\r\n3.png\r\n")
    words = given(folders, each=2, fg_names=folders / "fg.txt", bg_names=folders / "bg.txt")
    assert dptmat("compose", *words)[0] == 0
    for name, stem, k in (("dog_0", "dog", 3), ("dog_1", "dog", 0), ("cat_0", "cat", 2), ("cat_1", "cat", 3)):
        expected = plain_composite(folders / f"fg/{stem}.png", folders / f"alpha/{stem}.png", folders / f"bg/{k}.png")
        np.testing.assert_array_equal(read_image(folders / f"out/merged/{name}.png"), expected)


def test_twenty_backgrounds_each_in_sorted_order(folders):
    for k in range(41):
        make(folders / f"more/{k:02}.png", 2, 2, k)
    compositions = find_compositions(folders / "fg", folders / "alpha", folders / "more", folders / "out")
    assert [composition.foreground.name for composition in compositions] == ["cat", "dog"]
    dealt = [[int(path.stem) for path in composition.backgrounds] for composition in compositions]
    assert dealt == [list(range(20)), list(range(20, 40))]
    done = list(compose_test_set(compositions, folders / "out"))
    assert done == [f"{name}_{i}" for name in ("cat", "dog") for i in range(20)]
    assert listed(folders / "out/merged") == sorted(f"{name}.png" for name in done)


def test_trimaps_are_copied_beside(folders, dptmat):
    assert dptmat("compose", *given(folders, each=1, trimap=folders / "trimap"))[0] == 0
    assert listed(folders / "out/trimaps") == ["cat_0.png", "dog_0.png"]
    for name in ("cat", "dog"):
        copied = np.asarray(Image.open(folders / f"out/trimaps/{name}_0.png"))
        np.testing.assert_array_equal(copied, np.asarray(Image.open(folders / f"trimap/{name}.png")))


def test_pictures_are_taken_as_they_are_stored(folders):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(stored).save(folders / "bg/2.png", exif=exif)
    compositions = find_compositions(folders / "fg", folders / "alpha", folders / "bg", folders / "out", each=2)
    list(compose_test_set(compositions, folders / "out"))
    expected = composite_as_published(
        read_image(folders / "fg/dog.png"), stored[:20, :9], read_alpha(folders / "alpha/dog.png")
    )
    np.testing.assert_array_equal(read_image(folders / "out/merged/dog_0.png"), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--bg {}/bg holds 5 backgrounds; 2 foregrounds with --each 20 need 40: add some or lower --each"),
        ({"each": 3}, "--bg {}/bg holds 5 backgrounds; 2 foregrounds with --each 3 need 6"),
        ({"each": 2, "bg_names": "{}/two.txt"}, "--bg-names {}/two.txt has 2 backgrounds; 2 foregrounds"),
        ({"each": 1, "alpha": "{}/bg"}, "--alpha {}/bg has no partner of cat, dog of --fg {}/fg"),
        ({"each": 1, "trimap": "{}/bg"}, "--trimap {}/bg has no partner of cat, dog of --fg {}/fg"),
        ({"each": 1, "fg_names": "{}/two.txt"}, "--fg-names {}/two.txt has 0.png, which is not in --fg {}/fg"),
        ({"each": 1, "fg_names": "{}/twice.txt"}, "--fg-names {}/twice.txt names cat more than once"),
        ({"each": 1, "fg_names": "{}/empty.txt"}, "--fg-names {}/empty.txt is empty; expected a name per line"),
        ({"each": 1, "fg_names": "{}/none.txt"}, "--fg-names {}/none.txt cannot be read: No such file"),
        ({"each": 1, "bg": "{}/merged", "out": "{}"}, "{}/merged is read and would be written to"),
        ({"each": 0}, "0 is not in the range"),
    ],
)
def test_what_is_refused_before_anything_is_written(folders, dptmat, options, message):
    for name, text in {"two": "0.png\n1.png\n", "twice": "cat\ncat.png\n", "empty": "\n"}.items():
        (folders / f"{name}.txt").write_text(text)
    for k in range(2):
        make(folders / f"merged/{k}.png", 4, 4, k)
    before = listed(folders)
    options = {key: str(value).format(folders) for key, value in options.items()}
    status, printed, error = dptmat("compose", *given(folders, **options))
    assert (status, printed) == (2, "")
    assert message.replace("{}", str(folders)) in error
    assert error.count("\n") == 1
    assert listed(folders) == before


def test_a_stored_profile_is_not_applied(folders):
    """As in the published script: what is composed are the stored values."""
    before = {}
    for path in [*folders.glob("fg/*.png"), *folders.glob("bg/*.png")]:
        before[path] = np.asarray(Image.open(path))
        Image.fromarray(before[path]).save(path, icc_profile=of_colors(ADOBE, 2.2))
    compositions = find_compositions(folders / "fg", folders / "alpha", folders / "bg", folders / "out", each=1)
    list(compose_test_set(compositions, folders / "out"))
    merged, alpha = read_image(folders / "out/merged/cat_0.png"), read_alpha(folders / "alpha/cat.png")
    np.testing.assert_array_equal(merged[alpha == 255], before[folders / "fg/cat.png"][alpha == 255])


def test_a_background_that_would_become_gigantic_is_refused(folders, dptmat):
    make(folders / "fg/cat.png", 1000, 20, 0)
    make(folders / "alpha/cat.png", 1000, 20, 0, channels=1)
    make(folders / "bg/0.png", 1, 60000, 0)
    status, _, error = dptmat("compose", *given(folders, each=1))
    assert (status, error) == (
        2,
        f"dptmat: {folders}/bg/0.png would be enlarged to 60000000 x 1000 pixels to cover cat; the most are "
        "178,956,970: leave it out\n",
    )
    assert not (folders / "out").exists()


def test_what_cannot_help_is_not_advised(folders, dptmat):
    for i in range(4):
        (folders / f"bg/{i}.png").unlink()
    assert "need 40: add some\n" in dptmat("compose", *given(folders))[2]


def test_sizes_that_differ_and_bad_files_end_in_one_line(folders, dptmat):
    make(folders / "alpha/cat.png", 13, 18, 0, channels=1)
    status, _, error = dptmat("compose", *given(folders, each=2))
    assert status == 2
    assert error.splitlines()[-1] == (
        "dptmat: cat: sizes differ: fg 17 x 13, alpha 18 x 13 pixels; make them one width and height"
    )
    make(folders / "alpha/cat.png", 13, 17, 0, channels=1)
    (folders / "bg/1.png").write_text("text")
    status, _, error = dptmat("compose", *given(folders, each=2))
    assert status == 2
    assert not (folders / "out").exists()
    assert error.splitlines()[-1] == f"dptmat: {folders}/bg/1.png is not an image that can be read: it is text"


def test_a_foreground_lies_upright_under_its_matte(folders):
    """Its EXIF orientation counts, as everywhere; the matte has none."""
    fg, alpha = read_image(folders / "fg/dog.png"), read_alpha(folders / "alpha/dog.png")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(np.ascontiguousarray(fg[::-1, ::-1])).save(folders / "fg/dog.png", exif=exif)
    compositions = find_compositions(folders / "fg", folders / "alpha", folders / "bg", folders / "out", each=1)
    list(compose_test_set(compositions, folders / "out"))
    merged = read_image(folders / "out/merged/dog_0.png")
    assert np.array_equal(merged[alpha == 255], fg[alpha == 255])
