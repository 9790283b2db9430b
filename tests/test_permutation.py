"""The keyed permutation: a bijection for every n, equal to a plain loop, at a cost per position asked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.permutation import plain_keys, plain_permute

from dptmat.kernels.permutation import half_bits, permute, round_keys
from dptmat.kernels.philox import Stream


@pytest.mark.parametrize("n", [*range(1, 20), 63, 64, 65, 1023, 1024, 1025, 4097, 65536, 100_003])
def test_every_position_is_hit_once(n):
    image = permute(np.arange(n), n, round_keys(7, Stream.SHUFFLE, n)[0])
    assert image.dtype == np.int64
    assert np.array_equal(np.sort(image), np.arange(n))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**64 - 1),
    ident=st.integers(0, 2**63 - 1),
    n=st.one_of(st.integers(1, 2**63 - 1), st.sampled_from([2**62, 2**62 + 1, 2**63 - 1])),
    share=st.floats(0, 1, exclude_max=True),
)
def test_equal_to_the_plain_loop(seed, ident, n, share):
    index = min(int(share * n), n - 1)
    keys = round_keys(seed, Stream.SHUFFLE, ident)[0]
    assert keys.tolist() == plain_keys(seed, Stream.SHUFFLE, ident)
    assert permute(index, n, keys) == plain_permute(index, n, keys.tolist())


def test_keys_are_broadcast_against_the_positions():
    keys = round_keys(3, Stream.TRIMAP, np.arange(5) + 2**40)
    table = permute(np.arange(50), 50, keys[:, None])
    assert table.tolist() == [[plain_permute(i, 50, k) for i in range(50)] for k in keys.tolist()]
    assert permute(np.arange(5), 50, keys).tolist() == np.diagonal(table).tolist()
    assert permute(np.zeros((2, 0), np.int64), 50, keys[0]).shape == (2, 0)


def test_ids_and_seeds_give_different_orders():
    keys = [round_keys(s, Stream.SHUFFLE, i)[0] for s in (0, 1, 2**32) for i in (0, 1, 2**32)]
    assert len({tuple(permute(np.arange(100), 100, k).tolist()) for k in keys}) == len(keys)


def test_half_bits_is_the_smallest_that_holds_n():
    for n in [*range(1, 70), 4**15, 4**15 + 1, 2**62, 2**62 + 1]:
        h = half_bits(n)
        assert h >= 1
        assert 4**h >= n
        assert h == 1 or 4 ** (h - 1) < n


@pytest.mark.parametrize(("index", "n"), [(-1, 5), (5, 5)])
def test_position_outside_is_refused(index, n):
    with pytest.raises(ValueError, match="index must be from 0 to n - 1 = 4"):
        permute(np.array([0, index]), n, round_keys(0, Stream.SHUFFLE, 0)[0])


@pytest.mark.parametrize("n", [0, 2**63])
def test_n_out_of_range_is_refused(n):
    with pytest.raises(ValueError, match="n must be from 1"):
        permute(0, n, round_keys(0, Stream.SHUFFLE, 0)[0])
