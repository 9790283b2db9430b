"""Philox4x32-10: every random word of a sample, as a function of seed, stream, id and block alone."""

from enum import IntEnum

import numpy as np

_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10


class Stream(IntEnum):
    """What a word is drawn for; streams never share a word. The numbers are a contract with ``philox.cuh``."""

    TRIMAP = 0  # round keys of the cell permutation
    ALPHA_PIXEL = 1  # a byte for each pixel
    ALPHA_BLOCK = 2  # a byte for each cell
    AUGMENT = 3  # affine and hue parameters of a view
    PAIRING = 4  # shift of the in-batch pairing; the id is the batch's first
    SHUFFLE = 5  # round keys of the epoch's order; the id is the epoch
    SUBSTITUTE = 6  # the photograph put in place of an unreadable one


def require_seed(seed):
    """Refuse a seed that does not fit the 64-bit Philox key."""
    if not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed must be an int, got {type(seed).__name__}; pass a whole number from 0 to 2**64 - 1")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be from 0 to 2**64 - 1, got {seed}; choose a smaller or a non-negative one")


def philox4x32(counter, key):
    """Encrypt counters with Philox4x32-10.

    Args:
        counter: uint32 [..., 4].
        key: Two ints of 32 bits.

    Returns:
        uint32 [..., 4], equal to Random123's ``philox4x32(10, counter, key)``.

    Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011.
    """
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1 = (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0), p1 & _LOW
        c2, c3 = (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def words(seed, stream, idents, blocks):
    """Draw the first ``4 * blocks`` random words of each ident in a stream.

    Args:
        seed: Seed of the run, 0 <= seed < 2**64.
        stream: A :class:`Stream`.
        idents: 64-bit ids, an int or an array of int64 or uint64 [N]; an int counts as N = 1.
        blocks: Number of Philox blocks of four words, 0..2**32.

    Returns:
        uint32 [N, blocks, 4].

    Raises:
        TypeError: ``seed`` is not an int.
        ValueError: ``seed`` is outside 0..2**64 - 1.

    Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011.
    """
    require_seed(seed)
    idents = np.atleast_1d(np.asarray(idents)).astype(np.uint64)
    counter = np.empty((len(idents), blocks, 4), np.uint32)
    counter[..., 0] = np.arange(blocks)
    counter[..., 1] = stream
    counter[..., 2] = (idents & _LOW)[:, None]
    counter[..., 3] = (idents >> _SHIFT)[:, None]
    return philox4x32(counter, (int(seed) & 0xFFFFFFFF, int(seed) >> 32))
