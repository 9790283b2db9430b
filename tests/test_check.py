"""What is found to be damaged: as training finds it, and what libjpeg says of pixels besides."""

import io
import itertools

import numpy as np
import pytest
from image_kinds import DALI, PILLOW, write_kinds
from PIL import Image
from ranges import make_augmentation

from dptmat.data import check
from dptmat.data.check import check_photographs
from dptmat.data.index import ImageIndex
from dptmat.data.sampler import Sampler
from dptmat.pipelines.loader import Loader
from dptmat.pipelines.pretrain import PretrainSource
from dptmat.training.quarantine import Quarantine


def found(folder):
    """Reasons by file name of what is bad in a folder."""
    pairs = itertools.chain.from_iterable(pairs for _, pairs in check_photographs(ImageIndex.open(folder)))
    return {path.rpartition("/")[2]: reason for path, reason in pairs}


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return bytearray(file.getvalue())


def noise():
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (96, 128, 3), np.uint8))


def three_to_one():
    """A gray surface with one chroma sample for three pixels beside each other, for which TurboJPEG has no name.

    With tables made for it, each block is two bits of zero; 40 blocks of 96 x 16 pixels are 10 bytes.
    """
    content = jpeg(Image.new("RGB", (96, 16), (128, 128, 128)), optimize=True, subsampling=0)
    frame, scan = content.index(b"\xff\xc0"), content.index(b"\xff\xda")
    assert content[frame + 11] == 0x11  # both factors of the first component
    content[frame + 11] = 0x31
    head = scan + 2 + int.from_bytes(content[scan + 2 : scan + 4], "big")
    return content[:head] + bytes(10) + b"\xff\xd9"


def scan_of_nothing(content):
    """As the cameras of some phones write it: the scan says that it holds coefficients 0 to 0."""
    scan = content.index(b"\xff\xda")
    end = scan + 2 + int.from_bytes(content[scan + 2 : scan + 4], "big")
    content[end - 3 : end] = bytes(3)
    return content


def second_version(content):
    content[content.index(b"JFIF\0") + 5] = 2
    return content


def with_thumbnail(content):
    """Another JPEG file in a segment of its head, with a scan of its own, as cameras write it."""
    thumbnail = jpeg(noise().resize((16, 12)))
    segment = b"\xff\xe1" + (len(thumbnail) + 8).to_bytes(2, "big") + b"Exif\0\0" + thumbnail
    return content[:2] + segment + content[2:]


def damaged(content):
    """Another byte, again and again, in the middle of the pixels."""
    content[len(content) // 2 : len(content) // 2 + 200] = bytes([7]) * 200
    return content


HARMLESS = {
    "three_to_one": three_to_one,
    "scan_of_nothing": lambda: scan_of_nothing(jpeg(noise())),
    "second_version": lambda: second_version(jpeg(noise())),
    "thumbnail": lambda: with_thumbnail(scan_of_nothing(jpeg(noise()))),
    "both": lambda: second_version(scan_of_nothing(jpeg(noise()))),
}
DAMAGED = {
    "middle": lambda: damaged(jpeg(noise())),
    "middle_of_progressive": lambda: damaged(jpeg(noise(), progressive=True)),
    "middle_behind_scan_of_nothing": lambda: scan_of_nothing(damaged(jpeg(noise()))),
    "middle_behind_thumbnail": lambda: with_thumbnail(scan_of_nothing(damaged(jpeg(noise())))),
    "middle_behind_second_version": lambda: second_version(damaged(jpeg(noise()))),
}


def test_what_libjpeg_remarks_on_a_head_is_no_damage(tmp_path):
    for name, make in HARMLESS.items():
        (tmp_path / f"{name}.jpg").write_bytes(make())
    assert found(tmp_path) == {}


def test_damaged_pixels_are_found_behind_an_odd_head_too(tmp_path):
    for name, make in DAMAGED.items():
        (tmp_path / f"{name}.jpg").write_bytes(make())
    reasons = found(tmp_path)
    assert reasons.keys() == {f"{name}.jpg" for name in DAMAGED}
    assert all(reason.startswith("Corrupt JPEG data") for reason in reasons.values())


@pytest.fixture
def mixed(tmp_path):
    """A folder of all kinds of images and of files that are none: its path and the names of the latter."""
    write_kinds(tmp_path, {**DALI, **PILLOW})
    whole = bytes(jpeg(noise()))
    others = {
        "page.jpg": b"<html>404 Not Found</html>",
        "pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n",
        "film.webp": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41",
        "gif.jpg": b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
        "cut.jpg": whole[:-2],
        "marker.jpg": whole[:2] + b"\xff\x01" + whole[2:],
        "zeros.jpg": bytes(len(whole)),
        "cut.png": (tmp_path / "plain.png").read_bytes()[:-200],
        "cut.webp": (tmp_path / "lossy.webp").read_bytes()[:-200],
        "cut.tif": (tmp_path / "plain.tif").read_bytes()[:600],
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path, set(others)


def test_index_and_training_leave_out_the_same_files(mixed):
    folder, others = mixed
    index, quarantine = ImageIndex.open(folder), Quarantine(lambda path, reason: None)
    sampler = Sampler(0, len(index), 2)
    loader = Loader(
        PretrainSource(index, sampler, make_augmentation(), 64), sampler, micro_batch=2, quarantine=quarantine
    )
    for _ in range(sampler.steps_per_epoch):
        next(loader)
    named = {path.rpartition("/")[2]: reason for path, reason in quarantine.bad.items()}
    assert named == found(folder)
    assert named.keys() == others


def test_without_dali_pillow_finds_the_same_files(mixed, monkeypatch):
    folder, others = mixed
    monkeypatch.setattr(check, "_choose_decoder", lambda: check._find_unreadable_by_pillow)
    assert found(folder).keys() == others


def test_a_file_is_read_once_and_one_that_has_vanished_by_then_is_named(tmp_path, monkeypatch):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(jpeg(noise()))
    index = ImageIndex.open(tmp_path)
    (tmp_path / "a.jpg").unlink()
    find_unreadable = check._choose_decoder()

    def decode_and_remove(photos):
        (tmp_path / "b.jpg").unlink()
        return list(find_unreadable(photos))

    monkeypatch.setattr(check, "_choose_decoder", lambda: decode_and_remove)
    assert list(check_photographs(index)) == [(2, [(str(tmp_path / "a.jpg"), "No such file or directory")])]
