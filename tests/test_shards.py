"""Photographs in shards: read as they were packed, in the same order and batches as from files of their own."""

import json
import os
import resource
import shutil
import struct
import time

import numpy as np
import pytest
from packed import write_packed, write_tar
from ranges import make_augmentation

from dptmat.data.index import ImageIndex
from dptmat.data.photographs import open_photographs
from dptmat.data.sampler import Sampler
from dptmat.data.shards import ShardIndex
from dptmat.data.storage import LocalStore
from dptmat.errors import StoreAwayError, UserError
from dptmat.pipelines import loader as loader_module
from dptmat.pipelines.encoded import read_encoded
from dptmat.pipelines.loader import Loader
from dptmat.pipelines.pretrain import PretrainSource
from dptmat.pipelines.source import name_of
from dptmat.training.quarantine import Quarantine

PER_SHARD = 7


@pytest.fixture(scope="module")
def contents(photographs):
    """The contents of 24 photographs, in the order of their names."""
    return [path.read_bytes() for path in sorted(photographs.iterdir())[:24]]


@pytest.fixture
def packed(contents, tmp_path):
    """Them in four shards, which a test may damage."""
    return write_packed(tmp_path / "packed", contents, PER_SHARD)


class RemoteStore(LocalStore):
    """A folder that is read as an object store is, and counts what it is asked for."""

    remote = True

    def __init__(self, root):
        super().__init__(root)
        self.spans, self.away = [], 0

    def read(self, name, offset=0, length=None):
        if self.away:
            raise StoreAwayError("it does not answer")
        return super().read(name, offset, length)

    def read_many(self, spans):
        if self.away:
            self.away -= 1
            raise StoreAwayError("it does not answer")
        self.spans += spans
        return super().read_many(spans)


def open_remote(packed):
    return ShardIndex.open(RemoteStore(packed), "`data`")


def make_loader(index, sampler=None, start=0, quarantine=None):
    sampler = sampler or Sampler(7, len(index), 8)
    source = PretrainSource(index, sampler, make_augmentation(), 64)
    quarantine = quarantine or Quarantine(lambda name, reason: None)
    return Loader(source, sampler, micro_batch=4, threads=2, start=start, quarantine=quarantine)


def take(loader, count):
    return [[tensor.numpy().copy() for tensor in next(loader)] for _ in range(count)]


