"""Files that are left out: named once, kept on disk, read again."""

import os

import pytest

from dptmat.errors import UserError
from dptmat.training.quarantine import Quarantine, open_quarantine, read_quarantine


class Source:
    """Ten photographs in a folder."""

    def own(self, bad):
        return {path: reason for path, reason in bad.items() if path.startswith("/data/")}

    def count_bad(self, bad):
        return [("photographs", sum(path.startswith("/data/") for path in bad), 10)]


def test_a_file_is_named_once(tmp_path, said):
    quarantine = Quarantine()
    quarantine.add(str(tmp_path / "a.jpg"), "the file is empty")
    quarantine.add(str(tmp_path / "a.jpg"), "another reason")
    assert quarantine.bad == {f"{tmp_path}/a.jpg": "the file is empty"}
    assert said() == f"left out: {tmp_path}/a.jpg: the file is empty\n"
    assert quarantine.unshared == 1
    quarantine.share()
    assert quarantine.unshared == 0


def test_what_a_run_leaves_out_is_left_out_when_it_goes_on(tmp_path):
    name = os.fsdecode(b"/data/caf\xe9\t1.jpg")  # no valid text, and a tab in it
    first = open_quarantine(tmp_path, "", lambda path, reason: None, Source(), writes=True)
    first.add(name, "cut short")
    (tmp_path / "more.txt").write_text(
        "/elsewhere/c.jpg\tgone\n/data/b.jpg\tgone\n/data/half"
    )  # a kill has cut the last line short
    again = open_quarantine(tmp_path, str(tmp_path / "more.txt"), pytest.fail, Source(), writes=True)
    assert again.bad == {name: "cut short", "/data/b.jpg": "gone"}
    assert read_quarantine(tmp_path / "quarantine.txt") == again.bad


def test_a_list_that_is_none_is_refused(tmp_path):
    (tmp_path / "list.txt").write_text("a.jpg\nb.jpg\n")
    with pytest.raises(UserError, match="list.txt has a line that is not a path, a tab and a reason: 'a.jpg'"):
        read_quarantine(tmp_path / "list.txt")
    with pytest.raises(UserError, match="missing.txt cannot be read: No such file"):
        read_quarantine(tmp_path / "missing.txt")


def test_one_file_may_always_be_bad_and_then_the_share_counts():
    quarantine = Quarantine(known={"/data/1.jpg": "x", "/elsewhere/9.jpg": "y", "/elsewhere/8.jpg": "y"})
    assert quarantine.too_many(Source(), 0.0) == ""
    quarantine.mark_known({"/data/2.jpg": "cut short"})
    assert quarantine.too_many(Source(), 0.2) == ""
    assert quarantine.too_many(Source(), 0.1).startswith(
        "2 of 10 photographs are bad, more than `max_bad` 0.1 of them, the last one /data/2.jpg: cut short; restore"
    )
