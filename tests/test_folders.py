"""What users point at, folders, lists and single files: the images in them are found and paired, or it is said why."""

import logging
import os
import threading

import numpy as np
import pytest
from PIL import Image

from dptmat.data.cases import Case, list_images, pair
from dptmat.errors import UserError

HEADS = {  # of files, and what is said of them
    "x.HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC file, which dptmat does not read; convert it to PNG"),
    "x.avif": (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "is an AVIF file, which dptmat does not read; convert it to PNG"),
    "x.gif": (b"GIF89a\1\0\1\0\0\0\0;", "is a GIF file, which dptmat does not read; convert it to PNG or JPEG"),
    "x.pdf": (b"%PDF-1.7\n%\xe2\xe3", "is a PDF file, which dptmat does not read; convert it to PNG or JPEG"),
    "x.npy": (b"\x93NUMPY\1\0v\0{'descr': '|u1'", "is a NumPy array, which dptmat does not read; convert it to PNG"),
    "x.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing, which dptmat does not read; convert"),
    "x.mp4": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "is a film, which dptmat does not read; save its frames as PNG"),
    "x.zip": (b"PK\x03\x04\x14\0\0\0\x08\0", "is a ZIP archive, which dptmat does not read; unpack it"),
    "x.tgz": (b"\x1f\x8b\x08\0\0\0\0\0", "is a gzip archive, which dptmat does not read; unpack it"),
    "x.html": (
        b"<!DOCTYPE html><title>404</title>",
        "is an HTML page, such as an error that a server has sent; give an",
    ),
    "x.lfs": (
        b"version https://git-lfs.github.com/spec/v1\n",
        "is a Git LFS pointer, not the file itself: git lfs pull",
    ),
    "._x": (b"\0\x05\x16\x07\0\2\0\0", "is what macOS keeps beside a file (AppleDouble), not the file itself; give"),
    "utf-16.txt": ("a.png\r\n".encode("utf-16"), "is text in UTF-16, which dptmat does not read; save it as UTF-8"),
    "x.bin": (b"\x01\x02\x03\x04\x80\x81", "is neither an image that dptmat reads nor a text file; a list holds"),
    "late.txt": (b"a.png\n" * 500 + b"\0\n", "is not a text file; a list holds one path per line"),
    "empty.txt": (b"", "is an empty list; it holds one path per line"),
    "blank.txt": (b" \n\r\n", "is an empty list; it holds one path per line"),
    "x.json": (
        b'{"images": [' + b'"a.png", ' * 10**5 + b"]}",
        """no line is the path of a file, such as the first, '{"im""",
    ),
    "labels.csv": (
        b"a.png,cat\nb.png,dog\n",
        "no line is the path of a file, such as the first, 'a.png,cat', tried as ",
    ),
}


