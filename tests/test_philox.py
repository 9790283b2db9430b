"""Philox4x32-10: Random123's known answers, and words that are a function of seed, stream, id and block."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.philox import plain_philox

from dptmat.kernels.philox import Stream, philox4x32, words

# The file kat_vectors of Random123 1.14, lines "philox4x32 10".
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers_of_random123(counter, key, expected):
    counter, key, expected = ([int(word, 16) for word in text.split()] for text in (counter, key, expected))
    assert list(philox4x32(*map(np.uint32, (*counter, *key)))) == expected
    # The same through words(): the key is the seed, the counter holds block, stream and id.
    assert plain_philox(key[0] | key[1] << 32, counter[1], counter[2] | counter[3] << 32, counter[0]) == expected


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**64 - 1),
    stream=st.sampled_from(Stream),
    idents=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4),
)
def test_words_follow_the_counter_of_the_contract(seed, stream, idents):
    expected = [[plain_philox(seed, stream, ident, block) for block in range(3)] for ident in idents]
    drawn = words(seed, stream, np.array(idents, np.int64), 3)
    assert drawn.dtype == np.uint32
    assert drawn.tolist() == expected


def test_ident_may_be_an_int_or_unsigned():
    top = 2**64 - 1
    assert words(1, Stream.PAIRING, top, 1).tolist() == [[plain_philox(1, 4, top, 0)]]
    assert words(1, Stream.PAIRING, np.array([top], np.uint64), 1).tolist() == [[plain_philox(1, 4, top, 0)]]


def test_no_ids_and_no_blocks_give_no_words():
    assert words(0, Stream.AUGMENT, np.array([], np.int64), 2).shape == (0, 2, 4)
    assert words(0, Stream.AUGMENT, np.arange(3), 0).shape == (3, 0, 4)


def test_stream_numbers_are_the_contract():
    names = ["TRIMAP", "ALPHA_PIXEL", "ALPHA_BLOCK", "AUGMENT", "PAIRING", "SHUFFLE", "SUBSTITUTE"]
    names += ["FOREGROUND", "FINETUNE", "REFINEMENT", "DILATION", "BACKGROUND", "PAIR", "BLOCK"]
    assert [(s.name, s.value) for s in Stream] == [(name, i) for i, name in enumerate(names)]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match=r"seed must be from 0 to 2\*\*64 - 1, got"):
        words(seed, Stream.TRIMAP, 0, 1)


def test_seed_of_another_type_is_refused():
    with pytest.raises(TypeError, match="seed must be an int, got float"):
        words(1.0, Stream.TRIMAP, 0, 1)
