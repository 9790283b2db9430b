"""Packed data sets: what every reader finds in them, and equal bytes whoever packs, however often they are killed."""

import io
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import webdataset
from image_kinds import DALI, PILLOW, write_kinds
from nvidia.dali import fn, pipeline_def
from packed import Fatal, write_tar
from PIL import Image
from ranges import make_augmentation

from dptmat.cli.pack import _share
from dptmat.config.pretrain import PretrainConfig
from dptmat.data.index import ImageIndex
from dptmat.data.photographs import open_photographs
from dptmat.data.sampler import Sampler
from dptmat.data.storage import LocalStore
from dptmat.errors import StoreAwayError, UserError
from dptmat.pipelines.encoded import read_encoded
from dptmat.pipelines.loader import Loader
from dptmat.pipelines.pretrain import PretrainSource
from dptmat.tasks import pack, pack_shard, pack_workers
from dptmat.tasks.pack_finish import finish
from dptmat.tasks.pack_shard import PackSettings
from dptmat.tasks.pack_workers import run_here
from dptmat.tasks.pretrain import Pretraining
from dptmat.training.distributed import single_process
from dptmat.training.quarantine import Quarantine


@pytest.fixture(scope="module")
def loose(photographs, tmp_path_factory):
    """A folder of 24 photographs; read only."""
    folder = tmp_path_factory.mktemp("loose")
    for path in sorted(photographs.iterdir())[:24]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def packed(loose, tmp_path_factory):
    """It packed into four shards; read only."""
    return pack_all(loose, tmp_path_factory.mktemp("packed") / "out")


def pack_all(data, out, share=(0, 1), is_last=True, **settings):
    """Pack in this process."""
    plan = pack.make_plan(data, out, PackSettings(**{"short_side": 64, "per_shard": 7, **settings}))
    pack.begin(plan)
    for shard in pack.missing_shards(plan, share):
        pack.pack_shard(shard, plan)
    if is_last:
        finish(plan.out)
    return Path(out)


def digests(folder):
    """Digest of each file in a folder, by name."""
    return {path.name: blake2b(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def contents(folder):
    """Names and contents of the members of all shards, by tarfile."""
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                yield member.name, tar.extractfile(member).read()


@pipeline_def(batch_size=24, num_threads=1, device_id=None)
def read_by_dali(paths, index_paths):
    return fn.readers.webdataset(paths=paths, index_paths=index_paths, ext=["jpg"], dont_use_mmap=True)


def test_every_reader_finds_the_same_bytes(packed):
    expected = [content for _, content in contents(packed)]
    assert len(expected) == 24
    index = open_photographs(packed)
    assert [read_encoded(index[i]) for i in range(len(index))] == expected
    tars = sorted(map(str, packed.glob("*.tar")))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False))
    assert [sample["jpg"] for sample in samples] == expected
    assert [sample["__key__"] for sample in samples] == [f"{i:012d}" for i in range(24)]
    pipe = read_by_dali(tars, [tar.replace(".tar", ".idx") for tar in tars])
    pipe.build()
    (batch,) = pipe.run()
    assert [np.array(sample).tobytes() for sample in batch] == expected


@pytest.mark.parametrize(("size", "warned"), [(64, False), (96, True)])
def test_photographs_packed_too_small_are_told_of(packed, tmp_path, said, size, warned):
    config = PretrainConfig(data=str(packed), out=str(tmp_path), size=size, batch_size=8, device="cpu")
    Pretraining(config, single_process("cpu"))
    assert ("were packed with 64 pixels on the shorter side, and are enlarged to 96" in said()) == warned


def test_what_lies_beside_a_shard_tells_of_it(packed, loose):
    record = json.loads((packed / "000001.json").read_text())
    tar = (packed / "000001.tar").read_bytes()
    assert record["images"] == 7
    assert record["sources"] == [7, 14]
    assert record["bytes"] == len(tar)
    assert record["digest"] == blake2b(tar, digest_size=16).hexdigest()
    assert record["versions"].keys() == {"dptmat", "simplejpeg", "pillow", "torch"}
    assert record["settings"]["short_side"] == 64
    lines = (packed / "000001.paths").read_text().splitlines()
    assert lines == [str(path) for path in sorted(loose.iterdir())[7:14]]
    head = json.loads((packed / "index.json").read_text())
    assert head["shards"][1] == ["000001.tar", 7, len(tar), record["digest"]]