def refused(call, *args, **options):
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def make(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


@pytest.mark.parametrize("name", HEADS)
def test_a_file_that_is_neither_an_image_nor_a_list_is_called_what_it_is(tmp_path, name):
    content, message = HEADS[name]
    make(tmp_path, "a.png", "b.png")
    (tmp_path / name).write_bytes(content)
    assert refused(list_images, "image", tmp_path / name).startswith(f"`image` {tmp_path / name}")
    assert message in refused(list_images, "image", tmp_path / name)
    assert len(refused(list_images, "image", tmp_path / name)) < 1000
    assert "JPEG" not in refused(list_images, "val_trimap", tmp_path / name)  # which is refused as a trimap


def test_an_image_of_an_unusual_name_is_one_by_its_content(tmp_path):
    for name, form in (("a.jfif", "JPEG"), ("b.JPE", "JPEG"), ("c", "PNG"), ("d.image", "WEBP"), ("e.dib", "BMP")):
        Image.new("RGB", (3, 4)).save(tmp_path / name, form)
        assert list_images("image", tmp_path / name) == {(tmp_path / name).stem: tmp_path / name}


def test_names_in_a_list_may_be_as_editors_and_shells_leave_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    make(tmp_path, "home/a.png", "x/b c.png", "x/~d.png")
    (tmp_path / "x/list.txt").write_bytes(b"\xef\xbb\xbf~/a.png  \r\n\r\nb c.png\t\r\n~d.png")
    assert list_images("image", tmp_path / "x/list.txt") == {
        "a": tmp_path / "home/a.png", "b c": tmp_path / "x/b c.png", "~d": tmp_path / "x/~d.png",
    }  # fmt: skip


def test_names_in_a_list_need_not_be_text(tmp_path):
    make(tmp_path, os.fsdecode(b"caf\xe9.png"))
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.png\n")
    (path,) = list_images("image", tmp_path / "list.txt").values()
    assert path.exists()


def test_a_list_may_come_by_a_pipe(tmp_path):
    make(tmp_path, "a.png", "b.png")
    os.mkfifo(tmp_path / "pipe")
    lines = f"{tmp_path}/a.png\n{tmp_path}/b.png\n"
    thread = threading.Thread(target=(tmp_path / "pipe").write_text, args=(lines,))
    thread.start()
    listed = list_images("image", tmp_path / "pipe")
    thread.join()
    assert list(listed) == ["a", "b"]


CLIPS = ["0001/0000.png", "0001/0001.png", "0002/0000.png", "0002/deep/0000.png", "loose.png"]


def test_images_of_clips_pair_by_their_path_below_the_folder(tmp_path):
    image, alpha = make(tmp_path / "image", *CLIPS), make(tmp_path / "alpha", *CLIPS, "0003/0000.png")
    cases = pair(image=image, alpha=alpha)
    assert cases == [Case(path.removesuffix(".png"), image=image / path, alpha=alpha / path) for path in CLIPS]
    assert refused(pair, alpha=alpha, image=image) == (
        f"`image` {image} has no partner of 0003/0000 of `alpha` {alpha}; partners have the same name, whatever their "
        "ending, and lie in subfolders of the same name"
    )


def test_images_of_a_list_are_named_by_their_common_folder_where_names_repeat(tmp_path):
    make(tmp_path / "a", *CLIPS)
    make(tmp_path / "b", *CLIPS)
    for folder in "ab":
        (tmp_path / f"{folder}.txt").write_text("".join(f"{folder}/../{folder}/{path}\n" for path in CLIPS[:3]))
    cases = pair(image=tmp_path / "a.txt", trimap=tmp_path / "b.txt", alpha=tmp_path / "b")
    assert [case.name for case in cases] == ["0001/0000", "0001/0001", "0002/0000"]
    assert all(case.path("trimap").samefile(case.path("alpha")) for case in cases)
    (tmp_path / "c.txt").write_text("".join(f"a/{path}\n" for path in CLIPS[1:3]))
    assert list(list_images("image", tmp_path / "c.txt")) == ["0000", "0001"]
    (tmp_path / "c.txt").write_text("a/loose.png\na/loose.png\n")
    assert "names " in refused(list_images, "image", tmp_path / "c.txt")


def test_two_images_of_one_name_are_refused_in_every_folder(tmp_path):
    make(tmp_path / "x", "0001/a.png", "0001/a.jpg", "0002/a.png")
    assert (
        refused(list_images, "fg", tmp_path / "x")
        == f"`fg` {tmp_path}/x holds both 0001/a.jpg and 0001/a.png; keep one"
    )


def test_accents_pair_in_either_way_of_unicode(tmp_path):
    composed, decomposed = "caf\u00e9/\u00fcber.png", "cafe\u0301/u\u0308ber.png"
    for one, other in ((composed, decomposed), (decomposed, composed)):
        image, alpha = make(tmp_path / f"image {one[:4]!a}", one), make(tmp_path / f"alpha {one[:4]!a}", other)
        (case,) = pair(image=image, alpha=alpha)
        assert case == Case(one.removesuffix(".png"), image=image / one, alpha=alpha / other)
    both = make(tmp_path / "both", composed, decomposed)  # of which each is paired with itself
    assert [case.image == case.alpha for case in pair(image=both, alpha=both)] == [True, True]


def test_what_is_left_out_of_a_folder_is_said(tmp_path, caplog):
    folder = make(
        tmp_path / "x", "a.png", "b/c.JPG", "._a.png", "b/.hidden.jpg", "__MACOSX/a.png", "@eaDir/a.jpg",
        ".cache/e.png", "IMG_2.HEIC", "b/IMG_1.heic", "notes.txt", "out/a.png", "out/cutout/a.png",
    )  # fmt: skip
    (folder / "b/up").symlink_to(folder)
    with caplog.at_level(logging.INFO):
        assert list(list_images("image", folder, leave_out=tmp_path / "x/../x/out")) == ["a", "b/c"]
    assert caplog.messages == [
        f"`image` {folder}: {folder}/out is written to: what it holds is left out",
        f"`image` {folder}: 2 files whose names begin with a dot are left out",
        f"`image` {folder}: 3 files of other endings are left out: .heic (2), .txt (1); convert images to PNG or JPEG",
    ]
    assert list(list_images("image", folder / "out", leave_out=folder / "out")) == ["a", "cutout/a"]


def test_a_subfolder_that_cannot_be_read_is_named(tmp_path, caplog, monkeypatch):
    make(tmp_path / "x", "a.png", "closed/b.png")
    scandir = os.scandir

    def fail_in_closed(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail_in_closed)
    with caplog.at_level(logging.WARNING):
        assert list(list_images("image", tmp_path / "x")) == ["a"]
    assert caplog.messages == [f"left out: folder {tmp_path}/x/closed: Permission denied"]
    monkeypatch.setattr(os, "listdir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert refused(list_images, "image", tmp_path / "x") == f"`image` {tmp_path}/x cannot be read: Permission denied"


def test_clips_go_through_every_command(tmp_path, dptmat, monkeypatch):
    """What is written lies in the same subfolders, and is a clip of its own for the next command."""
    from stand_in import StandIn

    monkeypatch.setattr("dptmat.weights.load.load_network", lambda path, device: (StandIn().to(device), {}))
    random = np.random.default_rng(0)
    for path in CLIPS[:3]:
        for kind, shape in (("fg", (20, 30, 3)), ("alpha", (20, 30)), ("bg", (20, 30, 3))):
            (tmp_path / kind / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(tmp_path / kind / path)
        (tmp_path / "trimap" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30), 128, np.uint8)).save(tmp_path / "trimap" / path)
    words = {name: ["--" + name, str(tmp_path / name)] for name in ("fg", "alpha", "bg", "trimap")}
    (tmp_path / "names.txt").write_text("0002/0000.png\n0001/0001\n0001/0000.png\n")
    test_set = tmp_path / "set"
    status, printed, error = dptmat(
        "compose", *sum(words.values(), []), "--each", "1", "--out", test_set, "--fg-names", tmp_path / "names.txt"
    )
    assert status == 0, error
    names = ["0001/0000_0", "0001/0001_0", "0002/0000_0"]
    for folder in ("merged", "alpha_copy", "trimaps"):
        assert list(list_images("image", test_set / folder)) == names
    given = ["--image", test_set / "merged", "--trimap", test_set / "trimaps", "--out", tmp_path / "alphas"]
    status, printed, error = dptmat("predict", "--checkpoint", "x.pt", "--cutout", *given)
    assert (status, printed) == (0, f"{tmp_path}/alphas: 3 alphas, 0 left out\n"), error
    assert list(list_images("image", tmp_path / "alphas/cutout")) == names
    scored = ["--out", tmp_path / "scores", "--data", test_set]
    for judged in (["--checkpoint", "x.pt"], ["--predictions", tmp_path / "alphas"]):
        status, printed, error = dptmat("evaluate", *judged, *scored)
        assert status == 0, error
        assert [line.split()[0] for line in printed.splitlines()[2:5]] == names
    assert list(list_images("image", tmp_path / "scores/alpha")) == names
    # What lies in a subfolder is not written over either.
    status, _, error = dptmat("predict", "--checkpoint", "x.pt", *given[:-1], test_set / "merged")
    assert (status, error) == (
        2, f"dptmat: {test_set}/merged/0001 is read and would be written to as well; give another folder as --out\n"
    )  # fmt: skip
