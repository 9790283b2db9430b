"""Means by group: as AIM-500's table has them, and what is wrong with a file of groups is told in one line."""

import pytest

from dptmat.data.groups import read_groups
from dptmat.defaults import ERRORS
from dptmat.errors import UserError
from dptmat.tasks.evaluate import _mean_of_group, mean_of_groups, mean_scores
from dptmat.tasks.score import Score

# Published for AIM-500: images of each category, and the mean SAD of "AimNet (paper)" over the whole image.
AIM_500 = {
    "animal": (200, 26.39), "portrait": (100, 24.68), "transparent": (34, 148.68), "plant": (75, 54.03),
    "furniture": (45, 62.70), "toy": (36, 53.15), "fruit": (10, 37.17),
}  # fmt: skip


def test_the_published_table_of_aim_500():
    rest = dict.fromkeys(ERRORS, 0.0)
    images = [
        Score(f"{group}{i}", None, None, None, None, None, region_pixels=9, group=group, **rest | {"sad": sad})
        for group, (count, sad) in AIM_500.items()
        for i in range(count)
    ]
    groups = {group: _mean_of_group(group, images) for group in AIM_500}
    assert {group: means["images"] for group, means in groups.items()} == {k: n for k, (n, _) in AIM_500.items()}
    assert mean_of_groups(groups)["sad"] == pytest.approx(58.11, abs=0.005)
    assert mean_scores(images)["sad"] == pytest.approx(43.92, abs=0.005)


@pytest.mark.parametrize(
    "text",
    [
        "name,group\na,SO\nb,NS\n", "\ufeffname,group\r\na,SO\r\nb,NS\r\n",
        "Group , NAME,note\nSO,a.png,x\nNS,b.JPG,\n\n",
        'name,group\n"a","SO"\nb, NS\n',
    ],
)  # fmt: skip
def test_names_and_groups_are_read(tmp_path, text):
    (tmp_path / "g.csv").write_text(text, encoding="utf-8", newline="")
    assert read_groups(tmp_path / "g.csv", ["a", "b"]) == {"a": "SO", "b": "NS"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a,SO\nb,NS\n", "must begin with a row name,group that names its columns; it begins with 'a,SO'"),
        (b"name;group\na;SO\n", "separates its columns by semicolons; save it with commas"),
        (b"name\tgroup\na\tSO\n", "separates its columns by tabs"),
        (b"name,group\na,SO\n", "has no group of b; give each image of the test set a line"),
        (b"name,group\na,SO\na,NS\nb,NS\n", "names a more than once"),
        (b"name,group\na\nb,NS\n", "line 2 gives a no group"),
        ("name,group\n".encode("utf-16"), "is text in UTF-16; give a CSV file in UTF-8"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG file; give a CSV file"),
    ],
)
def test_what_is_no_file_of_groups_is_told(tmp_path, content, message):
    (tmp_path / "g.csv").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_groups(tmp_path / "g.csv", ["a", "b"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_no_image_are_named_and_left_out(tmp_path, caplog):
    (tmp_path / "g.csv").write_text("name,group\na,SO\nz,SO\n")
    assert read_groups(tmp_path / "g.csv", ["a"]) == {"a": "SO"}
    assert "1 names are of no image and left out: z" in caplog.text
