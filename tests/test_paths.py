"""Paths as a graph takes them, and what is wrong with a file that shows before it is decoded."""

import os

import numpy as np
import pytest

from dptmat.pipelines.paths import claims_too_much, encode_path, find_unopened


@pytest.fixture
def bad(tmp_path):
    """Paths by what is wrong with them."""
    paths = {name: str(tmp_path / name) for name in ("missing", "empty", "folder", "pipe", "text")}
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_bytes(b"text" * 100)
    return paths


def test_what_cannot_be_opened_is_told_and_the_rest_is_not(bad, photographs):
    good = str(sorted(photographs.iterdir())[0])
    assert list(find_unopened([good, *bad.values(), good])) == [
        (bad["missing"], "No such file or directory"),
        (bad["empty"], "the file is empty"),
        (bad["folder"], "not a file"),
        (bad["pipe"], "not a file"),
    ]


def test_nothing_is_said_of_the_size_of_what_pillow_cannot_read(bad):
    assert [claims_too_much(path) for path in bad.values() if not path.endswith("pipe")] == [""] * 4


def test_a_name_that_is_no_text_keeps_its_bytes():
    encoded = encode_path(os.fsdecode(b"/a/\xff\xc3\xa4.jpg"))
    assert encoded.dtype == np.uint8
    assert encoded.tobytes() == b"/a/\xff\xc3\xa4.jpg"
