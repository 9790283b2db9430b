"""What is wrong with a file that shows before it is decoded, and files that are read ahead."""

import io
import os
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from dptmat.pipelines import encoded
from dptmat.pipelines.encoded import BadFileError, find_unopened, read_encoded
from dptmat.pipelines.probe import find_unreadable
from dptmat.pipelines.read_ahead import ReadAhead, Reader


@pytest.fixture
def bad(tmp_path):
    """Paths by what is wrong with them."""
    paths = {name: str(tmp_path / name) for name in ("missing", "empty", "folder", "pipe", "text", "nul\0", "sparse")}
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_bytes(b"text" * 100)
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(3 << 30)
    return paths


def test_what_cannot_be_opened_is_told_and_the_rest_is_not(bad, photographs):
    good = str(sorted(photographs.iterdir())[0])
    assert list(find_unopened([good, *bad.values(), good])) == [
        (bad["missing"], "No such file or directory"),
        (bad["empty"], "the file is empty"),
        (bad["folder"], "not a file"),
        (bad["pipe"], "not a file"),
        (bad["nul\0"], "embedded null byte"),
        (bad["sparse"], "it is larger than 1,073,741,824 bytes"),
    ]


HEADS = {
    "an HTML page": b"<!DOCTYPE html><html><body>404",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "what macOS keeps beside a file": b"\0\5\x16\7\0\2\0\0Mac OS X        ",
    "a GIF file": b"GIF89a\1\0\1\0\x80\0\0",
    "a HEIC file": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "nothing but zero bytes": bytes(4096),
    "a PDF file": b"%PDF-1.7",
    "text": b"no photograph\n",
    "no image that can be read": b"\1\2\3\4\5\6\7\x08",
}


@pytest.mark.parametrize("kind", HEADS)
def test_what_is_no_image_is_called_what_it_is(tmp_path, kind):
    (tmp_path / "a.jpg").write_bytes(HEADS[kind])
    with pytest.raises(BadFileError, match=f"^it is {kind}"):
        read_encoded(str(tmp_path / "a.jpg"))


def jpeg(**options):
    file = io.BytesIO()
    noise = np.random.default_rng(3).integers(0, 256, (96, 128, 3), np.uint8)
    Image.fromarray(noise).save(file, "JPEG", **options)
    return file.getvalue()


def with_thumbnail(content, thumbnail):
    """A JPEG file with another in a segment of its head, as cameras write it."""
    segment = b"\xff\xe1" + (len(thumbnail) + 8).to_bytes(2, "big") + b"Exif\0\0" + thumbnail
    return content[:2] + segment + content[2:]


WHOLE = {
    "baseline": jpeg(),
    "progressive": jpeg(progressive=True),
    "restarts": jpeg(restart_marker_blocks=2),
    "thumbnail": with_thumbnail(jpeg(), jpeg(quality=20)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_jpeg_file_that_was_cut_is_found_wherever_it_was_cut(tmp_path, name):
    whole, path = WHOLE[name], str(tmp_path / "a.jpg")
    for length in [len(whole) - 1, len(whole) - 2, *np.linspace(4, len(whole) - 3, 40).astype(int)]:
        (tmp_path / "a.jpg").write_bytes(whole[:length])
        with pytest.raises(BadFileError, match="cut short"):
            read_encoded(path)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize(
    "behind", [b"", b"\0" * 300, b"\n", jpeg(quality=10)], ids=["none", "zeros", "line", "another"]
)
def test_what_stands_behind_the_end_of_a_jpeg_file_does_not_matter(tmp_path, name, behind):
    (tmp_path / "a.jpg").write_bytes(WHOLE[name] + behind)
    assert read_encoded(str(tmp_path / "a.jpg")) == WHOLE[name] + behind
    assert not list(find_unreadable([str(tmp_path / "a.jpg")], None))


def test_a_head_that_claims_too_many_pixels_is_refused_unread(tmp_path):
    with Image.new("1", (30_000, 30_000)) as image:  # 110 kB that would become 2.7 GB
        image.save(tmp_path / "a.png")
    with pytest.raises(BadFileError, match="claims more than 178,956,970 pixels"):
        read_encoded(str(tmp_path / "a.png"))


def test_files_are_read_in_order_and_a_bad_one_does_not_stop_the_others(bad, photographs):
    good = [str(path) for path in sorted(photographs.iterdir())]
    paths = [path for pair in zip(good, list(bad.values()) * 12, strict=False) for path in pair]
    contents = Reader(3)(paths)
    for path, content in zip(paths, contents, strict=True):
        assert content.tobytes() == (Path(path).read_bytes() if path in good else bytes(20))


def test_a_file_that_shrinks_while_it_is_read_is_a_bad_one(tmp_path, monkeypatch):
    """It is not mapped, so that it gives an error and no signal."""
    (tmp_path / "a.jpg").write_bytes(WHOLE["baseline"])
    stat = os.stat

    def shrink_after(path):
        status = stat(path)
        os.truncate(path, 1000)
        return status

    monkeypatch.setattr(encoded.os, "stat", shrink_after)
    with pytest.raises(BadFileError, match="cut short"):
        read_encoded(str(tmp_path / "a.jpg"))


def test_batches_are_made_ahead_in_order_and_in_one_thread():
    made, threads = [], set()

    def make(number):
        made.append(number)
        threads.add(threading.get_ident())
        return (number,)

    ahead = ReadAhead(make, 7)
    assert [ahead() for _ in range(5)] == [(7,), (8,), (9,), (10,), (11,)]
    assert made == list(range(7, 7 + len(made)))
    assert 5 <= len(made) <= 7
    assert threading.get_ident() not in threads
    assert len(threads) == 1
    ahead.close()


def test_fine_tuning_reads_colours_by_their_profile_and_pre_training_as_stored(tmp_path):
    """The profile is that of sRGB with red and blue exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"____").replace(b"bXYZ", b"rXYZ").replace(b"____", b"bXYZ")
    colors = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    path, plain = str(tmp_path / "profile.png"), str(tmp_path / "plain.png")
    Image.fromarray(colors).save(path, icc_profile=profile)
    Image.fromarray(colors).save(plain)
    stored = Reader(1)([path])[0]
    assert stored.tobytes() == Path(path).read_bytes()
    converted, untouched = Reader(1)([path, plain], srgb=True)
    assert untouched.tobytes() == Path(plain).read_bytes()
    pixels = np.asarray(Image.open(io.BytesIO(converted.tobytes())))
    assert np.abs(pixels[..., ::-1].astype(int) - colors).max() <= 2


def test_many_threads_leave_the_filters_of_warnings_as_they_are(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    before, interval = list(warnings.filters), sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-6)  # so that threads meet where they can
        Reader(8)([str(tmp_path / "a.png")] * 500)
    finally:
        sys.setswitchinterval(interval)
    assert list(warnings.filters) == before