def assert_equal(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for tensor, expected in zip(batch, other, strict=True):
            assert np.array_equal(tensor, expected)


def test_photographs_are_what_was_packed(packed, contents):
    index = open_photographs(packed)
    assert len(index) == 24
    assert [read_encoded(index[i]) for i in range(24)] == contents
    assert [read_encoded(photo) for photo in index.take([20, 3, 3, 13])] == [contents[i] for i in (20, 3, 3, 13)]
    assert index[8].read(100) == contents[8][:100]
    with pytest.raises(IndexError, match="no photograph 24 among 24"):
        index[24]
    with pytest.raises(IndexError):
        index[-1]


def test_a_name_tells_shard_and_offset_and_is_found_again(packed, contents):
    index = open_photographs(packed)
    name = index[9].name
    shard, offset = name.rsplit("@", 1)
    assert shard == f"{packed}/000001.tar"
    with open(shard, "rb") as file:
        file.seek(int(offset))
        assert file.read(len(contents[9])) == contents[9]
    others = [
        f"{packed}/000001.tar@7",
        f"{packed}/000009.tar@512",
        "/elsewhere/000001.tar@512",
        "a.jpg",
        f"{name}x",
        "@",
    ]
    assert index.occurrences([name, *others, index[23].name]).tolist() == [1, *[0] * len(others), 1]


@pytest.mark.parametrize("remote", [False, True])
def test_batches_are_those_of_loose_files(photographs, packed, tmp_path, remote):
    loose = tmp_path / "loose"
    loose.mkdir()
    for path in sorted(photographs.iterdir())[:24]:
        shutil.copy(path, loose)
    index = open_remote(packed) if remote else open_photographs(packed)
    expected = take(make_loader(ImageIndex.open(loose)), 14)
    assert_equal(take(make_loader(index), 14), expected)
    assert_equal(take(make_loader(index, start=3), 4), expected[6:10])


def test_blocks_are_read_once_and_only_as_many_are_kept_as_are_shown(contents, tmp_path):
    packed = write_packed(tmp_path / "many", contents * 20, 100)  # 480
    sampler = Sampler(3, 480, 4, in_blocks=True)
    assert sampler.block == 8
    index = open_remote(packed)
    index.keep_blocks(sampler.block, sampler.blocks_at_once)
    shown = []
    for step in range(sampler.steps_per_epoch):
        numbers = sampler.images_of(sampler.ids(step))
        shown += zip(numbers.tolist(), index.fetch_many(index.take(numbers)), strict=True)
        assert len(index._blocks) <= sampler.blocks_at_once
    assert all(content == contents[number % 24] for number, content in shown)
    read = [(span.name, span.offset) for span in index._store.spans]
    # Each place comes back, at the end of an epoch, to the block in whose midst it began.
    assert len(read) - len(set(read)) <= 4 * sampler.block
    assert len(read) <= len(shown) + 2 * 4 * sampler.block


@pytest.mark.parametrize("remote", [False, True])
def test_batches_in_blocks_do_not_depend_on_how_they_are_read(packed, remote):
    sampler = Sampler(7, 24, 8, in_blocks=True)
    expected = take(make_loader(open_photographs(packed), sampler), 8)
    index = open_remote(packed) if remote else open_photographs(packed)
    index.keep_blocks(3, 2)
    assert_equal(take(make_loader(index, sampler), 8), expected)


def test_a_damaged_photograph_is_left_out_by_its_name(packed, contents):
    index, found = open_photographs(packed), []
    photo = index[10]
    with open(packed / "000001.tar", "r+b") as file:
        file.seek(photo.offset)
        file.write(bytes(600))
    quarantine = Quarantine(lambda name, reason: found.append((name, reason)))
    views = take(make_loader(index, quarantine=quarantine), 6)
    assert [name for name, _ in found] == [photo.name]
    assert "zero bytes" in found[0][1]
    # Known from the start, it gives the same batches; and the index itself can leave it out.
    assert_equal(take(make_loader(index, quarantine=Quarantine(known=dict(found))), 6), views)
    assert index.write_index(LocalStore(packed.parent / "good"), dict(found)) == 23
    good = open_photographs(packed.parent / "good")
    assert [read_encoded(good[i]) for i in range(23)] == contents[:10] + contents[11:]
    assert good.digest() != index.digest()


def test_a_shard_cut_short_or_exchanged_gives_bad_photographs_not_wrong_ones(packed):
    cut = packed / "000002.tar"
    cut.write_bytes(cut.read_bytes()[:-700])
    index, found = open_photographs(packed), {}
    take(make_loader(index, quarantine=Quarantine(found.__setitem__)), 6)
    assert set(found) == {index[i].name for i in range(14, 21)}
    assert all("000002.tar has" in reason and "where the index tells of" in reason for reason in found.values())


def test_a_store_that_is_away_is_waited_for(packed, monkeypatch):
    waits = []

    def come_back(seconds):
        waits.append(seconds)
        index._store.away = 0

    monkeypatch.setattr(loader_module.time, "sleep", come_back)
    expected = take(make_loader(open_photographs(packed)), 6)
    index, found = open_remote(packed), []
    loader = make_loader(index, quarantine=Quarantine(lambda *bad: found.append(bad)))
    assert_equal(take(loader, 2), expected[:2])
    index._store.away = 1000
    assert_equal(take(loader, 4), expected[2:])
    assert waits == [1]
    assert not found


def test_a_store_that_stays_away_ends_the_run_in_one_line(packed, monkeypatch):
    monkeypatch.setattr(loader_module.time, "sleep", lambda seconds: None)
    index = open_remote(packed)
    loader = make_loader(index)
    index._store.away = 10**9
    with pytest.raises(
        UserError, match="it does not answer; see whether its store is there, and go on by `resume` auto"
    ):
        next(loader)


def test_a_moved_folder_has_the_same_fingerprint_and_other_photographs_another(packed, contents, tmp_path):
    digest = open_photographs(packed).digest()
    assert open_photographs(shutil.copytree(packed, tmp_path / "copy")).digest() == digest
    assert open_photographs(write_packed(tmp_path / "other", contents[1:] + contents[:1], PER_SHARD)).digest() != digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: {**index, "format": 2}, "is of format 2, and this version reads 1; upgrade dptmat"),
        (lambda index: {**index, "images": 25}, "tells of 25 photographs, and its shards of another number"),
        (lambda index: {**index, "shards": index["shards"][:3]}, "tells of 24 photographs"),
        (lambda index: {**index, "shards": [*index["shards"], index["shards"][0]], "images": 31}, "000000.tar twice"),
        (lambda index: {**index, "shards": [["../x.tar", 24, 9, ""]]}, "names shards outside of its folder"),
        (lambda index: {**index, "shards": "none"}, "is not what dptmat pack or dptmat index writes"),
        (lambda index: {"images": 3}, "is not what dptmat pack or dptmat index writes"),
        (lambda index: [], "is not what dptmat pack or dptmat index writes"),
        (lambda index: {**index, "images": 0, "shards": []}, "tells of 0 photographs"),
    ],
)
def test_an_index_that_is_none_is_refused_in_one_line(packed, change, message):
    index = json.loads((packed / "index.json").read_text())
    (packed / "index.json").write_text(json.dumps(change(index)))
    with pytest.raises(UserError, match=message) as refusal:
        open_photographs(packed)
    assert "\n" not in str(refusal.value)