def test_photographs_have_the_short_side_that_was_asked_for(packed):
    assert {min(Image.open(io.BytesIO(content)).size) for _, content in contents(packed)} == {64}


def make_batches(data):
    index = open_photographs(data) if isinstance(data, Path) else data
    sampler = Sampler(7, len(index), 8)
    source = PretrainSource(index, sampler, make_augmentation(), 64)
    loader = Loader(source, sampler, micro_batch=4, threads=2, quarantine=Quarantine(lambda name, reason: None))
    return [[tensor.numpy().copy() for tensor in next(loader)] for _ in range(8)]


def test_batches_of_copied_bytes_are_those_of_loose_files(loose, tmp_path):
    out = pack_all(loose, tmp_path / "out", reencode=False)
    assert [content for _, content in contents(out)] == [path.read_bytes() for path in sorted(loose.iterdir())]
    for batch, expected in zip(make_batches(out), make_batches(ImageIndex.open(loose)), strict=True):
        for tensor, other in zip(batch, expected, strict=True):
            assert np.array_equal(tensor, other)


def test_shards_are_the_same_whoever_packs_them(loose, packed, tmp_path):
    out = tmp_path / "shared"
    pack_all(loose, out, (1, 2), is_last=False)
    with pytest.raises(UserError, match="2 of 4 shards are not packed yet: 000000, 000002; dptmat pack"):
        finish(LocalStore(out))
    pack_all(loose, out, (0, 2))
    assert digests(out) == digests(packed)
    finish(LocalStore(out))  # again
    assert digests(out) == digests(packed)


def test_shards_packed_again_are_other_shards(loose, packed, tmp_path):
    pack_all(packed, tmp_path / "again", per_shard=24, reencode=False)
    expected = [content for _, content in contents(packed)]
    assert [content for _, content in contents(tmp_path / "again")] == expected
    line = (tmp_path / "again/000000.paths").read_text().splitlines()[8]
    with tarfile.open(packed / "000001.tar") as tar:
        offset = tar.getmembers()[1].offset_data
    assert line == f"{packed}/000001.tar@{offset}"


def run(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "dptmat", "pack", *map(str, words)], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, **options,
    )  # fmt: skip


SAME = "--short-side", 64, "--per-shard", 7


def test_the_command_packs_by_two_processes(loose, packed, tmp_path, dptmat):
    status, output, errors = dptmat("pack", "--data", loose, "--out", tmp_path / "out", *SAME, "--workers", 2)
    assert status == 0
    assert output.endswith("24 photographs in 4 shards, 0.1 MB; 0 left out\n")
    assert digests(tmp_path / "out") == digests(packed)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("0*")}
    assert dptmat("pack", "--data", loose, "--out", tmp_path / "out", *SAME)[0] == 0  # does nothing again
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("0*")}


@pytest.mark.exhaustive
def test_the_command_packs_by_five_processes_and_in_shares(loose, packed, tmp_path):
    assert run("--data", loose, "--out", tmp_path / "five", *SAME, "--workers", 5).returncode == 0
    assert digests(tmp_path / "five") == digests(packed)
    listed = "\n".join(map(str, sorted(loose.iterdir())))
    first = run("--data", "-", "--out", tmp_path / "shares", *SAME, "--shard", "0/2", input=listed)
    assert first.stdout.endswith("2 of 4 shards are done; the index is written with the last one, by whichever machine "
                                 "packs it\n")  # fmt: skip
    environment = {**os.environ, "RANK": "1", "WORLD_SIZE": "2"}
    words = [sys.executable, "-m", "dptmat", "pack", "--data", "-", "--out", tmp_path / "shares", *map(str, SAME)]
    subprocess.run(words, input=listed.encode(), env=environment, check=True)
    shares, expected = digests(tmp_path / "shares"), digests(packed)
    of_the_list = {name for name in expected if name.endswith(".json") and name != "index.json"}
    assert {name for name in expected if shares[name] != expected[name]} == of_the_list  # which is other data


