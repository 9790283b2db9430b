"""The loader: any step at once, zero copy that lasts, and bad files that cost their own sample only."""

import gc
import os
import re
import resource
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from ranges import make_augmentation

from dptmat import synthesize
from dptmat.data.index import ImageIndex
from dptmat.data.sampler import Sampler
from dptmat.errors import UserError
from dptmat.pipelines._dali import Pipeline
from dptmat.pipelines.loader import Loader
from dptmat.pipelines.pretrain import PretrainSource
from dptmat.pipelines.probe import find_unreadable
from dptmat.training.quarantine import Quarantine


def make_loader(index, start=0, micro_batch=4, quarantine=None, device="cpu"):
    sampler = Sampler(7, len(index), 8)
    return Loader(
        PretrainSource(index, sampler, make_augmentation(), 64), sampler,
        micro_batch=micro_batch, device=device, threads=2, start=start,
        quarantine=quarantine or Quarantine(lambda path, reason: None),
    )  # fmt: skip


def take(loader, count):
    return [[tensor.cpu().numpy().copy() for tensor in next(loader)] for _ in range(count)]


def same_views(a, b, device):
    """Whether they show the same photographs in the same way.

    Of a GPU's two decoders, which differ by a level or two, each takes a share of a batch; other photographs differ by
    tens of levels.
    """
    return np.array_equal(a, b) if device == "cpu" else np.abs(a.astype(int) - b).mean() < 4


@pytest.fixture
def index(photographs, tmp_path):
    """24 photographs that a test may damage."""
    for path in sorted(photographs.iterdir())[:24]:
        shutil.copy(path, tmp_path)
    return ImageIndex.open(tmp_path)


def test_batches_hold_views_colours_and_ids_in_order(index):
    loader = make_loader(index)
    first, second = take(loader, 2)
    assert first[0].shape == (4, 64, 64, 3)
    assert first[0].dtype == np.uint8
    assert first[1].shape == (4, 3, 3)
    assert list(first[2]) == [0, 1, 2, 3]
    assert list(second[2]) == [4, 5, 6, 7]
    assert np.array_equal(first[1], make_augmentation().matrices(np.arange(4), 7, 64)[1])


def test_any_step_comes_at_once_as_if_all_before_had_been_run(index, device):
    whole = take(make_loader(index, device=device), 2 * 7)
    for a, b in zip(whole[2 * 5 :], take(make_loader(index, start=5, device=device), 4), strict=True):
        assert same_views(a[0], b[0], device)
        assert all(np.array_equal(x, y) for x, y in zip(a[1:], b[1:], strict=True))


def test_the_size_of_micro_batches_does_not_change_a_view(index):
    small, large = take(make_loader(index), 4), take(make_loader(index, micro_batch=8), 2)
    assert np.array_equal(np.concatenate([b[0] for b in small]), np.concatenate([b[0] for b in large]))


def test_tensors_stay_as_they_are_while_the_loader_goes_on(index, device):
    loader = make_loader(index, device=device)
    first = next(loader)
    copy = first.views.clone()
    take(loader, 10)
    assert torch.equal(first.views, copy)


def test_on_a_gpu_batches_are_copied_into_memory_of_torch(index, monkeypatch):
    """Shown on the CPU, where DALI copies by the same call: none of its memory is lent, which it would wait for."""
    loader, lent = make_loader(index), make_loader(index)
    outputs = [output.as_tensor() for output in loader._run()]
    loader._gpu = torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=0))
    copies = [loader._to_torch(output) for output in outputs]
    for copy, output, expected in zip(copies, outputs, next(lent), strict=True):
        assert torch.equal(copy, expected)
        assert copy.dtype == expected.dtype
        assert copy.data_ptr() != output.data_ptr()


@pytest.mark.gpu
def test_gpu_batches_are_those_of_the_cpu(index):
    for on_cpu, on_gpu in zip(take(make_loader(index), 6), take(make_loader(index, device="cuda"), 6), strict=True):
        assert np.abs(on_gpu[0].astype(int) - on_cpu[0]).mean() < 2  # levels: other decoders, other interpolation
        assert np.array_equal(on_gpu[1], on_cpu[1])
        assert np.array_equal(on_gpu[2], on_cpu[2])


@pytest.mark.gpu
def test_gpu_batches_that_are_given_back_are_not_overwritten_while_they_are_read(index):
    """The host is up to 40 batches ahead of a stream that has yet to read the first, and keeps none of them."""
    expected = take(make_loader(index, device="cuda"), 40)
    for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
        with torch.cuda.stream(stream):
            loader, read = make_loader(index, device="cuda"), []
            for _ in range(40):
                torch.cuda._sleep(20_000_000)  # cycles: 10 ms at 2 GHz
                read.append(next(loader).views.clone())
            stream.synchronize()
        for (views, *_), later in zip(expected, read, strict=True):
            assert same_views(views, later.cpu().numpy(), "cuda")


