"""Philox4x32-10: every random word of a sample, as a function of seed, stream, id and block alone."""

from enum import IntEnum
from typing import TypeAlias

import numpy as np

from ._compile import compiled, inlined

_FACTORS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_ROUNDS = 10

Word: TypeAlias = np.uint32


class Stream(IntEnum):
    """What a word is drawn for; streams never share a word. The numbers are a contract with ``philox.cuh``."""

    TRIMAP = 0  # round keys of the cell permutation
    ALPHA_PIXEL = 1  # a byte for each pixel
    ALPHA_BLOCK = 2  # a byte for each cell
    AUGMENT = 3  # affine and hue parameters of a view
    PAIRING = 4  # shift of the in-batch pairing; the id is the batch's first
    SHUFFLE = 5  # round keys of the epoch's order; the id is the epoch
    SUBSTITUTE = 6  # the photograph put in place of an unreadable one
    FOREGROUND = 7  # round keys of the order of fine-tuning's foregrounds; the id is the pass through them
    FINETUNE = 8  # the other choices of a fine-tuning sample
    REFINEMENT = 9  # the losses' phase at a step; the id is the step
    DILATION = 10  # the width of a test trimap; the id is a hash of the image's name
    BACKGROUND = 11  # the photograph behind a sample, where it is drawn from all
    PAIR = (
        12  # interpolations, saturation and value of a sample whose alpha is moved or whose colours are changed in HSV
    )
    BLOCK = 13  # round keys of the order within a block of photographs; the id is epoch * blocks + block


# Added to a sample's id for what is drawn a second time, from the same streams: no sample has an id as large.
SECOND = 1 << 62


def require_seed(seed: object) -> None:
    """Refuse a seed that does not fit the 64-bit Philox key.

    Raises:
        TypeError: ``seed`` is not an int.
        ValueError: ``seed`` is outside 0..2**64 - 1.
    """
    if not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed must be an int, got {type(seed).__name__}; pass a whole number from 0 to 2**64 - 1")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be from 0 to 2**64 - 1, got {seed}; choose a smaller or a non-negative one")


@inlined
def _high(x: np.uint64) -> Word:
    return np.uint32(x >> np.uint64(32))


@inlined
def philox4x32(c0: Word, c1: Word, c2: Word, c3: Word, k0: Word, k1: Word) -> tuple[Word, Word, Word, Word]:
    """Encrypt a counter of four words with a key of two, all uint32, to four words.

    Equal to Random123's ``philox4x32(10, counter, key)``.

    Args:
        c0, c1, c2, c3: The counter, its lowest word first.
        k0, k1: The key, likewise.

    Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011.
    """
    for _ in range(_ROUNDS):
        p0, p1 = np.uint64(c0) * _FACTORS[0], np.uint64(c2) * _FACTORS[1]
        c0, c1 = np.uint32(_high(p1) ^ c1 ^ k0), np.uint32(p1)
        c2, c3 = np.uint32(_high(p0) ^ c3 ^ k1), np.uint32(p0)
        k0, k1 = np.uint32(k0 + _KEY_STEPS[0]), np.uint32(k1 + _KEY_STEPS[1])
    return c0, c1, c2, c3


@compiled
def _fill(
    out: np.ndarray,  # uint32 [N, blocks, 4]
    seed: np.uint64,
    stream: Word,
    idents: np.ndarray,  # uint64 [N]
) -> None:
    blocks = out.shape[1]
    x, y = np.empty(blocks, np.uint32), np.empty(blocks, np.uint32)
    z, w = np.empty(blocks, np.uint32), np.empty(blocks, np.uint32)
    for n in range(len(idents)):
        low, high, k0, k1 = np.uint32(idents[n]), _high(idents[n]), np.uint32(seed), _high(seed)
        for b in range(blocks):  # a row for each word: several blocks together in vector instructions
            x[b], y[b], z[b], w[b] = philox4x32(np.uint32(b), stream, low, high, k0, k1)
        for b in range(blocks):
            out[n, b, 0], out[n, b, 1], out[n, b, 2], out[n, b, 3] = x[b], y[b], z[b], w[b]


def words(
    seed: int,
    stream: Stream,
    idents: int | np.ndarray,  # int64 or uint64 [N]
    blocks: int,
) -> np.ndarray:  # uint32 [N, blocks, 4]
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
    out = np.empty((len(idents), blocks, 4), np.uint32)
    _fill(out, np.uint64(seed), np.uint32(stream), idents)
    return out
