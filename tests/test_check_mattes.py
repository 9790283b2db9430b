"""`dptmat check`: each fault is found where it was made, what is clean is not blamed, and the status says the rest."""

import io
import shutil

import cv2
import numpy as np
import pytest
from mattes import shades, soft_disc, write_mattes
from PIL import Image

from dptmat.data.foregrounds import read_foregrounds
from dptmat.data.image_io import write_png
from dptmat.data.matte_faults import HALO, is_multiplied, matte_faults, measure_halo
from dptmat.errors import UserError
from dptmat.tasks.check_mattes import KINDS


def hair(height=300, width=400, seed=0):
    """Alpha of a disc with many thin strands around it, as hair has: uint8 [H, W]."""
    alpha = soft_disc(height, width, 6.0)
    random = np.random.default_rng(seed)
    strands = np.zeros((height, width), np.uint8)
    for angle in random.uniform(0, 2 * np.pi, 150):
        start = np.array([0.55 * width, 0.45 * height])
        end = start + 0.45 * min(height, width) * np.array([np.cos(angle), np.sin(angle)])
        cv2.line(
            strands, tuple(start.astype(int)), tuple(end.astype(int)), int(random.integers(60, 255)), 1, cv2.LINE_AA
        )
    return np.maximum(alpha, strands)


def over(fg, bg, alpha):
    share = alpha[..., None] / 255
    return np.round(share * fg + (1 - share) * bg).astype(np.uint8)