@pytest.mark.exhaustive
def test_ten_thousand_batches_take_no_more_memory_than_a_thousand(photographs):
    index = ImageIndex.open(photographs)
    loader = make_loader(index, micro_batch=2)
    resident = []  # KB, after every thousand
    for number in range(1, 10_001):
        views = next(loader)
        synthesize(views.views, views.ids, 7, views.color)
        if number % 1000 == 0:
            status = Path("/proc/self/status").read_text()
            resident.append(int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)))
    # It moves by 2 MB from one thousand to the next; a kilobyte lost with each batch would be 9 MB.
    assert max(resident) - resident[0] < 6000, resident


def claim_huge(content):
    """A JPEG file whose head says that it is 65500 pixels high and wide."""
    size = content.index(b"\xff\xc0") + 5  # height and width, 2 bytes each
    return content[:size] + b"\xff\xdc\xff\xdc" + content[size + 4 :]


def claim_twelve_bits(content):
    """A JPEG file whose head says that it has 12 bits per colour."""
    precision = content.index(b"\xff\xc0") + 4
    return content[:precision] + b"\x0c" + content[precision + 1 :]


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a photograph\n" * 20),
    "removed": lambda path: path.unlink(),
    "huge": lambda path: path.write_bytes(claim_huge(path.read_bytes())),
    "twelve bits": lambda path: path.write_bytes(claim_twelve_bits(path.read_bytes())),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "page": lambda path: path.write_bytes(b"<html>502 Bad Gateway</html>"),
    "sparse": lambda path: os.truncate(path, 2 << 30),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_bad_file_is_named_once_and_only_its_samples_change(index, kind, device):
    good = take(make_loader(index, device=device), 2 * 9)  # three epochs: the bad file comes up three times
    victim = 5
    DAMAGE[kind](Path(index[victim]))
    named, sampler, changed = [], Sampler(7, len(index), 8), 0
    quarantine = Quarantine(lambda *bad: named.append(bad))
    loader = make_loader(index, quarantine=quarantine, device=device)
    for before, after in zip(good, take(loader, 2 * 9), strict=True):
        assert np.array_equal(before[2], after[2])
        for i, image in enumerate(sampler.images_of(before[2])):
            assert np.array_equal(before[1][i], after[1][i])
            same = same_views(before[0][i], after[0][i], device)
            assert same == (image != victim)
            changed += not same
    assert changed == 3
    assert [path for path, _ in named] == [index[victim]]
    assert named[0][1]
    assert quarantine.bad == dict(named)


def test_the_substitute_does_not_depend_on_when_the_damage_was_found(index, device):
    for victim in (2, 9, 17):
        DAMAGE["truncated"](Path(index[victim]))
    early = take(make_loader(index, device=device), 2 * 6)
    late = take(make_loader(index, start=3, device=device), 2 * 3)
    for a, b in zip(early[2 * 3 :], late, strict=True):
        assert same_views(a[0], b[0], device)


def test_a_failure_that_is_gone_when_the_files_are_looked_at_changes_nothing(index, device):
    expected = take(make_loader(index, device=device), 4)
    named = []
    loader = make_loader(index, quarantine=Quarantine(lambda *bad: named.append(bad)), device=device)
    take(loader, 1)
    fail(loader, times=3)
    for a, b in zip(expected[1:], take(loader, 3), strict=True):
        assert same_views(a[0], b[0], device)
        assert all(np.array_equal(x, y) for x, y in zip(a[1:], b[1:], strict=True))
    assert not named
    fail(loader, times=100)
    with pytest.raises(UserError, match="a batch cannot be made, though .*: a disk hiccups; .*smaller `micro_batch`"):
        next(loader)


def fail(loader, times):
    """Let the loader's next graphs fail as often as ``times``."""
    left, start = [times], loader._start

    def failing():
        start()
        left[0] -= 1
        if left[0] > 0:
            loader._pipe.run = hiccup

    def hiccup(*_):
        raise RuntimeError("a disk hiccups")

    loader._start, loader._pipe.run = failing, hiccup


def test_a_file_system_that_comes_back_costs_a_wait_and_no_file(index, monkeypatch):
    """Its folder is moved away, and back in the second wait."""
    folder = Path(index[0]).parent
    expected, waits = take(make_loader(index), 4), []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            (folder.parent / "away").rename(folder)

    monkeypatch.setattr(time, "sleep", sleep)
    quarantine = Quarantine(print)
    folder.rename(folder.parent / "away")
    for a, b in zip(expected, take(make_loader(index, quarantine=quarantine), 4), strict=True):
        assert np.array_equal(a[0], b[0])
    assert waits == [1, 2]
    assert not quarantine.bad
    folder.rename(folder.parent / "away")
    with pytest.raises(UserError, match="no file can be read any more, the first one .*: No such file"):
        take(make_loader(index, quarantine=quarantine), 1)


