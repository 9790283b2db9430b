"""Data sets of known layouts: cut-outs are made of their photographs, and trained on."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mattes import shades, soft_disc
from PIL import Image

from dptmat.data.matte_faults import HALO
from dptmat.data.training_sets import LAYOUTS, choose_foregrounds, find_foregrounds, find_photographs
from dptmat.errors import UserError
from dptmat.tasks.check_mattes import check_mattes, find_mattes

pytestmark = pytest.mark.usefixtures("freed")


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout[0])
def data(request, tmp_path):
    """A data set of two photographs of a known layout."""
    name, photographs, alphas = request.param
    for folder in (photographs, alphas):
        (tmp_path / name / folder).mkdir(parents=True)
    for i in range(2):
        alpha = soft_disc(300, 360 + i, 8.0)
        share = alpha[..., None] / 255
        photograph = share * shades(300, 360 + i, i) + (1 - share) * (255 - shades(300, 360 + i, i))
        cv2.imwrite(str(tmp_path / name / photographs / f"p_{i}.jpg"), photograph, [cv2.IMWRITE_JPEG_QUALITY, 98])
        cv2.imwrite(str(tmp_path / name / alphas / f"p_{i}.png"), alpha)
    return tmp_path / name


def test_what_a_data_set_lacks_is_made_by_the_command_that_the_message_names(dptmat, data):
    with pytest.raises(UserError, match="no foregrounds with colours of their own; make them once: dptmat") as told:
        find_foregrounds(data)
    words = str(told.value).split("dptmat cutout ")[1].split()
    status, printed, _ = dptmat("cutout", *words)
    assert status == 0
    assert "2 cut-outs, 0 left out" in printed
    assert find_foregrounds(data) == (data / "train/cutout", None)
    for i in range(2):
        made = np.asarray(Image.open(data / f"train/cutout/p_{i}.png"))
        assert np.array_equal(made[..., 3], soft_disc(300, 360 + i, 8.0))
    halos = [each.halo for each in check_mattes(find_mattes(data / "train/cutout").cases)]
    photographs, alphas = find_photographs(data)
    assert max(halos) < HALO < min(each.halo for each in check_mattes(find_mattes(photographs, alphas).cases))


def test_foregrounds_of_the_authors_code_are_taken_with_the_alphas(data):
    (data / "train/fg").mkdir()
    assert find_foregrounds(data) == (data / "train/fg", data / "train/mask")


def test_what_is_named_wins_over_a_data_set(data):
    assert choose_foregrounds(data, "mine", None) == ("mine", None)
    assert choose_foregrounds(data, "mine", "alphas") == ("mine", "alphas")
    for given in ((None, None, None), (None, None, "alphas"), (data, None, "alphas")):
        with pytest.raises(UserError, match="`fg` is missing"):
            choose_foregrounds(*given)


@pytest.mark.slow
def test_a_data_set_is_trained_on_by_its_name(dptmat, data, tmp_path):
    assert dptmat("cutout", "--data", data, "--out", data / "train/cutout")[0] == 0
    (tmp_path / "bg").mkdir()
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"bg/{i}.png"), shades(110, 100, 10 + i))
    words = ["--size", "64", "--batch-size", "2", "--model", "unet_resnet10t", "--init", "random", "--device", "cpu"]
    words += ["--steps", "1", "--bg", tmp_path / "bg", "--out", tmp_path / "run"]
    status, printed, error = dptmat("finetune", "--data", data, *words)
    assert status == 0, error
    assert "2 foregrounds over 2 backgrounds" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image", "a"], "give --image and --alpha, or --data alone"),
        (["--data", "a", "--image", "a", "--alpha", "a"], "give --image and --alpha, or --data alone"),
        (["--data", "gone"], "--data gone is no folder"),
        (["--image", "a", "--alpha", "b"], "has no partner of 1 of --image a"),
        (["--image", "a", "--alpha", "a", "--out", "a"], "a is read and would be written to as well"),
        (["--image", "a", "--alpha", "a", "--out", "note.txt"], "--out note.txt is a file"),
    ],
)
def test_what_cannot_be_cut_out_is_said_in_a_line(dptmat, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    for folder, names in (("a", "01"), ("b", "0")):
        Path(folder).mkdir()
        for name in names:
            cv2.imwrite(f"{folder}/{name}.png", soft_disc(60, 80))
    Path("note.txt").write_text("mine\n")
    status, _, error = dptmat("cutout", *words, *([] if "--out" in words else ["--out", "out"]))
    assert status == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert Path("note.txt").read_text() == "mine\n"


def test_a_photograph_that_cannot_be_cut_out_is_named_and_the_others_are(dptmat, tmp_path):
    for folder in ("image", "alpha"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            picture = soft_disc(60, 80) if folder == "alpha" else shades(60, 80, i)
            cv2.imwrite(str(tmp_path / folder / f"{i}.png"), picture)
    cv2.imwrite(str(tmp_path / "alpha/1.png"), soft_disc(60, 81))
    (tmp_path / "image/2.png").write_bytes(b"no picture\n")
    words = ["--image", tmp_path / "image", "--alpha", tmp_path / "alpha", "--out", tmp_path / "out"]
    status, printed, error = dptmat("cutout", *words)
    assert status == 1
    assert "1 cut-outs, 2 left out" in printed
    assert "left out: 1: sizes differ" in error
    assert "left out: 2: " in error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0.png"]
