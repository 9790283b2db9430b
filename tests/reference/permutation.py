"""The keyed permutation, from the text of the contract, in Python's integers."""

from reference.philox import LOW, plain_philox


def plain_keys(seed, stream, ident):
    """Draw the eight keys of the rounds."""
    return plain_philox(seed, stream, ident, 0) + plain_philox(seed, stream, ident, 1)


def plain_permute(index, n, keys):
    """Map one position."""
    h = 1
    while 4**h < n:
        h += 1
    while True:
        left, right = index >> h, index & (2**h - 1)
        for key in keys:
            f = (right ^ key) * 0x9E3779B1 & LOW
            f ^= f >> 15
            f = f * 0x85EBCA77 & LOW
            f ^= f >> 13
            left, right = right, left ^ (f & (2**h - 1))
        index = left << h | right
        if index < n:
            return index
