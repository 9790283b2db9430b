"""Tars written by a few lines of our own: what Python's tarfile, GNU tar and NVIDIA's indexer make of the same."""

import io
import shutil
import tarfile

import numpy as np
import pytest
from wds2idx import IndexCreator  # of NVIDIA DALI

from dptmat.data.shard_writer import TarWriter, escape_name, parse_idx, render_idx, render_names

CONTENTS = [b"a", bytes(511), bytes(range(256)) * 2, b"x" * 513, b"", b"\xff" * 4000]


def write(contents, numbers=None):
    file = io.BytesIO()
    tar = TarWriter(file)
    for number, content in zip(numbers or range(len(contents)), contents, strict=True):
        tar.add(number, "jpg", content)
    tar.close()
    return tar, file.getvalue()


@pytest.mark.parametrize("numbers", [range(6), [5, 70, 999_999_999_999, 3, 2, 1]])
def test_a_tar_is_that_of_tarfile(numbers):
    tar, written = write(CONTENTS, numbers)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as expected:
        for number, content in zip(numbers, CONTENTS, strict=True):
            member = tarfile.TarInfo(f"{number:012d}.jpg")
            member.size = len(content)
            expected.addfile(member, io.BytesIO(content))
    assert written == file.getvalue()[: len(written)]
    assert not any(file.getvalue()[len(written) :])  # zeros that fill a record of a tape
    assert tar.bytes == len(written)
    assert [written[m.offset : m.offset + m.length] for m in tar.members] == CONTENTS


@pytest.mark.skipif(not shutil.which("tar"), reason="needs GNU tar")
def test_the_index_is_that_of_nvidia(tmp_path):
    tar, written = write(CONTENTS)
    (tmp_path / "a.tar").write_bytes(written)
    with IndexCreator(str(tmp_path / "a.tar"), str(tmp_path / "a.idx"), verbose=False) as creator:
        creator.create_index()
    assert render_idx(tar.members) == (tmp_path / "a.idx").read_bytes()


def test_an_index_is_read_again():
    tar, _ = write(CONTENTS)
    entries = parse_idx(render_idx(tar.members))
    assert entries.tolist() == [(m.offset, m.length) for m in tar.members]
    assert len(parse_idx(render_idx([]))) == 0
    for damaged in (b"", b"v1.2 2\njpg 1 2 a.jpg\n", b"v1.1 0\n", render_idx(tar.members)[:-20], b"\xff\xfe"):
        with pytest.raises(ValueError):  # noqa: PT011 - of any kind; its one caller names the file
            parse_idx(damaged)


def test_a_tar_without_members_is_one():
    _, written = write([])
    with tarfile.open(fileobj=io.BytesIO(written)) as tar:
        assert tar.getmembers() == []


def test_any_name_is_one_line():
    rng = np.random.default_rng(0)
    names = ["a b.jpg", "n\new\r.jpg", "back\\slash\\n.jpg", "ü/日本.jpg", "\udcff.jpg", "x" * 255]
    names += ["".join(rng.choice(list("\\nr\n\r\té"), 8)) for _ in range(200)]
    lines = render_names(names).split(b"\n")[:-1]
    assert len(lines) == len(names) == len(set(map(escape_name, names))) + len(names) - len(set(names))
    undone = [
        line.replace(b"\\\\", b"\0").replace(b"\\n", b"\n").replace(b"\\r", b"\r").replace(b"\0", b"\\")
        for line in lines
    ]
    assert [line.decode("utf-8", "surrogateescape") for line in undone] == names