def test_parts_that_do_not_belong_together_are_refused(packed, contents, tmp_path):
    other = write_packed(tmp_path / "other", contents[:20], PER_SHARD)
    shutil.copy(packed / "index.bin", other)
    with pytest.raises(UserError, match="index.bin has 288 bytes, where index.json tells of 20 photographs"):
        open_photographs(other)
    shutil.copy(packed / "index.json", other)  # now both are of the larger data
    with pytest.raises(UserError, match="000003.tar|000002.tar"):
        open_photographs(other).require_some_file("`data`")
    (packed / "index.bin").write_bytes(struct.pack("<QI", 3, 100) * 24)
    with pytest.raises(UserError, match="none of 20 photographs looked at is an image"):
        open_photographs(packed).require_some_file("`data`")


def test_an_empty_shard_is_passed_over(packed, contents):
    index = json.loads((packed / "index.json").read_text())
    write_tar(packed / "empty.tar", {})
    index["shards"].insert(2, ["empty.tar", 0, (packed / "empty.tar").stat().st_size, ""])
    (packed / "index.json").write_text(json.dumps(index))
    index = open_photographs(packed)
    assert [read_encoded(index[i]) for i in range(24)] == contents
    index.require_some_file("`data`")


def test_tars_of_others_are_read_as_they_are(contents, tmp_path):
    names = ["a b.jpg", "ünï.JPEG", "n01440764/x.y.jpg", f"{'n' * 90}.jpg"]
    write_tar(
        tmp_path / "train-00.tar", {**dict(zip(names, contents, strict=False)), "a b.json": b"{}", "a b.cls": b"3"}
    )
    write_tar(tmp_path / "train-01.tar", {"c.jpg": contents[4], "._c.jpg": b"x"})
    for data in (tmp_path, tmp_path / "train-{00..01}.tar", f"{tmp_path}/train-{{0..1}}{{0..1}}.tar"):
        if "1}{" in str(data):
            with pytest.raises(FileNotFoundError):
                open_photographs(data)
            continue
        index = open_photographs(data)
        assert [read_encoded(index[i]) for i in range(len(index))] == contents[:5]
    assert len(open_photographs(tmp_path / "train-01.tar")) == 1
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/list.txt").write_text(f"../train-00.tar\n{tmp_path}/train-01.tar\n")
    index = open_photographs(tmp_path / "sub/list.txt")
    assert [read_encoded(index[i]) for i in range(len(index))] == contents[:5]
    (tmp_path / "sub/list.txt").write_text("s3://bucket/train-00.tar\n")
    with pytest.raises(UserError, match="lists addresses; give the folder in the store"):
        open_photographs(tmp_path / "sub/list.txt")
    (tmp_path / "loose.jpg").write_bytes(contents[0])  # a folder of files, beside which tars lie
    assert isinstance(open_photographs(tmp_path), ImageIndex)


def test_a_list_comes_from_the_standard_input(photographs, monkeypatch, dptmat, tmp_path):
    paths = sorted(photographs.iterdir())[:6]
    (tmp_path / "list").write_text("".join(f"{path.name}\n" for path in paths))
    monkeypatch.chdir(photographs)
    with open(tmp_path / "list") as file:
        monkeypatch.setattr("sys.stdin", file)
        status, out, err = dptmat("index", "--data", "-", "--out", tmp_path / "good.txt")
    assert status == 0, err
    assert (tmp_path / "good.txt").read_text().split() == [str(path) for path in paths]


def test_index_of_shards_is_a_folder_that_training_takes(contents, tmp_path, dptmat):
    data, out = tmp_path / "tars", tmp_path / "good"
    data.mkdir()
    write_tar(data / "x.tar", {f"{i}.jpg": content for i, content in enumerate([*contents[:6], contents[6][:-500]])})
    status, said, err = dptmat("index", "--data", data, "--out", out)
    assert status == 0, err
    assert "cut short" in said
    assert "6 photographs, 1 left out" in said
    index = open_photographs(out)
    assert [read_encoded(index[i]) for i in range(len(index))] == contents[:6]
    status, _, err = dptmat("preview", "--data", out, "--out", tmp_path / "preview.png")
    assert status == 0, err
    (tmp_path / "file").write_text("x")
    status, _, err = dptmat("index", "--data", data, "--out", tmp_path / "file")
    assert status == 2
    assert "is a file" in err
    status, _, err = dptmat("index", "--data", out, "--out", data)
    assert status == 2
    assert "is the folder of the shards" in err
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.jpg").write_bytes(contents[0])
    status, _, err = dptmat("index", "--data", data, "--out", tmp_path / "other")
    assert status == 2
    assert "holds something else" in err


