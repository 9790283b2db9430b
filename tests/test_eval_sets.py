"""Test sets are found by the layouts in which they are published."""

from dataclasses import replace

import pytest

from dptmat.data.cases import Case
from dptmat.data.eval_sets import list_cases
from dptmat.errors import UserError


@pytest.fixture
def folders(tmp_path):
    """Folder of image/, alpha/ and trimap/, each with a file of three names; nothing reads them."""
    for folder in ("image", "alpha", "trimap"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        for name in "abc":
            (tmp_path / f"set/{folder}/{name}.png").touch()
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("image", "alpha", "trimap"),
    [
        ("merged", "alpha_copy", "trimaps"),
        ("image", "alpha", "trimap"),
        ("input_training_lowres", "gt_training_lowres", "trimap_training_lowres/Trimap1"),
        ("original", "mask", "trimap"),
        ("blurred_image", "mask", "trimap"),
        ("original_image", "mask", "trimap"),
        ("merged", "alpha_copy", None),
        ("merged", "alpha", None),
        ("merged", "GT", None),
        ("image", "GT", None),
        ("image", "alpha", None),
    ],
)
def test_layouts_of_known_test_sets(folders, tmp_path, image, alpha, trimap):
    for source, folder in (("image", image), ("alpha", alpha), ("trimap", trimap)):
        if folder:
            (tmp_path / "known" / folder).parent.mkdir(parents=True, exist_ok=True)
            (folders / source).rename(tmp_path / "known" / folder)
    data = tmp_path / "known"
    if trimap is None:
        with pytest.raises(UserError, match=f"`trimap` is missing in `data` {data}; give a folder, or all-unknown or"):
            list_cases(data=data)
    cases = list_cases(data=data, trimap=None if trimap else "from-alpha")
    expected = Case("a", image=data / image / "a.png", alpha=data / alpha / "a.png")
    assert cases[0] == replace(expected, trimap=data / trimap / "a.png" if trimap else None)


@pytest.mark.parametrize("name", ["trimap", "trimaps"])
@pytest.mark.parametrize(
    ("image", "alpha"), [("merged", "alpha"), ("merged", "GT"), ("image", "GT"), ("original", "mask")]
)
def test_trimaps_beside_a_test_set_that_comes_without_are_used(folders, image, alpha, name):
    for source, folder in (("image", image), ("alpha", alpha), ("trimap", name)):
        (folders / source).rename(folders / folder)
    (case, *_) = list_cases(data=folders)
    assert case == Case("a", folders / image / "a.png", folders / name / "a.png", folders / alpha / "a.png")
    (case, *_) = list_cases(data=folders, trimap="from-alpha")
    assert case.trimap is None


def test_the_image_of_a_prediction_is_found_where_there_is_one(folders):
    """The folders of alphas and trimaps alone leave AIM-500 and P3M-500 open."""
    (folders / "alpha").rename(folders / "mask")
    (case, *_) = list_cases(data=folders, predictions=folders / "mask")
    assert case.paths.keys() == {"alpha", "trimap", "prediction"}
    (folders / "image").rename(folders / "blurred_image")
    (case, *_) = list_cases(data=folders, predictions=folders / "mask")
    assert case.image == folders / "blurred_image/a.png"


def test_explicit_folders_win_over_the_layout(folders):
    (folders / "alpha").rename(folders / "mattes")
    (case, *_) = list_cases(data=folders, alpha=folders / "mattes")
    assert case.alpha == folders / "mattes/a.png"
    assert case.trimap == folders / "trimap/a.png"
    (case, *_) = list_cases(data=folders, alpha=folders / "mattes", trimap="all-unknown")
    assert case.trimap is None