def test_many_missing_files_in_a_row_are_no_lost_file_system(photographs, tmp_path):
    """All files of two batches in a row are gone, and those of others are there."""
    for path in sorted(photographs.iterdir())[:64]:
        shutil.copy(path, tmp_path)
    index = ImageIndex.open(tmp_path)
    for number in Sampler(7, len(index), 8).images_of(np.arange(16)):
        os.unlink(index[int(number)])
    quarantine, began = Quarantine(lambda path, reason: None), time.perf_counter()
    take(make_loader(index, quarantine=quarantine), 4)
    assert len(quarantine.bad) == 16
    assert time.perf_counter() - began < 20  # without the waits for a file system


def test_a_photograph_that_dali_refuses_is_shown_by_pillow(index, said):
    """A lossless WebP file with a profile of its camera, beside the same pixels as PNG."""
    photograph, exif = Image.open(index[5]), Image.Exif()
    exif[0x010F] = "a camera"
    photograph.save(index[5], "PNG")
    expected = take(make_loader(index), 6)
    photograph.save(index[5], "WEBP", lossless=True, exif=exif)
    quarantine = Quarantine(lambda path, reason: None)
    for a, b in zip(take(make_loader(index, quarantine=quarantine), 6), expected, strict=True):
        assert all(map(np.array_equal, a, b))
    assert not quarantine.bad
    assert said() == f"decoded by Pillow, since DALI does not take them: {index[5]}\n"


@pytest.mark.timing
def test_a_bad_file_costs_under_two_seconds(photographs, tmp_path):
    for path in photographs.iterdir():
        shutil.copy(path, tmp_path)
    index = ImageIndex.open(tmp_path)
    sampler = Sampler(7, len(index), 8)
    DAMAGE["truncated"](Path(index[int(sampler.images_of([9])[0])]))
    loader = make_loader(index, micro_batch=8)
    take(loader, 1)
    began = time.perf_counter()
    take(loader, 1)
    assert time.perf_counter() - began < 2


@pytest.mark.timing
def test_a_head_that_claims_billions_of_pixels_is_refused_without_memory_for_them(photographs, tmp_path):
    path = tmp_path / "huge.jpg"
    path.write_bytes(claim_huge(sorted(photographs.iterdir())[0].read_bytes()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert list(find_unreadable([str(path)], None)) == [(str(path), "claims more than 178,956,970 pixels")]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB; the picture would take 13 GB


def test_a_folder_of_bad_files_ends_with_a_sentence(index, device):
    for i in range(len(index)):
        DAMAGE["text"](Path(index[i]))
    with pytest.raises(ValueError, match="none of the 24 photographs can be decoded"):
        take(make_loader(index, device=device), 1)


@pytest.mark.parametrize("damage", ["gone", "text", "folder"])
def test_a_bad_file_whose_name_is_no_text_is_left_out(index, tmp_path, damage):
    """DALI's binding raises UnicodeDecodeError for its own message on such a file."""
    name = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    shutil.copy(index[0], name)
    index = ImageIndex.open(tmp_path)
    quarantine = Quarantine(lambda path, reason: None)
    loader = make_loader(index, quarantine=quarantine)
    name.unlink()
    if damage == "text":
        name.write_text("no photograph\n" * 9)
    elif damage == "folder":
        name.mkdir()
    assert sum(len(batch[2]) for batch in take(loader, 6)) == 24  # an epoch, in which each photograph comes once
    assert list(quarantine.bad) == [str(name)]


@pytest.mark.parametrize("error", [UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), ValueError("x"), IndexError("x")])
def test_whatever_dali_raises_once_costs_a_second_try(index, monkeypatch, said, error):
    expected, loader = take(make_loader(index), 3), make_loader(index)
    run = Pipeline.run
    hiccups = [error]

    def failing(self, *args, **inputs):
        if hiccups:
            raise hiccups.pop()
        return run(self, *args, **inputs)

    monkeypatch.setattr(Pipeline, "run", failing)
    for a, b in zip(take(loader, 3), expected, strict=True):
        assert all(map(np.array_equal, a, b))
    assert "a batch failed, though each of its files can be decoded" in said()


def count_threads():
    return len(os.listdir("/proc/self/task"))


@pytest.mark.parametrize("end", ["closed", "failed", "measured"])
def test_a_graph_that_is_done_with_leaves_no_threads(index, end):
    """Each has about eight; a notebook with a hundred runs would have eight hundred."""
    take(make_loader(index), 1)  # what is made once stays
    loader = make_loader(index)
    first = next(loader)
    kept, before = first.views.clone(), count_threads()
    for _ in range(6):
        if end == "closed":
            other = make_loader(index)
            next(other)
            other.close()
            del other
        elif end == "failed":
            loader._pipe.run = None  # calling it raises
            next(loader)
        else:
            stage = loader.run_to("decode")
            next(stage)
            stage.close()
            del stage
    gc.collect()
    for _ in range(100):  # threads take a moment to end
        if count_threads() <= before + 4:
            break
        time.sleep(0.02)
    assert count_threads() <= before + 4
    assert torch.equal(first.views, kept)
