"""`dptmat trimap`: files in, files of the same names out, of the widths that were asked for; the useless is told."""

import cv2
import numpy as np
import pytest
from mattes import shades, soft_disc
from PIL import Image

from dptmat.data.image_io import read_trimap, write_png
from dptmat.errors import UserError
from dptmat.tasks.make_trimaps import Width, read_width


def box(height=60, width=100):
    """A mask of a box in the middle, from a quarter to three quarters of each side: uint8 [H, W]."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = 255
    return mask


@pytest.fixture
def mattes(tmp_path):
    """Folder of three mattes, two of them in a subfolder."""
    for i, name in enumerate(("b", "clip/a", "clip/c")):
        write_png(tmp_path / f"alpha/{name}.png", soft_disc(60, 80 + i))
    return tmp_path / "alpha"


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_with_subfolders_gives_the_same_names(dptmat, mattes, tmp_path):
    status, printed, _ = dptmat("trimap", "--alpha", mattes, "--width", 3, "--out", tmp_path / "out")
    assert status == 0
    assert "3 trimaps, 0 left out; unknown " in printed
    assert written(tmp_path / "out") == ["b.png", "clip/a.png", "clip/c.png"]
    for name in written(tmp_path / "out"):
        stored = np.asarray(Image.open(tmp_path / "out" / name))
        assert stored.dtype == np.uint8
        assert set(np.unique(stored)) == {0, 128, 255}
        alpha = np.asarray(Image.open(mattes / name))
        assert (alpha[stored == 255] == 255).all()
        assert (alpha[stored == 0] == 0).all()
        assert (stored[(alpha > 0) & (alpha < 255)] == 128).all()


def test_a_list_and_a_single_file(dptmat, mattes, tmp_path):
    (tmp_path / "list.txt").write_text("alpha/clip/a.png\nalpha/b.png\n")
    assert dptmat("trimap", "--mask", tmp_path / "list.txt", "--width", 3, "--out", tmp_path / "out")[0] == 0
    assert dptmat("trimap", "--mask", mattes / "clip/c.png", "--width", 3, "--out", tmp_path / "one")[0] == 0
    assert written(tmp_path / "out") == ["a.png", "b.png"]
    assert written(tmp_path / "one") == ["c.png"]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("options", "inward", "outward"),
    [
        (["--width", "4"], 4, 4),
        (["--width", "4%"], 8, 8),
        (["--inward", "0", "--outward", "6"], 0, 6),
        (["--inward", "2.5%", "--outward", "3"], 5, 3),
        (["--width", "7", "--inward", "2"], 2, 7),
        (["--width", "7", "--outward", "0%"], 7, 0),
    ],
)
def test_widths_of_either_side_in_pixels_or_of_the_longer_side(dptmat, tmp_path, options, inward, outward, turned):
    mask = box(120, 200)
    write_png(tmp_path / "m.png", mask.T if turned else mask)
    assert dptmat("trimap", "--mask", tmp_path / "m.png", *options, "--out", tmp_path / "out")[0] == 0
    trimap = read_trimap(tmp_path / "out/m.png")
    row = (trimap.T if turned else trimap)[60]
    # From the left: background up to the box at 50 less the width, unknown, foreground from 50 and the width on.
    assert (row == 0).argmin() == 50 - outward
    assert (row == 2).argmax() == 50 + inward
    assert (row == 2).sum() == 100 - 2 * inward


@pytest.mark.parametrize("text", ["-1", "", "x", "2,5%", "1e3", "nan", "inf", "101%", "%", "10px", "5 %", "٣", "-0"])
@pytest.mark.parametrize("option", ["width", "inward", "outward"])
def test_what_is_no_width_is_refused(dptmat, mattes, tmp_path, text, option):
    words = ["--width", "3", f"--{option}={text}", "--out", tmp_path / "out"]
    status, _, error = dptmat("trimap", "--alpha", mattes, *words)
    assert status == 2
    assert error.startswith(f"dptmat: --{option} must be a number of pixels from 0, such as 10,")
    assert not (tmp_path / "out").exists()


def test_a_width_is_of_the_longer_side():
    assert read_width("width", "2%") == Width(0.02, relative=True)
    assert read_width("width", "2%").pixels((600, 800)) == read_width("width", "2%").pixels((800, 600)) == 16
    assert read_width("width", "12.5").pixels((600, 800)) == 12.5
    with pytest.raises(UserError, match="`inward` must be"):
        read_width("inward", "two")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --width, such as 2%, or both --inward and --outward"),
        (["--inward", "3"], "give --width, such as 2%, or both --inward and --outward"),
        (["--width", "3", "--mask", "alpha"], "give one of --alpha, true alphas, and --mask"),
        (["--width", "3", "--image", "alpha"], "--image is for the sheet alone; give --sheet"),
        (["--width", "3", "--sheet", "sheet.txt"], "is not the name of an image that OpenCV writes"),
        (["--width", "3", "--sheet", "gone/sheet.png"], "--sheet gone/sheet.png is a folder or in none"),
        (["--width", "3", "--sheet", "alpha/b.png"], "--sheet alpha/b.png is the file of b; give another name"),
        (["--width", "3", "--sheet", "out/b.png"], "--sheet out/b.png is the file of b; give another name"),
        (["--width", "3", "--sheet", "alpha/clip/../b.png"], "is the file of b; give another name"),
        (["--width", "3", "--sheet", "note.png"], "--sheet note.png is there already and is text"),
        (["--width", "3", "--out", "alpha"], "alpha is read and would be written to as well"),
        (["--width", "3", "--out", "note.png"], "--out note.png is a file"),
        (["--width", "3", "--out", "twin"], "--alpha alpha holds both b.bmp and b.png; keep one"),
        (["--width", "3", "--sheet", "s.png", "--image", "few"], "--image few has no partner of clip/a, clip/c"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(dptmat, mattes, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "note.png").write_text("a note of mine\n")
    write_png(tmp_path / "few/b.png", shades(60, 80, 0))
    if "twin" in options:
        cv2.imwrite("alpha/b.bmp", soft_disc(60, 80))
    before = {path: (tmp_path / path).read_bytes() for path in written(tmp_path)}
    status, _, error = dptmat("trimap", "--alpha", "alpha", "--out", "out", *options)
    assert status == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert {path: (tmp_path / path).read_bytes() for path in written(tmp_path)} == before


BAD = {
    "empty": (np.zeros((40, 50), np.uint8), "is empty: no pixel is foreground"),
    "full": (np.full((40, 50), 255, np.uint8), "is full: every pixel is foreground"),
    "trimap": (np.where(soft_disc(40, 50) % 255 > 0, 128, soft_disc(40, 50)).astype(np.uint8), "is a trimap already"),
    "ones": (box() // 255, "has no value above 1"),
    "filled": (soft_disc(9, 9), "leaves nothing known with 20 pixels inward and 20 outward"),
    "colours": (shades(40, 50, 0), "has colours; expected one grey channel"),
}


@pytest.mark.parametrize("kind", ["alpha", "mask"])
def test_what_gives_no_useful_trimap_is_left_out_by_name(dptmat, tmp_path, kind):
    write_png(tmp_path / "in/good.png", box(200, 300))
    for name, (content, _) in BAD.items():
        write_png(tmp_path / f"in/{name}.png", content)
    status, printed, error = dptmat("trimap", f"--{kind}", tmp_path / "in", "--width", 20, "--out", tmp_path / "out")
    assert status == 1
    assert f"1 trimaps, {len(BAD)} left out" in printed
    assert written(tmp_path / "out") == ["good.png"]
    for name, (_, message) in BAD.items():
        (line,) = (line for line in error.splitlines() if line.startswith(f"left out: {name}: "))
        assert message in line
        assert f"{name}.png" in line


def test_only_bad_ones_end_with_2_and_no_sheet(dptmat, tmp_path):
    write_png(tmp_path / "in/a.png", box())
    words = ["--mask", tmp_path / "in", "--width", 0, "--out", tmp_path / "out", "--sheet", tmp_path / "s.png"]
    status, _, error = dptmat("trimap", *words)
    assert status == 2
    assert "a.png leaves nothing unknown with 0 pixels inward and 0 outward; take more" in error
    assert written(tmp_path) == ["in/a.png"]


def test_an_image_of_another_size_is_left_out(dptmat, mattes, tmp_path):
    for i, name in enumerate(("b", "clip/a", "clip/c")):
        write_png(tmp_path / f"image/{name}.png", shades(60, 80 + min(i, 1), i))
    words = ["--width", 3, "--out", tmp_path / "out", "--sheet", tmp_path / "s.png", "--image", tmp_path / "image"]
    status, _, error = dptmat("trimap", "--alpha", mattes, *words)
    assert status == 1
    assert "left out: clip/c: sizes differ: alpha 82 x 60, image 81 x 60 pixels" in error
    assert written(tmp_path / "out") == ["b.png", "clip/a.png"]


def test_a_matte_given_as_a_mask_and_a_part_that_is_gone_are_told(dptmat, tmp_path):
    faint = box()
    faint[5, 5:90] = 100
    write_png(tmp_path / "hair.png", faint)
    status, _, error = dptmat("trimap", "--mask", tmp_path / "hair.png", "--width", 2, "--out", tmp_path / "out")
    assert status == 0
    assert "hair: 85 grey pixels of mask" in error
    assert "if it is an alpha matte, give it as --alpha" in error
    _, _, error = dptmat("trimap", "--alpha", tmp_path / "hair.png", "--width", 2, "--out", tmp_path / "out")
    assert error.strip() == ""
    assert (read_trimap(tmp_path / "out/hair.png")[5, 5:90] == 1).all()
    words = ["--inward", 40, "--outward", 2, "--out", tmp_path / "out"]
    status, _, error = dptmat("trimap", "--alpha", tmp_path / "hair.png", *words)
    assert status == 0
    assert "hair: the trimap has no foreground: in alpha" in error


@pytest.mark.parametrize("with_image", [False, True])
def test_a_sheet_shows_matte_trimap_and_what_is_unknown(dptmat, tmp_path, with_image):
    mask = box(80, 160)
    write_png(tmp_path / "mask/a.png", mask)
    write_png(tmp_path / "image/a.png", np.full((80, 160, 3), (200, 100, 0), np.uint8))
    image = ["--image", tmp_path / "image"] if with_image else []
    words = ["--mask", tmp_path / "mask", "--width", 10, "--out", tmp_path / "out", "--sheet", tmp_path / "s.png"]
    status, printed, _ = dptmat("trimap", *words, *image)
    assert status == 0
    assert printed.endswith(f"{tmp_path / 's.png'}\n")
    sheet = cv2.imread(str(tmp_path / "s.png"))[..., ::-1]
    assert sheet.shape == (224, 600, 3)
    # Small images keep their size: 160 x 80 pixels in the middle of each tile of 200 x 200, below a caption of 24.
    shown = [sheet[24 + 60 : 24 + 140, 200 * i + 20 : 200 * i + 180] for i in range(3)]
    np.testing.assert_array_equal(shown[0], np.repeat(mask[..., None], 3, 2))
    trimap = cv2.imread(str(tmp_path / "out/a.png"), 0)
    np.testing.assert_array_equal(shown[1], np.repeat(trimap[..., None], 3, 2))
    below = np.full((80, 160, 3), (200, 100, 0), np.uint8) if with_image else shown[0]
    unknown = trimap == 128
    np.testing.assert_array_equal(shown[2][unknown], below[unknown])
    assert (shown[2][~unknown] != below[~unknown]).any(axis=1).all()


def test_a_sheet_shows_24_of_many_spread_evenly(dptmat, tmp_path):
    for i in range(50):
        write_png(tmp_path / f"mask/{i:02}.png", box(20, 20 + 2 * i))
    words = ["--mask", tmp_path / "mask", "--width", 1, "--out", tmp_path / "out", "--sheet", tmp_path / "s.png"]
    assert dptmat("trimap", *words)[0] == 0
    assert len(written(tmp_path / "out")) == 50
    sheet = cv2.imread(str(tmp_path / "s.png"))
    assert sheet.shape == (224 * 12, 1200, 3)
    # The middle row of a mask in its tile is as wide as the mask, between grey.
    middles = [sheet[224 * (i % 12) + 124, 600 * (i // 12) :][:200, 0] for i in range(24)]
    widths = [int((row != 160).sum()) for row in middles]
    assert widths == [20 + 2 * (i * 50 // 24) for i in range(24)]


def test_a_sheet_of_five_leaves_a_place_white(dptmat, tmp_path):
    for i in range(5):
        write_png(tmp_path / f"mask/{i}.png", box())
    words = ["--mask", tmp_path / "mask", "--width", 1, "--out", tmp_path / "out", "--sheet", tmp_path / "s.png"]
    assert dptmat("trimap", *words)[0] == 0
    sheet = cv2.imread(str(tmp_path / "s.png"))
    assert sheet.shape == (224 * 3, 1200, 3)
    assert (sheet[-224:, 600:] == 255).all()
    np.testing.assert_array_equal(sheet[248:424, :200], sheet[24:200, :200])