def test_a_run_from_shards_goes_on_exactly_and_knows_its_order(packed, tmp_path, dptmat):
    words = [
        "pretrain",
        "--model",
        "unet_resnet18",
        "--size",
        64,
        "--batch-size",
        4,
        "--log-every",
        1,
        "--device",
        "cpu",
    ]
    words += ["--steps", 4, "--order", "blocks", "--threads", 1]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert dptmat(*words, "--data", packed, "--out", whole)[0] == 0
    assert dptmat(*words, "--data", packed, "--out", parts, "--save-every", 2)[0] == 0
    shutil.rmtree(parts / "checkpoints" / "step-000000004.pt", ignore_errors=True)
    os.remove(parts / "checkpoints" / "step-000000004.pt")
    moved = shutil.move(packed, tmp_path / "moved")
    again = [*words, "--data", moved, "--out", parts, "--save-every", 2, "--resume", "auto"]
    assert dptmat(*again)[0] == 0
    losses = [[json.loads(line).get("loss") for line in (out / "log.jsonl").open()] for out in (whole, parts)]
    assert [loss for loss in losses[0] if loss] == [loss for loss in losses[1] if loss]
    status, _, err = dptmat(*again, "--order", "full")
    assert status == 2
    assert "begun with --order blocks" in err


@pytest.mark.timing
def test_a_billion_photographs_are_opened_and_found_at_once(tmp_path):
    images, per_shard = 10**9, 16384
    shards = -(-images // per_shard)
    rows = [[f"{i:06d}.tar", per_shard, 500_000_000, "0" * 32] for i in range(shards)]
    rows[-1][1] = images - per_shard * (shards - 1)
    head = {"format": 1, "images": images, "settings": {}, "shards": rows}
    (tmp_path / "index.json").write_text(json.dumps(head, separators=(",", ":")))
    with open(tmp_path / "index.bin", "wb") as file:  # a hole, but for some entries
        file.truncate(12 * images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(3):
        start = time.perf_counter()
        index = open_photographs(tmp_path)
        times.append(time.perf_counter() - start)
    assert min(times) < 1
    sampler = Sampler(1, images, 512)
    index.take(sampler.images_of(sampler.ids(0)))  # compiles
    times = []
    for step in range(1, 60):
        start = time.thread_time()
        photos = index.take(sampler.images_of(sampler.ids(step)))
        times.append(time.thread_time() - start)
    assert min(times) < 2e-3  # of this thread alone: other work on the machine costs page faults, too
    assert len(photos) == 512
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB: the list of shards
    number = 987_654_321
    with open(tmp_path / "index.bin", "r+b") as file:
        file.seek(12 * number)
        file.write(struct.pack("<QI", 7_000_000_000, 4_000_000_000))
    assert (index[number].offset, index[number].length) == (7_000_000_000, 4_000_000_000)
    assert name_of(index[number]).endswith(f"{number // per_shard:06d}.tar@7000000000")


def test_objects_that_are_photographs_are_read_as_they_are_listed(contents, tmp_path, monkeypatch):
    """A bucket with loose files; a blank at the end of a name and a line break are part of it."""
    names = ["b/2.jpg", "a 1.JPG", "ünï+%20.png", "c\n.jpg", "_._/x.jpeg", "b/10.jpg"]
    for name, content in zip(names, contents, strict=False):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "b/notes.txt").write_text("x")
    monkeypatch.setattr("dptmat.data.photographs.open_store", lambda url, parameter: RemoteStore(tmp_path))
    index = open_photographs("s3://bucket/prefix")
    assert [photo.name.removeprefix(f"{tmp_path}/") for photo in index.take(range(6))] == [
        f"{name}@0" for name in sorted(names, key=str.encode)
    ]
    read = index.fetch_many(index.take(range(6)))
    assert sorted(read) == sorted(contents[:6])
    assert index.occurrences([index[2].name, index[5].name, f"{tmp_path}/b/notes.txt@0"]).tolist() == [1, 1, 0]
    assert not index.prefers_blocks
    (tmp_path / "b/2.jpg").unlink()  # it is bad, and the others are read
    index._store.close()
    assert [type(content) for content in index.fetch_many(index.take(range(6)))].count(FileNotFoundError) == 1
