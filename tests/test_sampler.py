"""The order of samples: each photograph once an epoch, the same for any number of processes, any step at once."""

import itertools
import time

import numpy as np
import pytest

from dptmat.data.sampler import Sampler
from dptmat.errors import UserError
from dptmat.kernels.permutation import permute, round_keys


def test_every_epoch_shows_each_photograph_once_in_another_order():
    sampler = Sampler(seed=5, images=91, batch_size=7)
    epochs = [sampler.images_of(np.concatenate([sampler.ids(e * 13 + step) for step in range(13)])) for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(91))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])


def test_ids_count_positions_and_drop_the_partial_batch():
    sampler = Sampler(seed=0, images=10, batch_size=4)
    assert sampler.steps_per_epoch == 2
    assert [list(sampler.ids(step)) for step in range(4)] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [10, 11, 12, 13], [14, 15, 16, 17],
    ]  # fmt: skip


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_processes_share_the_same_global_batches(world_size):
    whole = Sampler(seed=1, images=100, batch_size=12)
    parts = [Sampler(seed=1, images=100, batch_size=12, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in (0, 7, 8, 1000):
        assert list(itertools.chain(*(part.ids(step) for part in parts))) == list(whole.ids(step))


def test_the_micro_batches_of_a_step_are_its_ids_in_order():
    sampler = Sampler(seed=1, images=100, batch_size=24, rank=1, world_size=2)
    for step in (0, 3, 11):
        parts = [sampler.micro_batch(step, part, 4) for part in range(3)]
        assert [part.dtype for part in parts] == [np.int64] * 3
        assert list(itertools.chain(*parts)) == list(sampler.ids(step))


def test_order_follows_the_contract_written_as_plain_loops():
    """Section 3 of the design in Python integers, with Philox words checked by the tests of philox."""
    from dptmat.kernels.philox import words

    images, seed, epoch = 23, 2**63 + 9, 4
    keys = [int(word) for word in words(seed, 5, np.array([epoch]), 2).ravel()]

    def feistel(x, h):
        left, right = x >> h, x & (2**h - 1)
        for key in keys:
            f = ((right ^ key) * 0x9E3779B1) % 2**32
            f ^= f >> 15
            f = (f * 0x85EBCA77) % 2**32
            f ^= f >> 13
            left, right = right, left ^ (f & (2**h - 1))
        return (left << h) | right

    def image(position, h=3):  # 4**2 < 23 <= 4**3
        position = feistel(position, h)
        while position >= images:
            position = feistel(position, h)
        return position

    ids = epoch * images + np.arange(images)
    assert list(Sampler(seed, images, 4).images_of(ids)) == [image(p) for p in range(images)]


def seconds_of_20_batches(images):
    sampler = Sampler(seed=3, images=images, batch_size=512)
    began = time.perf_counter()
    for step in range(20):
        shown = sampler.images_of(sampler.ids(step * sampler.steps_per_epoch + 1))
        assert len(np.unique(shown)) == 512
        assert shown.max() < images
    return time.perf_counter() - began


@pytest.mark.timing
def test_a_billion_photographs_cost_no_more_than_a_thousand():
    few, many = (min(seconds_of_20_batches(images) for _ in range(3)) for images in (1000, 10**9))
    assert many < 20 * few  # a table of the epoch would take 100,000 times longer


def test_substitutes_are_all_photographs_each_once_and_fixed_by_seed_and_id():
    sampler = Sampler(seed=3, images=50, batch_size=2)
    assert sorted(sampler.substitutes(7)) == list(range(50))
    assert list(sampler.substitutes(7)) == list(sampler.substitutes(7))
    assert list(sampler.substitutes(7)) != list(sampler.substitutes(8))


def test_impossible_batches_are_refused():
    with pytest.raises(
        UserError, match="`batch_size` 8 is more than the 5 photographs .*; use a `batch_size` of 5 or less"
    ):
        Sampler(seed=0, images=5, batch_size=8)
    with pytest.raises(UserError, match="`batch_size` 8 does not divide among 3 processes"):
        Sampler(seed=0, images=50, batch_size=8, world_size=3)


def order_of_blocks(seed, images, batch_size, step):
    """The photographs of a step in the order of blocks, by plain loops over Python's numbers: int list [batch_size]."""
    block = 256
    while block > 1 and block * batch_size * 8 > images:
        block //= 2
    blocks = images // block
    per_place = blocks // batch_size
    epoch, step = divmod(step, per_place * block)
    shown = []
    for place in range(batch_size):
        shifted = (step + place * block // batch_size) % (per_place * block)
        number = shifted // block * batch_size + place
        chosen = int(permute(number, blocks, round_keys(seed, 5, epoch))[0])
        inside = int(permute(shifted % block, block, round_keys(seed, 13, epoch * blocks + chosen))[0])
        shown.append(chosen * block + inside)
    return shown


@pytest.mark.parametrize(("images", "batch_size"), [(100, 10), (5000, 8), (70_000, 16), (64, 64), (2, 2)])
def test_blocks_come_in_the_documented_order_each_photograph_once_an_epoch(images, batch_size):
    sampler = Sampler(9, images, batch_size, in_blocks=True)
    for epoch in (0, 3):
        first = epoch * sampler.steps_per_epoch
        for step in (first, first + sampler.steps_per_epoch // 2, first + sampler.steps_per_epoch - 1):
            assert sampler.images_of(sampler.ids(step)).tolist() == order_of_blocks(9, images, batch_size, step)
        steps = range(first, first + sampler.steps_per_epoch)
        shown = sampler.images_of(np.concatenate([sampler.ids(step) for step in steps]))
        assert len(np.unique(shown)) == len(shown)
        assert 0 <= shown.min() <= shown.max() < images
        assert images - len(shown) < max(images / 8, batch_size) + batch_size


@pytest.mark.parametrize("world_size", [8, 512])
@pytest.mark.parametrize("images", [1_281_167, 10**9])
def test_ranks_share_the_batch_of_one_and_no_block(images, world_size):
    whole = Sampler(4, images, 512, in_blocks=True)
    assert whole.block == 256
    for step in (0, 1, 777_777):
        ranks = [Sampler(4, images, 512, rank, world_size, True) for rank in range(world_size)]
        parts = [sampler.images_of(sampler.ids(step)) for sampler in ranks]
        assert np.array_equal(np.concatenate(parts), whole.images_of(whole.ids(step)))
        blocks = [set((part // 256).tolist()) for part in parts]
        assert sum(map(len, blocks)) == len(set().union(*blocks)) == 512


def test_equally_many_blocks_begin_at_every_step():
    """So that reading is even; at ImageNet's size and batch two of 512."""
    sampler = Sampler(0, 1_281_167, 512, in_blocks=True)
    open_blocks = set((sampler.images_of(sampler.ids(500)) // 256).tolist())
    for step in range(501, 800):
        now = set((sampler.images_of(sampler.ids(step)) // 256).tolist())
        assert len(now - open_blocks) == 2
        open_blocks = now


def test_batches_of_blocks_are_as_mixed_as_those_of_a_full_order():
    """Of data sorted by class, as ImageNet's folders are: different classes in a batch of 512 among 1000."""
    counts = []
    for in_blocks in (False, True):
        sampler = Sampler(1, 1_281_167, 512, in_blocks=in_blocks)
        batches = [sampler.images_of(sampler.ids(step)) * 1000 // 1_281_167 for step in range(0, 2300, 23)]
        counts.append(np.mean([len(np.unique(batch)) for batch in batches]))
    full = 1000 * (1 - (1 - 1 / 1000) ** 512)  # 400.8
    assert abs(counts[0] - full) < 3
    assert full - 3 < counts[1] < full + 25  # a block is seldom drawn twice: rather more


def test_a_run_resumed_in_blocks_is_where_it_was():
    sampler = Sampler(2, 9999, 12, in_blocks=True)
    far = 10**6
    assert np.array_equal(sampler.images_of(sampler.ids(far)), order_of_blocks(2, 9999, 12, far))
