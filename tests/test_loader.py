"""The loader: any step at once, zero copy that lasts, and bad files that cost their own sample only."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dptmat.index import ImageIndex
from dptmat.pipelines.augment import Augmentation
from dptmat.pipelines.loader import Loader
from dptmat.sampler import Sampler


def make_loader(index, start=0, micro_batch=4, report_bad=lambda path, reason: None):
    return Loader(
        index, Sampler(7, len(index), 8), Augmentation(),
        size=64, micro_batch=micro_batch, device="cpu", threads=2, prefetch=2, start=start, report_bad=report_bad,
    )  # fmt: skip


def take(loader, count):
    return [[tensor.numpy().copy() for tensor in next(loader)] for _ in range(count)]


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
    assert np.array_equal(first[1], Augmentation().matrices(np.arange(4), 7, 64)[1])


def test_any_step_comes_at_once_as_if_all_before_had_been_run(index):
    whole = take(make_loader(index), 2 * 7)
    for a, b in zip(whole[2 * 5 :], take(make_loader(index, start=5), 4), strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_size_of_micro_batches_does_not_change_a_view(index):
    small, large = take(make_loader(index), 4), take(make_loader(index, micro_batch=8), 2)
    assert np.array_equal(np.concatenate([b[0] for b in small]), np.concatenate([b[0] for b in large]))


def test_tensors_stay_as_they_are_while_the_loader_goes_on(index):
    loader = make_loader(index)
    first = next(loader)
    copy = first.views.clone()
    take(loader, 10)
    assert torch.equal(first.views, copy)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a photograph\n" * 20),
    "removed": lambda path: path.unlink(),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_bad_file_is_named_once_and_only_its_samples_change(index, kind):
    good = take(make_loader(index), 2 * 9)  # three epochs: the bad file comes up three times
    victim = 5
    DAMAGE[kind](Path(index[victim]))
    named, sampler, changed = [], Sampler(7, len(index), 8), 0
    loader = make_loader(index, report_bad=lambda *bad: named.append(bad))
    for before, after in zip(good, take(loader, 2 * 9), strict=True):
        assert np.array_equal(before[2], after[2])
        for i, image in enumerate(sampler.images_of(before[2])):
            assert np.array_equal(before[1][i], after[1][i])
            same = np.array_equal(before[0][i], after[0][i])
            assert same == (image != victim)
            changed += not same
    assert changed == 3
    assert [path for path, _ in named] == [index[victim]]
    assert named[0][1]
    assert loader.bad == {victim: named[0]}


def test_the_substitute_does_not_depend_on_when_the_damage_was_found(index):
    for victim in (2, 9, 17):
        DAMAGE["truncated"](Path(index[victim]))
    early, late = take(make_loader(index), 2 * 6), take(make_loader(index, start=3), 2 * 3)
    for a, b in zip(early[2 * 3 :], late, strict=True):
        assert np.array_equal(a[0], b[0])


def test_a_folder_of_bad_files_ends_with_a_sentence(index):
    for i in range(len(index)):
        DAMAGE["text"](Path(index[i]))
    with pytest.raises(ValueError, match="none of the 24 photographs can be decoded"):
        take(make_loader(index), 1)


def test_the_wait_is_measured(index):
    loader = make_loader(index)
    take(loader, 3)
    assert loader.waited > 0
