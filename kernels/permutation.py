"""A keyed permutation of ``[0, n)`` with no table and no sort: trimap cells and the epoch's order."""

import numpy as np

from .philox import words

ROUNDS = 8
_FACTORS = np.uint32(0x9E3779B1), np.uint32(0x85EBCA77)
_SHIFTS = np.uint32(15), np.uint32(13)


def round_keys(seed, stream, idents):
    """Draw the round keys of one permutation for each ident: uint32 [N, 8], blocks 0 and 1 of the stream."""
    return words(seed, stream, idents, ROUNDS // 4).reshape(-1, ROUNDS)


def half_bits(n):
    """Return the smallest ``h >= 1`` with ``4**h >= n``: the width in bits of a Feistel half."""
    return max(1, ((n - 1).bit_length() + 1) // 2)


def permute(index, n, keys):
    """Map positions through the keyed permutation of ``[0, n)``.

    A balanced Feistel network on ``2 h`` bits, repeated while the result is ``>= n`` (cycle walking); ``4**h < 4 n``,
    so that a position costs fewer than four passes on average, whatever ``n`` is.

    Args:
        index: Positions, an int or an int64 array of any shape, each in ``[0, n)``.
        n: Size of the permuted range, 1 <= n < 2**63.
        keys: uint32 [..., 8] of :func:`round_keys`; its leading axes are broadcast against ``index``.
            ``keys[0]`` permutes every position alike, ``keys[:, None]`` gives [N, len(index)].

    Returns:
        int64, the broadcast shape of ``index`` and the leading axes of ``keys``.

    Raises:
        ValueError: ``n`` is out of range or a position is outside ``[0, n)``.

    Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002 (cycle walking).
    """
    if not 1 <= n < 2**63:
        raise ValueError(f"n must be from 1 to 2**63 - 1, got {n}; nothing else can be permuted in int64")
    index = np.asarray(index, np.int64)
    if index.size and (index.min() < 0 or index.max() >= n):
        raise ValueError(f"index must be from 0 to n - 1 = {n - 1}, got {index.min()} to {index.max()}")
    shape = np.broadcast_shapes(index.shape, keys.shape[:-1])
    h = half_bits(n)
    # At least one axis: NumPy warns when a scalar wraps around, and an array wraps silently as meant.
    result = np.broadcast_to(_feistel(np.atleast_1d(index).astype(np.uint64), h, keys), shape or (1,)).copy()
    outside = result >= np.uint64(n)
    while outside.any():
        result[outside] = _feistel(result[outside], h, np.broadcast_to(keys, (*result.shape, ROUNDS))[outside])
        outside = result >= np.uint64(n)
    return result.reshape(shape).astype(np.int64)


def _feistel(index, h, keys):
    """Run the eight rounds once: uint64 in [0, 4**h) to the same range."""
    mask = np.uint32(2**h - 1)
    left, right = (index >> np.uint64(h)).astype(np.uint32), (index & np.uint64(mask)).astype(np.uint32)
    for i in range(ROUNDS):
        f = (right ^ keys[..., i]) * _FACTORS[0]
        f ^= f >> _SHIFTS[0]
        f *= _FACTORS[1]
        f ^= f >> _SHIFTS[1]
        left, right = right, left ^ (f & mask)
    return (left.astype(np.uint64) << np.uint64(h)) | right
