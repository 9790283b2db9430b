"""Photographs wherever a user has them: a bucket gives the same batches, the same runs and the same words as a disk."""

import json

import numpy as np
import pytest
from packed import write_packed, write_tar
from ranges import make_augmentation
from stores import faulty_bucket, make_bucket, start_moto

from dptmat.data.photographs import open_photographs
from dptmat.data.sampler import Sampler
from dptmat.data.storage import open_store
from dptmat.errors import UserError
from dptmat.pipelines.encoded import read_encoded
from dptmat.pipelines.loader import Loader
from dptmat.pipelines.pretrain import PretrainSource
from dptmat.training.quarantine import Quarantine

RUN = ("--model", "unet_resnet18", "--size", 64, "--batch-size", 4, "--steps", 3, "--log-every", 1, "--device", "cpu")


@pytest.fixture
def bucket(monkeypatch):
    """A server of the bucket ``bkt`` as the environment's S3."""
    pytest.importorskip("obstore")
    with faulty_bucket(monkeypatch) as server:
        yield server


@pytest.fixture
def contents(photographs):
    return [path.read_bytes() for path in sorted(photographs.iterdir())[:24]]


def upload(server, folder, prefix):
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            server.objects[f"bkt/{prefix}/{path.relative_to(folder)}"] = path.read_bytes()
    server.requests.clear()


def batches(index, sampler, count=12):
    source = PretrainSource(index, sampler, make_augmentation(), 64)
    loader = Loader(source, sampler, micro_batch=4, threads=2, quarantine=Quarantine())
    return [[tensor.numpy().copy() for tensor in next(loader)] for _ in range(count)]


@pytest.mark.parametrize("in_blocks", [False, True])
def test_batches_from_a_bucket_are_those_of_the_disk_in_spite_of_short_faults(bucket, contents, tmp_path, in_blocks):
    packed = write_packed(tmp_path / "packed", contents)
    upload(bucket, packed, "pre fix/packed")
    here, there = open_photographs(packed), open_photographs("s3://bkt/pre fix/packed/")
    assert here.digest() == there.digest()
    assert there.prefers_blocks
    assert not here.prefers_blocks
    sampler = Sampler(5, 24, 8, in_blocks=in_blocks)
    if in_blocks:
        there.keep_blocks(sampler.block, sampler.blocks_at_once)
    there.require_some_file("`data`")
    bucket.faults += [503, "reset", "half", 429]
    for batch, expected in zip(batches(there, sampler), batches(here, sampler), strict=True):
        assert all(map(np.array_equal, batch, expected))
    assert not bucket.faults


def test_an_object_that_has_gone_costs_its_own_sample(bucket, contents, tmp_path, said):
    for i, content in enumerate(contents):
        (tmp_path / f"{i:02d}.jpg").write_bytes(content)
    upload(bucket, tmp_path, "loose")
    index = open_photographs("s3://bkt/loose")
    del bucket.objects["bkt/loose/07.jpg"]
    sampler = Sampler(5, 24, 8)
    assert len(batches(index, sampler, 6)) == 6
    assert said().count("left out: s3://bkt/loose/07.jpg@0: ") == 1


def test_tars_in_a_bucket_are_read_once_for_their_index(bucket, contents, tmp_path, dptmat):
    for name, part in (("train-000.tar", contents[:13]), ("train-001.tar", contents[13:])):
        write_tar(tmp_path / name, {f"{i}.jpg": content for i, content in enumerate(part)})
    upload(bucket, tmp_path, "tars")
    sizes = sum(map(len, bucket.objects.values()))
    index = open_photographs("s3://bkt/tars/train-{000..001}.tar")
    assert len(bucket.requests) < 16
    assert [read_encoded(photo) for photo in index.take(range(24))] == contents
    status, out, err = dptmat("index", "--data", "s3://bkt/tars", "--out", tmp_path / "good")
    assert status == 0, err
    assert "24 photographs, 0 left out" in out
    bucket.requests.clear()
    index = open_photographs(tmp_path / "good")  # which tells where they are, without looking
    assert all(".tar" not in path for _, path, _ in bucket.requests)
    assert read_encoded(index[20]) == contents[20]
    assert (tmp_path / "good/index.bin").stat().st_size == 24 * 12 < sizes


