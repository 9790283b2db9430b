"""The list of photographs: what is found, in which order, and what the strict check names."""

import hashlib
import os
import shutil
import threading
import tracemalloc

import cv2
import numpy as np
import pytest

from dptmat.data.check import check_photographs
from dptmat.data.index import ImageIndex, write_list
from dptmat.data.sampler import Sampler
from dptmat.errors import UserError


def paths_of(index):
    return [index[i] for i in range(len(index))]


def test_folder_is_searched_below_and_sorted(tmp_path):
    for name in ("b/2.JPEG", "a.jpg", "b/1.png", "b/c/0.webp", "b/notes.txt", "b/c/list.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    expected = [str(tmp_path / name) for name in ("a.jpg", "b/1.png", "b/2.JPEG", "b/c/0.webp")]
    assert paths_of(ImageIndex.open(tmp_path)) == expected


def test_symbolic_links_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1.jpg").write_bytes(b"x")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "data")
    assert paths_of(ImageIndex.open(tmp_path / "data")) == [str(tmp_path / "data/link/1.jpg")]


@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_list_keeps_its_order_and_resolves_relative_paths(tmp_path, line_break, end):
    lines = ["sub/b.jpg", "/far/away/a.jpg", "ä b.png"]
    (tmp_path / "list.txt").write_bytes((line_break.join(lines) + end).encode())
    expected = [str(tmp_path / "sub/b.jpg"), "/far/away/a.jpg", str(tmp_path / "ä b.png")]
    assert paths_of(ImageIndex.open(tmp_path / "list.txt")) == expected


@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_line_ends_are_found_across_chunks(tmp_path, monkeypatch, chunk, end):
    monkeypatch.setattr("dptmat.data.index._CHUNK", chunk)
    names = [f"{i:0{1 + i % 9}}.jpg" for i in range(100)]
    (tmp_path / "list.txt").write_text("\n".join(names) + end)
    index = ImageIndex.open(tmp_path / "list.txt")
    assert paths_of(index) == [str(tmp_path / name) for name in names]
    for outside in (-1, 100):
        with pytest.raises(IndexError):
            index[outside]


def test_paths_are_counted_whatever_way_they_are_written(tmp_path):
    (tmp_path / "list.txt").write_text("a.jpg\n./b.jpg\nsub/../c.jpg\nsub//d.jpg\n/far/e.jpg\n/far/./f.jpg\n")
    index = ImageIndex.open(tmp_path / "list.txt")
    paths = [os.path.abspath(path) for path in paths_of(index)]
    assert index.occurrences(paths).sum() == 6
    assert index.occurrences([]).sum() == 0
    assert index.occurrences([f"{tmp_path}/x.jpg", "/far/a.jpg", str(tmp_path), paths[3]]).sum() == 1
    assert index.occurrences(dict.fromkeys(paths[2:], "a reason")).sum() == 4


def test_the_paths_of_a_folder_that_is_named_relative_to_another_are_counted(tmp_path, monkeypatch):
    (tmp_path / "data/sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.jpg"):
        (tmp_path / "data" / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    index = ImageIndex.open("data/../data")
    assert index.occurrences([f"{tmp_path}/data/a.jpg", f"{tmp_path}/data/sub/b.jpg", f"{tmp_path}/a.jpg"]).sum() == 2


@pytest.mark.parametrize("content", [b"a.jpg\nb.jpg\n", b"\xef\xbb\xbfa.jpg\n\n \nb.jpg\n\n", b"\n\na.jpg\nb.jpg\n\t"])
def test_marks_and_empty_lines_of_editors_do_not_count(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    assert paths_of(ImageIndex.open(tmp_path / "list.txt")) == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"]


@pytest.mark.parametrize("line", ["photos/a.jpg", "/elsewhere/a.jpg", '"/elsewhere/a.jpg"', "file:///elsewhere/a.jpg"])
def test_a_list_of_no_file_is_refused_with_the_path_that_was_tried(tmp_path, line):
    (tmp_path / "list.txt").write_text(f"{line}\n" * 1000)
    index = ImageIndex.open(tmp_path / "list.txt")
    with pytest.raises(UserError, match="`data` list: none of 100 lines looked at is the path of a file.* tried as"):
        index.require_some_file("`data` list")
    (tmp_path / "good.jpg").touch()
    (tmp_path / "list.txt").write_text(f"{line}\n" * 99 + "good.jpg\n")
    ImageIndex.open(tmp_path / "list.txt").require_some_file("`data` list")


def test_what_systems_put_among_photographs_is_left_out_and_counted(tmp_path, said):
    good = ["a.jpg", "sub/b.jpg"]
    litter = ["._a.jpg", "sub/.b.jpg", "__MACOSX/a.jpg", "sub/@eaDir/b.jpg/SYNOPHOTO_THUMB_M.jpg", ".thumbnails/c.jpg"]
    for name in (*good, *litter):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert paths_of(ImageIndex.open(tmp_path)) == [str(tmp_path / name) for name in good]
    assert "2 files whose names begin with a dot are left out" in said()


def test_a_folder_that_cannot_be_read_is_named_and_left_out(tmp_path, monkeypatch, said):
    for name in ("a/1.jpg", "b/2.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert paths_of(ImageIndex.open(tmp_path)) == [f"{tmp_path}/b/2.jpg"]
    assert said() == f"left out: folder {tmp_path}/a: Permission denied\n"


def test_the_images_of_the_run_itself_do_not_count(tmp_path):
    for name in ("a.jpg", "runs/first/preview.png", "runs/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    index = ImageIndex.open(tmp_path, leave_out=tmp_path / "runs/first")
    assert paths_of(index) == [f"{tmp_path}/a.jpg", f"{tmp_path}/runs/b.jpg"]
    assert len(ImageIndex.open(tmp_path, leave_out=tmp_path)) == 3


def test_a_long_list_takes_little_more_memory_than_a_short_one(tmp_path, monkeypatch):
    monkeypatch.setattr("dptmat.data.index._CHUNK", 1 << 16)  # bytes: a fraction of either list

    def memory(count):
        """Bytes at most while a list is opened and paths are looked up, and bytes that it holds."""
        (tmp_path / "list.txt").write_text("".join(f"train/n{i:08}/n{i:08}_{i}.JPEG\n" for i in range(count)))
        tracemalloc.start()
        index, sampler = ImageIndex.open(tmp_path / "list.txt"), Sampler(0, count, 64)
        for step in (0, sampler.steps_per_epoch - 1):
            assert index[sampler.images_of(sampler.ids(step))[0]].endswith(".JPEG")
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak, held

    memory(1000)  # what the first call imports and caches
    short, long = memory(10_000), memory(80_000)
    # Bytes: a path takes 8 for its end, and as many in passing. In memory it would take 31, as a string 80.
    assert long[0] - short[0] < 70_000 * 17
    assert long[1] - short[1] < 70_000 * 9


def test_a_list_may_be_replaced_while_it_is_open(tmp_path):
    (tmp_path / "list.txt").write_text("a.jpg\nb.jpg\n")
    index = ImageIndex.open(tmp_path / "list.txt")
    (tmp_path / "new.txt").write_text("c.jpg\n")
    os.replace(tmp_path / "new.txt", tmp_path / "list.txt")
    assert paths_of(index) == [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]


def test_digest_tells_lists_apart_and_ignores_where_the_folder_lies(tmp_path):
    for place in ("one", "two", "three"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.jpg").write_bytes(b"x")
    (tmp_path / "three/b.jpg").write_bytes(b"x")
    one, two, three = (ImageIndex.open(tmp_path / place).digest() for place in ("one", "two", "three"))
    assert one == two != three


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), r"holds no photograph \(looked for .jpg"),
        (lambda p: p.write_text(""), "empty file"),
        (lambda p: p.write_text("\n \n"), "empty file"),
        (lambda p: p.write_text("a.jpg\n", encoding="utf-16"), "is text in UTF-16; save it as UTF-8"),
        (lambda p: p.write_bytes(b"a.jpg\n" * 10**6 + b"b\0.jpg\n"), "is not a text file"),
        (lambda p: p.write_bytes(bytes(range(256))), "is not a text file"),
    ],
)
def test_what_holds_no_photographs_is_refused(tmp_path, make, message):
    make(tmp_path / "data")
    with pytest.raises(UserError, match=message):
        ImageIndex.open(tmp_path / "data")


def test_one_photograph_is_not_taken_for_a_list(photographs):
    with pytest.raises(UserError, match="is one photograph; point it at a folder"):
        ImageIndex.open(sorted(photographs.iterdir())[0])


def test_name_with_a_line_break_is_refused(tmp_path):
    (tmp_path / "a\nb.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="line break"):
        ImageIndex.open(tmp_path)


@pytest.fixture
def damaged(tmp_path, photographs):
    """Folder of three good and eight bad photographs; returns it with the names of the bad ones."""
    source = sorted(photographs.iterdir())[0]
    content = source.read_bytes()
    for name in ("a.jpg", "k.JPEG"):
        shutil.copy(source, tmp_path / name)
    cv2.imwrite(str(tmp_path / "m.png"), np.zeros((5, 4, 3), np.uint8))
    middle = np.frombuffer(content, np.uint8).copy()
    middle[len(middle) // 2 : len(middle) // 2 + 200] = 7
    bad = {
        "b.jpg": content[: len(content) // 2],
        "c.jpg": content[:100],
        "d.jpg": b"",
        "e.jpg": b"this is text, not a photograph\n" * 9,
        "f.jpg": middle.tobytes(),
        "g.png": (tmp_path / "m.png").read_bytes()[:-30],
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "h.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "i.jpg")  # would keep waiting whoever opens it
    return tmp_path, {*bad, "h.jpg", "i.jpg"}


def test_check_names_exactly_the_bad_ones_with_a_reason(damaged):
    folder, bad = damaged
    found = dict(pair for _, pairs in check_photographs(ImageIndex.open(folder)) for pair in pairs)
    assert {os.path.basename(path) for path in found} == bad
    assert all(found.values())
    assert "Corrupt JPEG data" in found[str(folder / "f.jpg")]  # damage that DALI, PIL and OpenCV pass over
    assert "empty" in found[str(folder / "d.jpg")]
    assert "No such file" in found[str(folder / "h.jpg")]


def test_list_without_the_bad_ones_opens_again(damaged):
    folder, bad = damaged
    index = ImageIndex.open(folder)
    write_list(folder / "good.txt", index, {str(folder / name) for name in bad})
    assert paths_of(ImageIndex.open(folder / "good.txt")) == [str(folder / n) for n in ("a.jpg", "k.JPEG", "m.png")]


def test_a_list_that_is_written_anew_in_place_stays_what_it_was(tmp_path):
    """The file shrinks under the index: a map of it would end the process by a signal."""
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{i}.jpg\n" for i in range(100_000)))
    index = ImageIndex.open(path)
    path.write_text("other.jpg\n")
    assert index[99_999] == str(tmp_path / "99999.jpg")
    assert len(index) == 100_000


def test_a_list_may_come_from_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("a.jpg\nb.jpg\n",))
    writer.start()
    assert len(ImageIndex.open(tmp_path / "pipe")) == 2
    writer.join()


def test_a_photograph_that_is_listed_many_times_counts_as_often(tmp_path):
    (tmp_path / "list.txt").write_text("a.jpg\n" * 6 + "b.jpg\n" * 4)
    index = ImageIndex.open(tmp_path / "list.txt")
    assert index.occurrences([f"{tmp_path}/a.jpg", f"{tmp_path}/c.jpg", f"{tmp_path}/b.jpg"]).tolist() == [6, 0, 4]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("blanks", [" ", "\t", "  \t ", "\r", ""])
@pytest.mark.parametrize("first", [True, False])
def test_blanks_at_the_end_of_a_line_count_only_where_a_name_has_them(tmp_path, line_end, blanks, first):
    names = ["a.jpg", "b.jpg", "c.jpg "]
    for name in names:
        (tmp_path / name).touch()
    lines = [f"a.jpg{blanks}", "c.jpg ", "b.jpg"] if first else ["c.jpg ", "b.jpg", f"a.jpg{blanks}"]
    expected = ["a.jpg", "c.jpg ", "b.jpg"] if first else ["c.jpg ", "b.jpg", "a.jpg"]
    (tmp_path / "list.txt").write_bytes("".join(line + line_end for line in lines).encode())
    index = ImageIndex.open(tmp_path / "list.txt")
    assert [index[i] for i in range(3)] == [str(tmp_path / name) for name in expected]
    assert index.occurrences([str(tmp_path / name) for name in expected]).tolist() == [1, 1, 1]
    write_list(tmp_path / "good.txt", index, ())
    again = ImageIndex.open(tmp_path / "good.txt")
    assert [again[i] for i in range(3)] == [index[i] for i in range(3)]


@pytest.mark.parametrize("name", ["a.jpg ", "a.jpg\t", "a.jpg\r"])
@pytest.mark.parametrize("other", [True, False])
def test_a_name_that_ends_with_a_blank_is_taken_first(tmp_path, name, other):
    (tmp_path / name).touch()
    if other:
        (tmp_path / name.rstrip()).touch()
    (tmp_path / "list.txt").write_bytes(f"{name}\nb.jpg\n".encode())
    assert ImageIndex.open(tmp_path / "list.txt")[0] == str(tmp_path / name)


def test_the_digest_of_a_list_is_of_its_lines_as_they_are(tmp_path):
    """So that a run of an earlier version goes on."""
    (tmp_path / "list.txt").write_bytes(b"a.jpg \r\nb.jpg\r\n")
    expected = hashlib.blake2b(b"a.jpg \r\nb.jpg\r\n", digest_size=16).hexdigest()
    assert ImageIndex.open(tmp_path / "list.txt").digest() == expected


@pytest.mark.parametrize("data", ["x\ny", "x\ny/below", "x\ny/list.txt", "."])
def test_a_line_break_above_the_photographs_is_refused_in_a_line(tmp_path, monkeypatch, dptmat, data):
    (tmp_path / "x\ny/below").mkdir(parents=True)
    (tmp_path / "x\ny/below/a.jpg").touch()
    (tmp_path / "x\ny/list.txt").write_text("below/a.jpg\n")
    monkeypatch.chdir(tmp_path / "x\ny" if data == "." else tmp_path)
    (tmp_path / "out").mkdir()
    status, _, error = dptmat("index", "--data", data, "--out", tmp_path / "out/list.txt")
    assert status == 2
    assert "x\\ny" in error
    assert "holds a line break; rename the folder" in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


def test_files_of_other_endings_are_counted_and_new_kinds_taken(tmp_path, said):
    for name in ("a.jfif", "b.JPE", "c.jp2", "d.ppm", "e.txt", "f.TXT", "g.heic", "README", ".hidden", "h.jpg"):
        (tmp_path / name).touch()
    assert [os.path.basename(path) for path in paths_of(ImageIndex.open(tmp_path))] == [
        "a.jfif", "b.JPE", "c.jp2", "d.ppm", "h.jpg",
    ]  # fmt: skip
    assert "4 files of other endings are left out: .txt (2), " in said()