def texture(height, width, seed):
    """Colours that change from pixel to pixel, and slowly."""
    fine = np.random.default_rng(seed + 50).normal(0, 25, (height, width, 3))
    return np.clip(shades(height, width, seed) + fine, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("make", [shades, texture])
@pytest.mark.parametrize(
    "alpha", [hair(), soft_disc(300, 400), soft_disc(300, 400, 90.0)], ids=["hair", "disc", "soft"]
)
def test_colors_that_do_not_follow_alpha_have_no_halo(make, alpha):
    for seed in range(5):
        assert measure_halo(make(300, 400, seed), alpha) < HALO, seed


@pytest.mark.parametrize("alpha", [hair(), soft_disc(300, 400)], ids=["hair", "disc"])
def test_an_old_background_that_shines_through_is_a_halo(alpha):
    """Also one that is darker on one side and brighter on the other, and one as bright in another colour."""
    fg = np.full((300, 400, 3), 128, np.uint8)
    split = np.full_like(fg, 40)
    split[:, 220:] = 216
    tinted = np.full((300, 400, 3), (60, 160, 138), np.uint8)
    for bg in (np.zeros_like(fg), np.full_like(fg, 255), split, tinted):
        assert measure_halo(over(fg, bg, alpha), alpha) > HALO
        half = over(fg, over(fg, bg, np.full_like(alpha, 100)), alpha)  # of which some is left
        assert measure_halo(half, alpha) > 0.5 * measure_halo(over(fg, bg, alpha), alpha) - 0.01
    # What lies below empty pixels does not count: black, white, or the photograph.
    for fill in (0, 255):
        filled = np.where(alpha[..., None] == 0, fill, fg).astype(np.uint8)
        assert measure_halo(filled, alpha) < HALO


def test_a_halo_is_measured_alike_at_any_size():
    alpha = hair(600, 800)
    colors = over(shades(600, 800, 1), shades(600, 800, 2), alpha)
    large = [cv2.resize(each, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC) for each in (colors, alpha)]
    assert measure_halo(*large) == pytest.approx(measure_halo(colors, alpha), rel=0.1)


def test_nothing_to_measure_on_is_no_halo():
    colors = shades(60, 80, 0)
    for alpha in (np.zeros((60, 80), np.uint8), np.full((60, 80), 255, np.uint8), np.eye(60, 80, dtype=np.uint8) * 255):
        assert measure_halo(colors, alpha) == 0
    assert measure_halo(colors[:1, :1], np.full((1, 1), 128, np.uint8)) == 0


def test_multiplied_colors_are_told_from_straight_ones():
    alpha = hair()
    fg = shades(300, 400, 3)
    assert is_multiplied(over(fg, np.zeros_like(fg), alpha), alpha)
    assert not is_multiplied(fg, alpha)
    assert not is_multiplied(over(fg, np.full_like(fg, 90), alpha), alpha)
    assert not is_multiplied(fg // 8, alpha)  # a dark one


def jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("quality", [75, 90, 97])
def test_what_jpeg_leaves_around_an_edge_is_noise(quality):
    for alpha in (hair(), soft_disc(300, 400, 3.0)):
        assert "noise" not in matte_faults(alpha)
        assert "noise" in matte_faults(jpeg(alpha, quality))


def test_a_slow_rise_of_alpha_is_no_noise():
    for softness in (200.0, 500.0, 1500.0):
        assert "noise" not in matte_faults(soft_disc(600, 900, softness))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda alpha: np.where(alpha > 127, 255, 0), "mask"),
        (lambda alpha: alpha * 0, "useless"),
        (lambda alpha: alpha * 0 + 255, "useless"),
        (lambda alpha: alpha // 2, "not opaque"),
        (lambda alpha: alpha // 2 + 100, "not empty"),
        (lambda alpha: 255 - alpha, "inverted"),
    ],
)
def test_unusual_values_of_alpha_are_named(change, kind):
    for alpha in (hair(), soft_disc(90, 70)):
        assert matte_faults(alpha) == {}
        assert kind in matte_faults(change(alpha).astype(np.uint8))


def test_a_portrait_that_touches_three_borders_is_not_inverted():
    alpha = np.full((90, 60), 255, np.uint8)
    alpha[:25] = 0
    assert "inverted" not in matte_faults(alpha)


@pytest.fixture
def folders(tmp_path):
    """Four foregrounds and alphas that nothing is wrong with, and 40 backgrounds."""
    fg, alpha = write_mattes(tmp_path, [(300, 400)] * 4, 10.0)
    (tmp_path / "bg").mkdir()
    for i in range(40):
        cv2.imwrite(str(tmp_path / f"bg/{i}.jpg"), shades(70, 80, 100 + i))
    shutil.rmtree(alpha)
    for i in range(4):
        write_png(alpha / f"{i}.png", hair(seed=i))
    return fg, alpha, tmp_path / "bg"


def check(dptmat, *words):
    status, printed, error = dptmat("check", *words, "--size", "256")
    assert "Traceback" not in error
    return status, printed


def test_nothing_is_said_of_what_is_clean(dptmat, folders, tmp_path):
    fg, alpha, bg = folders
    status, printed = check(dptmat, "--fg", fg, "--alpha", alpha, "--bg", bg, "--out", tmp_path / "look.png")
    counts = "fg 4 files, alpha 4 files, bg 40 files; 4 of 4 foregrounds can be trained on\n"
    assert (status, printed) == (0, f"{counts}{tmp_path / 'look.png'}\n")
    assert cv2.imread(str(tmp_path / "look.png")).shape == (4 * 224, 600, 3)


def remove(name):
    return lambda fg, alpha, bg: (alpha / name).unlink()


def rename(to):
    return lambda fg, alpha, bg: (alpha / "0.png").rename(alpha / to)


def cut(fg, alpha, bg):
    (alpha / "0.png").write_bytes((alpha / "0.png").read_bytes()[:500])


def rewrite(edit):
    """What changes the first alpha and its colours."""

    def change(fg, alpha, bg):
        colors, matte = edit(cv2.imread(str(fg / "0.png")), cv2.imread(str(alpha / "0.png"), 0))
        cv2.imwrite(str(fg / "0.png"), colors)
        cv2.imwrite(str(alpha / "0.png"), matte)

    return change


MADE = {
    "no matte": (1, remove("0.png"), "there is no alpha 0"),
    "no matte nearly": (1, rename("0_Alpha.png"), "0_Alpha.png is nearly of its name"),
    "no matte zipped": (1, rename("alpha\\0.png"), "is nearly of its name"),
    "no foreground": (1, lambda fg, alpha, bg: (fg / "0.png").unlink(), "there is none named 0"),
    "unreadable": (1, cut, "alpha/0.png: cannot be read: it ends before its end"),
    "unreadable page": (
        1,
        lambda fg, alpha, bg: (fg / "0.png").write_bytes(b"<!DOCTYPE html>\n"),
        "it is an HTML page",
    ),
    "sizes differ": (1, rewrite(lambda colors, matte: (colors, matte[:-3])), "fg 400 x 300, alpha 400 x 297 pixels"),
    "useless": (1, rewrite(lambda colors, matte: (colors, matte * 0)), "alpha is 0 everywhere"),
    "inverted": (0, rewrite(lambda colors, matte: (colors, 255 - matte)), "the border of the image is 100% opaque"),
    "multiplied": (0, rewrite(lambda colors, matte: (over(colors, colors * 0, matte), matte)), "0.png: "),
    "halo": (0, rewrite(lambda colors, matte: (over(colors, 255 - colors, matte), matte)), "range follow alpha"),
    "noise": (0, rewrite(lambda colors, matte: (colors, jpeg(matte, 80))), "are almost 0 or 255 far from an edge"),
    "mask": (0, rewrite(lambda colors, matte: (colors, matte // 128 * 255)), "alpha holds 0 and 255 alone"),
    "not opaque": (0, rewrite(lambda colors, matte: (colors, matte // 2)), "the largest alpha is 127"),
    "not empty": (0, rewrite(lambda colors, matte: (colors, matte // 2 + 127)), "the least alpha is 127"),
    "small": (0, rewrite(lambda colors, matte: (colors[:50, :50], hair(50, 50))), "50 x 50 pixels, for crops of 256"),
    "twice": (0, lambda fg, alpha, bg: shutil.copy(fg / "1.png", fg / "0.png"), "the same bytes as"),
    "two mattes": (
        0,
        lambda fg, alpha, bg: write_png(fg / "0.png", np.dstack([shades(300, 400, 0), hair(seed=9)])),
        "",
    ),
    "background too": (0, lambda fg, alpha, bg: shutil.copy(fg / "0.png", bg / "zebra.png"), "zebra.png"),
    "few backgrounds": (0, lambda fg, alpha, bg: (bg / "7.jpg").unlink(), "39, where a step of 40 samples"),
}


@pytest.mark.parametrize("made", MADE)
def test_a_fault_is_named_with_its_file_and_the_others_are_not_blamed(dptmat, folders, made):
    wanted, change, detail = MADE[made]
    change(*folders)
    fg, alpha, bg = folders
    status, printed = check(dptmat, "--fg", fg, "--alpha", alpha, "--bg", bg)
    kind = next(kind for kind in KINDS if made.startswith(kind))
    lines = printed.splitlines()
    lines = lines[: lines.index("")]
    assert any(line.startswith(f"{kind}: ") and detail in line for line in lines), printed
    assert all("1.png" not in line.split(": ")[1] for line in lines if kind != "twice"), printed
    assert status == wanted, printed
    assert f"\n{kind}  " in printed  # in the table


def test_kinds_without_a_test_there_are_none():
    assert set(KINDS) == {next(kind for kind in KINDS if made.startswith(kind)) for made in MADE} | {"no alpha channel"}


@pytest.mark.parametrize("made", [made for made, (status, *_) in MADE.items() if made not in ("two mattes",)])
def test_it_says_what_fine_tuning_does(dptmat, folders, made):
    """A status of 0 where all foregrounds are taken, and 1 where fine-tuning refuses or leaves some out."""
    wanted, change, _ = MADE[made]
    change(*folders)
    fg, alpha, _ = folders
    try:
        good, empty = read_foregrounds(fg, alpha)
        takes_all = len(good) == len(list(alpha.iterdir())) and not empty
    except UserError:
        takes_all = False
    assert takes_all == (wanted == 0)


def test_cut_outs_with_litter_one_photograph_and_capital_letters(dptmat, folders, tmp_path):
    (tmp_path / "cutouts/below").mkdir(parents=True)
    for i, name in enumerate(("0.PNG", "1.webp", "below/2.tif")):
        image = Image.fromarray(np.dstack([shades(300, 400, i), hair(seed=i)]))
        image.save(tmp_path / "cutouts" / name, **({"lossless": True} if "webp" in name else {}))
    for name in ("Thumbs.db", ".DS_Store", "._1.webp"):
        (tmp_path / "cutouts" / name).write_bytes(b"\0\5\x16\7")
    assert check(dptmat, "--fg", tmp_path / "cutouts")[0] == 0
    cv2.imwrite(str(tmp_path / "cutouts/photo.jpg"), shades(300, 400, 5))
    status, printed = check(dptmat, "--fg", tmp_path / "cutouts")
    assert status == 1
    assert f"no alpha channel: {tmp_path / 'cutouts/photo.jpg'}: a JPEG file" in printed
    assert "3 of 4 foregrounds can be trained on" in printed


def test_many_faults_of_a_kind_are_counted_and_the_worst_come_first(dptmat, tmp_path):
    for i in range(14):
        fg = np.full((300, 400, 3), 120, np.uint8)
        matte = hair(seed=i)
        write_png(tmp_path / f"in/{i:02}.png", np.dstack([over(fg, fg + 9 * i, matte), matte]))
    _, printed = check(dptmat, "--fg", tmp_path / "in")
    named = [line for line in printed.splitlines() if line.startswith("halo: ")]
    shares = [int(line.split(": ")[2].split("%")[0]) for line in named if "%" in line]
    assert len(shares) <= 10
    assert shares == sorted(shares, reverse=True)
    assert "13.png" in named[0]
    assert not any("/00.png" in line or "/01.png" in line for line in named)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--fg is missing; give foregrounds"),
        (["--fg", "gone"], "--fg gone does not exist"),
        (["--fg", "fg"], "no foreground of --fg fg has an alpha channel, such as fg/0.png"),
        (["--fg", "fg", "--alpha", "bg"], "no foreground of --fg fg has a partner in --alpha bg"),
        (["--fg", "fg", "--alpha", "alpha", "--out", "fg/0.png"], "--out fg/0.png is the file of 0; give another name"),
        (["--fg", "fg", "--alpha", "alpha", "--out", "look.txt"], "is not the name of an image that OpenCV writes"),
        (["--fg", "fg", "--alpha", "alpha", "--bg", "gone"], "--bg gone"),
        (["--data", "fg"], "--data fg is laid out like no known data set to train on: train/blurred_image"),
    ],
)
def test_what_cannot_be_checked_is_said_in_a_line(dptmat, folders, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "bg").iterdir():
        path.rename(path.with_stem(f"photo {path.stem}"))
    status, _, error = dptmat("check", *words)
    assert status == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1
