"""A keyed permutation of ``[0, n)`` with no table and no sort: trimap cells and the epoch's order."""

import numpy as np

from ._compile import compiled, inlined
from .philox import Stream, words

ROUNDS = 8
_FACTORS = np.uint32(0x9E3779B1), np.uint32(0x85EBCA77)
_SHIFTS = np.uint32(15), np.uint32(13)


def round_keys(
    seed: int,
    stream: Stream,
    idents: int | np.ndarray,  # int64 or uint64 [N]
) -> np.ndarray:  # uint32 [N, 8]
    """Draw the round keys of one permutation for each ident: blocks 0 and 1 of the stream.

    Args:
        seed: Seed of the run, 0 <= seed < 2**64.
        stream: What the permutation is for.
        idents: As for :func:`dptmat.kernels.philox.words`; an int counts as N = 1.

    Raises:
        TypeError: ``seed`` is not an int.
        ValueError: ``seed`` is outside 0..2**64 - 1.
    """
    return words(seed, stream, idents, ROUNDS // 4).reshape(-1, ROUNDS)


def half_bits(n: int) -> int:
    """Return the smallest ``h >= 1`` with ``4**h >= n``: the width in bits of a Feistel half."""
    return max(1, ((n - 1).bit_length() + 1) // 2)


@inlined
def _feistel(position: np.uint64, half: np.uint64, keys: tuple[np.uint32, ...]) -> np.uint64:
    """Run the eight rounds once: uint64 in ``[0, 4**half)`` to the same range; keys are 8 uint32."""
    mask = np.uint32((np.uint64(1) << half) - np.uint64(1))
    left, right = np.uint32(position >> half), np.uint32(position) & mask
    for key in keys:
        f = np.uint32((right ^ key) * _FACTORS[0])
        f = np.uint32((f ^ (f >> _SHIFTS[0])) * _FACTORS[1])
        f = np.uint32(f ^ (f >> _SHIFTS[1]))
        left, right = right, np.uint32(left ^ (f & mask))
    return (np.uint64(left) << half) | np.uint64(right)


@compiled
def _permute(
    positions: np.ndarray,  # uint64 [K, P] in [0, n)
    n: np.uint64,
    half: np.uint64,
    keys: np.ndarray,  # uint32 [K, 8]
) -> None:
    """Replace positions by where the permutation puts them."""
    for k in range(len(positions)):
        row = positions[k]
        key = keys[k, 0], keys[k, 1], keys[k, 2], keys[k, 3], keys[k, 4], keys[k, 5], keys[k, 6], keys[k, 7]
        for p in range(len(row)):  # once for all, in vector instructions
            row[p] = _feistel(row[p], half, key)
        for p in range(len(row)):
            while row[p] >= n:
                row[p] = _feistel(row[p], half, key)


def permute(
    index: int | np.ndarray,  # int64 [...]
    n: int,
    keys: np.ndarray,  # uint32 [..., 8]
) -> np.ndarray:  # int64
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
    if not index.size or 0 in shape:
        return np.empty(shape, np.int64)
    columns = shape[-1] if shape and (keys.ndim == 1 or keys.shape[-2] == 1) else 1  # positions with the same keys
    positions = np.broadcast_to(index, shape).astype(np.uint64, order="C").reshape(-1, columns)
    keys = np.broadcast_to(keys, (*shape, ROUNDS)).reshape(-1, columns, ROUNDS)[:, 0]
    _permute(positions, np.uint64(n), np.uint64(half_bits(n)), np.ascontiguousarray(keys))
    return positions.astype(np.int64).reshape(shape)