def test_a_run_from_a_bucket_is_that_from_the_disk(bucket, contents, tmp_path, dptmat):
    packed = write_packed(tmp_path / "packed", contents)
    upload(bucket, packed, "packed")
    for data, out in ((packed, "here"), ("s3://bkt/packed", "there")):
        status, _, err = dptmat("pretrain", "--data", data, "--out", tmp_path / out, "--order", "blocks", *RUN)
        assert status == 0, err
    logs = [(tmp_path / out / "log.jsonl").read_text().splitlines() for out in ("here", "there")]
    losses = [[json.loads(line)["loss"] for line in log] for log in logs]
    assert losses[0] == losses[1]
    # What was begun from the bucket goes on from the disk, in the same order without being told.
    again = ("pretrain", "--out", tmp_path / "there", *RUN[:-6], "--steps", 3, "--device", "cpu", "--resume", "auto")
    status, _, err = dptmat(*again, "--data", packed)
    assert status == 2
    assert "give --order blocks" in err


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("s3://bkt/nothing", "holds no photograph|holds nothing|no such"),
        ("s3://bkt/other", r"holds no photograph among 1 objects \(looked for index.json"),
        ("s3://bkt/other/notes.txt", "notes.txt"),
        ("s3://bkt/broken", "broken"),
        ("s3://bkt/train-{5..2}.tar", r"\{5..2\} does not count upwards"),
        ("s3://bkt/train-{0..2}.jpg", "only .*.tar.* files are named by numbers"),
        ("ftp://host/data", "ftp://"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_in_one_line(bucket, data, message):
    bucket.objects["bkt/other/notes.txt"] = b"x"
    bucket.objects["bkt/broken/index.json"] = b"{"
    with pytest.raises(UserError, match=message) as refusal:
        open_photographs(data)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith("`data` ")


def test_packing_from_a_bucket_into_a_bucket_gives_the_bytes_of_the_disk(contents, tmp_path, dptmat, monkeypatch):
    pytest.importorskip("moto.server")
    server, url = start_moto()
    make_bucket(monkeypatch, url, "bkt")
    (tmp_path / "loose").mkdir()
    bucket = open_store("s3://bkt")
    for i, content in enumerate(contents):
        (tmp_path / "loose" / f"{i:02d}.jpg").write_bytes(content)
        bucket.write(f"loose/{i:02d}.jpg", lambda file, content=content: file.write(content))
    words = ("--short-side", 64, "--per-shard", 10, "--workers", 1)
    for data, out in ((tmp_path / "loose", tmp_path / "packed"), ("s3://bkt/loose", "s3://bkt/packed")):
        status, _, err = dptmat("pack", "--data", data, "--out", out, *words)
        assert status == 0, err
    for path in (tmp_path / "packed").iterdir():
        if path.suffix in (".tar", ".idx", ".bin") or path.name == "index.json":
            assert bucket.read(f"packed/{path.name}") == path.read_bytes()
    assert len(open_photographs("s3://bkt/packed")) == 24
    server.stop()


@pytest.mark.parametrize("compression", ["snappy", "zstd"])
def test_compressed_parquet_is_packed_by_its_rows(contents, tmp_path, dptmat, compression):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [*contents[:11], None, *contents[11:]]  # a row without an image
    for name, part in (("train-0.parquet", rows[:9]), ("train-1.parquet", rows[9:])):
        table = pyarrow.table({"image": [{"bytes": row, "path": "x.jpg"} for row in part], "label": [1] * len(part)})
        (tmp_path / "data").mkdir(exist_ok=True)
        parquet.write_table(table, tmp_path / "data" / name, compression=compression, row_group_size=4)
    status, _, err = dptmat("pretrain", "--data", tmp_path / "data", "--out", tmp_path / "run")
    assert status == 2
    assert "dptmat pack" in err
    words = ("--no-reencode", "--per-shard", 10, "--workers", 1)
    status, out, err = dptmat("pack", "--data", tmp_path / "data", "--out", tmp_path / "packed", *words)
    assert status == 0, err
    assert "1 left out" in out
    index = open_photographs(tmp_path / "packed")
    assert [read_encoded(index[i]) for i in range(len(index))] == contents
    assert "data/train-1.parquet@0.2" in (tmp_path / "packed/left_out.txt").read_text()