def make_parts(loose, out, kill):
    """The parts of four shards, of which the third one's first photograph kills its process so many times."""
    plan = pack.make_plan(loose, out, PackSettings(short_side=64, per_shard=7))
    pack.begin(plan)
    parts = [plan.part(shard) for shard in range(4)]
    parts[2].photos[0] = Fatal(parts[2].photos[0], str(out), kill)
    return parts


def test_a_shard_whose_process_is_killed_is_packed_again(loose, packed, tmp_path, said):
    seen = list(run_here(make_parts(loose, tmp_path, 2), 2))
    assert sum(seen) == 24
    assert said().count("a worker was killed by SIGKILL; shard 000002 is packed again") == 2
    for path in tmp_path.glob("deaths*"):
        path.unlink()
    finish(LocalStore(tmp_path))
    assert digests(tmp_path) == digests(packed)


def test_a_shard_that_kills_every_process_is_named(loose, tmp_path):
    message = "shard 000002 .photographs 14 to 20, the first .*: its process was killed by SIGKILL, 3 times"
    with pytest.raises(UserError, match=message):
        list(run_here(make_parts(loose, tmp_path, 99), 1))
    assert pack.done_shards(LocalStore(tmp_path)) >= {0, 1}


@pytest.mark.parametrize("reports", [0, 1])
def test_a_worker_ends_in_silence_when_the_command_is_gone(loose, tmp_path, monkeypatch, reports):
    command, worker = multiprocessing.Pipe()
    command.send(make_parts(loose, tmp_path, 0)[0])

    def pack_while_the_command_dies(part, report):
        command.close()
        for _ in range(reports):
            report(1)

    monkeypatch.setattr(pack_workers, "pack_part", pack_while_the_command_dies)
    monkeypatch.setattr(pack_workers, "set_up_process", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    pack_workers._work(worker)  # raises nothing


@pytest.mark.slow
def test_ctrl_c_is_for_the_command_alone_also_while_workers_begin(loose, tmp_path):
    words = [sys.executable, "-m", "dptmat", "pack", "--data", loose, "--out", tmp_path / "out"]
    words += ["--workers", "2", "--per-shard", "12"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    children, deadline = Path(f"/proc/{process.pid}/task/{process.pid}/children"), time.monotonic() + 60
    while len(workers := children.read_text().split()[1:]) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    for worker in workers:  # but for the first child, which is multiprocessing's own
        blocked = re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{worker}/status").read_text())[1]
        assert int(blocked, 16) >> (signal.SIGINT - 1) & 1
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.communicate(timeout=60)[1].endswith("dptmat: interrupted\n")
    assert process.returncode == 130


@pytest.mark.slow
def test_runs_that_are_killed_go_on(loose, packed, tmp_path):
    data, rng = tmp_path / "data", np.random.default_rng(0)
    data.mkdir()
    for i in range(16):
        for path in loose.iterdir():
            os.link(path, data / f"{i:02}_{path.name}")
    expected, out = pack_all(data, tmp_path / "expected", per_shard=20), tmp_path / "out"
    words = [sys.executable, "-m", "dptmat", "pack", "--data", data, "--out", out, "--workers", "2"]
    words += ["--short-side", "64", "--per-shard", "20"]
    finished = []
    for signum in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        before, deadline = len(finished), time.monotonic() + 60
        while len(finished := list(out.glob("0*.json"))) <= before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signum)
        errors = process.communicate(timeout=30)[1]
        assert "Traceback" not in errors
        stamps = {path: path.stat().st_mtime_ns for path in finished}
    for left in out.glob("*.part"):
        os.utime(left, (0, 0))
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert digests(out) == digests(expected)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_what_killed_processes_have_left_is_removed(loose, packed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(packed, out)
    (out / "000001.json").unlink()
    mine, others = out / "000001.tar.0123abcd.part", [out / "000002.tar.0123abcd.part", out / "a.part"]
    live = out / "000001.idx.0123abcd.part"
    for path in (mine, *others, live):
        path.write_bytes(b"x")
    for path in (mine, *others):
        os.utime(path, (0, 0))
    plan = pack.make_plan(loose, out, PackSettings(short_side=64, per_shard=7))
    next(pack.pack(plan, pack.missing_shards(plan)))
    assert not mine.exists()
    assert all(path.exists() for path in (*others, live))
    finish(pack_shards(plan).out)
    assert {path.name for path in out.glob("*.part")} == {"a.part"}  # of somebody else


def pack_shards(plan):
    for shard in pack.missing_shards(plan):
        pack.pack_shard(shard, plan)
    return plan


@pytest.fixture
def mixed(tmp_path, loose):
    """A folder of images of all kinds, and of files that are none."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    write_kinds(folder, {**DALI, **PILLOW})
    whole = min(loose.iterdir()).read_bytes()
    for name, content in {
        "page.jpg": b"<html>404",
        "cut.jpg": whole[:-2],
        "empty.jpg": b"",
        "gif.png": b"GIF89a",
    }.items():
        (folder / name).write_bytes(content)
    (folder / "gone.jpg").symlink_to("nowhere")
    return folder


def test_images_of_all_kinds_are_packed_and_bad_files_named(mixed, tmp_path):
    out = pack_all(mixed, tmp_path / "out", short_side=32)
    packed = dict(contents(out))
    paths = sorted(mixed.iterdir(), key=os.fsencode)
    bad = {"page.jpg", "cut.jpg", "empty.jpg", "gif.png", "gone.jpg"}
    assert {int(name[:12]) for name in packed} == {i for i, path in enumerate(paths) if path.name not in bad}
    assert all(name.endswith(".jpg") for name in packed)
    assert {Image.open(io.BytesIO(content)).format for content in packed.values()} == {"JPEG"}
    lines = (out / "left_out.txt").read_text().splitlines()
    assert {Path(line.split("\t")[0]).name for line in lines} == bad
    assert f"{mixed}/page.jpg\tit is an HTML page, such as an error that a server has sent" in lines
    small = pack_all(mixed, tmp_path / "copied", reencode=False)
    copied = {int(name[:12]): (name, content) for name, content in contents(small)}
    assert copied.keys() == {int(name[:12]) for name in packed}
    assert all(content == paths[i].read_bytes() for i, (_, content) in copied.items())
    assert copied[paths.index(mixed / "named.JPEG")][0].endswith(".png")  # which it is


def test_what_is_too_small_is_counted_by_itself(mixed, tmp_path):
    out = pack_all(mixed, tmp_path / "out", min_side=2, per_shard=1000)
    record = json.loads((out / "000000.json").read_text())
    paths = sorted(mixed.iterdir(), key=os.fsencode)
    assert [paths[i].name for i in record["small"]] == ["one_pixel.png", "sliver.png", "text.ppm"]
    assert len(record["bad"]) == 5
    assert record["images"] == len(paths) - 8
    with pytest.raises(UserError, match="could be packed: .* are smaller than `min_side` 62, others bad"):
        pack_all(mixed, tmp_path / "none", min_side=62)


def test_a_shard_of_bad_files_alone_is_empty(loose, tmp_path, dptmat):
    folder = tmp_path / "data"
    shutil.copytree(loose, folder)
    for path in sorted(folder.iterdir())[7:14]:
        path.write_bytes(b"text")
    out = pack_all(folder, tmp_path / "out")
    assert json.loads((out / "000001.json").read_text())["images"] == 0
    assert (out / "000001.tar").read_bytes() == bytes(1024)
    index = open_photographs(out)
    assert len(index) == 17
    assert [read_encoded(photo) for photo in index.take(range(17))] == [content for _, content in contents(out)]
    index.require_some_file("it")
    assert len(make_batches(out)) == 8


def test_where_all_are_bad_no_index_is_written(tmp_path):
    (tmp_path / "data").mkdir()
    for i in range(9):
        (tmp_path / f"data/{i}.jpg").write_bytes(b"<html>")
    with pytest.raises(
        UserError, match="none of the 9 photographs of `data` could be packed, such as .*0.jpg: it is an HTML"
    ):
        pack_all(tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out/index.json").exists()


def test_names_may_be_anything(loose, tmp_path):
    folder = tmp_path / "da ta"
    names = ["x" * 251 + ".jpg", "a b  c.jpg", "日本.jpg", "back\\slash.jpg", "two.dots.jpg", os.fsdecode(b"\xff.jpg")]
    folder.mkdir()
    for name, path in zip(names, sorted(loose.iterdir()), strict=False):
        shutil.copy(path, folder / name)
    out = pack_all(folder, tmp_path / "out", reencode=False)
    lines = (out / "000000.paths").read_bytes().split(b"\n")[:-1]
    paths = [os.fsdecode(line.replace(b"\\\\", b"\\")) for line in lines]
    assert [Path(path).read_bytes() for path in paths] == [content for _, content in contents(out)]
    assert {Path(path).name for path in paths} == set(names)


def test_a_tar_of_others_is_packed(loose, tmp_path):
    members = {f"{i} a\nb.jpg": path.read_bytes() for i, path in enumerate(sorted(loose.iterdir()))}
    write_tar(tmp_path / "others.tar", members)
    out = pack_all(tmp_path / "others.tar", tmp_path / "out", reencode=False)
    assert [content for _, content in contents(out)] == list(members.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"short_side": 65}, "`short_side` 64, now 65; give what it was begun with, another folder, or `force`"),
        ({"quality": 80, "reencode": False}, "`quality` 90, now 80, `reencode` True, now False"),
        ({"per_shard": 8}, "`per_shard` 7, now 8"),
    ],
)
def test_other_settings_are_refused(loose, packed, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        pack_all(loose, packed, **change)


def test_another_codec_is_refused(loose, packed, monkeypatch):
    former = pack.versions
    monkeypatch.setattr(pack, "versions", lambda: {**former(), "simplejpeg": "99.0"})
    with pytest.raises(UserError, match=f"was packed otherwise: simplejpeg {simplejpeg.__version__}, now 99.0; "):
        pack_all(loose, packed)


def test_other_data_are_refused_and_packed_anew_where_that_is_forced(loose, packed, tmp_path, dptmat):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(loose, data)
    shutil.copytree(packed, out)
    (data / "zz.jpg").write_bytes(min(loose.iterdir()).read_bytes())
    (out / "notes.txt").write_text("mine")
    status, _, errors = dptmat("pack", "--data", data, "--out", out, *SAME)
    assert status == 2
    assert "was packed otherwise: 24 photographs, now 25; " in errors
    assert "or --force to delete" in errors
    (data / "zz.jpg").rename(data / "0.jpg")
    min(data.glob("c*")).unlink()
    with pytest.raises(UserError, match="other photographs, or another order"):
        pack_all(data, out)
    assert digests(out).items() >= digests(packed).items()
    plan = pack.make_plan(data, out, PackSettings(short_side=64, per_shard=12))
    pack.begin(plan, force=True)
    assert sorted(path.name for path in out.iterdir()) == ["notes.txt", "pack.json"]
    finish(pack_shards(plan).out)
    assert len(open_photographs(out)) == 24


def test_what_others_have_written_is_left_alone(loose, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "000000.tar").write_bytes(b"of another program")
    plan = pack.make_plan(loose, out, PackSettings())
    for force in (False, True):
        with pytest.raises(UserError, match="holds 000000.tar, and no pack.json: dptmat pack has not written them"):
            pack.begin(plan, force=force)
    (out / "pack.json").write_text("[]")
    with pytest.raises(UserError, match="is not what dptmat pack writes"):
        pack.begin(plan)
    with pytest.raises(UserError, match="is what is read"):
        pack.make_plan(loose, loose, PackSettings())


def test_a_place_that_cannot_be_written_is_named(loose):
    with pytest.raises(UserError, match="`out` /proc/x cannot be written: No such file or directory; give another"):
        pack.begin(pack.make_plan(loose, "/proc/x", PackSettings()))


@pytest.mark.parametrize("name", ["000001.tar", "000001.idx"])
def test_a_shard_that_was_cut_short_is_named_by_finish(packed, tmp_path, name):
    out = tmp_path / "out"
    shutil.copytree(packed, out)
    os.truncate(out / name, 20)
    with pytest.raises(UserError, match=f"{name}.*; delete 000001.json, and dptmat pack makes the shard anew"):
        finish(LocalStore(out))


def test_a_shard_of_another_folder_is_named_by_finish(loose, packed, tmp_path):
    other, out = pack_all(loose, tmp_path / "other", quality=50), tmp_path / "out"
    shutil.copytree(packed, out)
    for path in other.glob("000002.*"):
        shutil.copy(path, out)
    with pytest.raises(UserError, match="000002 was packed otherwise than the rest; delete 000002.json"):
        finish(LocalStore(out))


def limit_files(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def test_a_full_disk_ends_in_one_line_and_loses_nothing(loose, packed, tmp_path):
    out = tmp_path / "out"
    first = run("--data", loose, "--out", out, *SAME, "--workers", 1, preexec_fn=lambda: limit_files(10_000))
    assert first.returncode == 2
    assert first.stderr.splitlines()[-1].endswith(
        "cannot be written: File too large; the shards that are done stay: mend it, and the same command goes on"
    )
    assert "Traceback" not in first.stderr
    assert not list(out.glob("*.part"))
    for shard in pack.missing_shards(plan := pack.make_plan(loose, out, PackSettings(short_side=64, per_shard=7))):
        pack.pack_shard(shard, plan)
    finish(plan.out)
    assert digests(out) == digests(packed)


def test_a_file_system_that_is_away_makes_no_photograph_bad(loose, tmp_path, monkeypatch):
    data = tmp_path / "data"
    shutil.copytree(loose, data)
    plan = pack.make_plan(data, tmp_path / "out", PackSettings(short_side=64, per_shard=7))
    pack.begin(plan)
    part = plan.part(0)
    data.rename(tmp_path / "away")
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 3 and not forever:
            (tmp_path / "away").rename(data)

    monkeypatch.setattr(pack_shard.time, "sleep", sleep)
    forever = True
    with pytest.raises(StoreAwayError, match="cannot be read any more"):
        pack_shard.pack_part(part)
    assert not list((tmp_path / "out").glob("000000*"))
    forever, pauses = False, []
    pack_shard.pack_part(part)
    assert json.loads((tmp_path / "out/000000.json").read_text())["images"] == 7


def test_a_single_file_that_is_gone_is_bad_without_waiting(loose, tmp_path, monkeypatch):
    data = tmp_path / "data"
    shutil.copytree(loose, data)
    plan = pack.make_plan(data, tmp_path / "out", PackSettings(short_side=64, per_shard=7))
    monkeypatch.setattr(pack_shard.time, "sleep", None)
    sorted(data.iterdir())[3].unlink()
    finish(pack_shards(begun(plan)).out)
    assert "No such file" in (tmp_path / "out/left_out.txt").read_text()


def begun(plan):
    pack.begin(plan)
    return plan


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"short_side": 0}, "`short_side` must be from 1 to 65500; got 0"),
        ({"quality": 101}, "`quality` must be from 1 to 100; got 101"),
        ({"per_shard": 0}, "`per_shard` must be"),
        ({"min_side": -1}, "`min_side` must be"),
        ({"sampling": "411"}, "`sampling` must be 420 or 444; got 411"),
    ],
)
def test_settings_have_limits(settings, message):
    with pytest.raises(UserError, match=message):
        PackSettings(**settings)
    assert replace(PackSettings(), quality=1).quality == 1


def test_a_share_is_said_or_taken_from_the_scheduler(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"):
        monkeypatch.delenv(name, raising=False)
    assert _share(None) == (0, 1)
    assert _share("3/8") == (3, 8)
    for wrong in ("8/8", "1", "a/b", "-1/4", "1/0", "", "1/2/3"):
        with pytest.raises(UserError, match="`shard` must be K/N with K from 0 to N - 1"):
            _share(wrong)
    slurm = {"ID": "7", "COUNT": "4", "MIN": "3", "STEP": "2", "MAX": "9"}  # --array=3-9:2
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert _share(None) == (2, 4)
    monkeypatch.setenv("SLURM_ARRAY_TASK_STEP", "1")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "9")  # --array=3,4,8,9
    with pytest.raises(UserError, match="SLURM_ARRAY_TASK_ID gives the share 6 of 4"):
        _share(None)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert _share(None) == (1, 3)
    assert _share("0/2") == (0, 2)


@pytest.mark.exhaustive
def test_ray_packs_the_same(loose, packed, tmp_path):
    pytest.importorskip("ray")
    ended = run("--data", loose, "--out", tmp_path / "out", *SAME, "--engine", "ray", timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert digests(tmp_path / "out") == digests(packed)
