"""Division by multiplication: exact for every number that a kernel divides."""

import pytest

from dptmat.kernels.division import reciprocal


def quotient(n, packed):
    """Divide as division.cuh does, in 32 bits."""
    multiplier, shift = packed % 2**32, packed >> 32
    total = (n * multiplier >> 32) + n
    assert total < 2**32
    return total >> shift


POWERS = [2**k + d for k in range(2, 31) for d in (-1, 0, 1)]


@pytest.mark.parametrize("divisors", [range(1, 3000), [*POWERS, 2**31 - 1, 2**31]], ids=["small", "large"])
def test_quotients_around_every_kind_of_multiple(divisors):
    for d in divisors:
        packed, most = reciprocal(d), (2**31 - 1) // d
        for q in {0, 1, 2, most // 3, most // 2, most - 1, most}:
            for n in (q * d - 1, q * d, q * d + d - 1):
                if 0 <= n < 2**31:
                    assert quotient(n, packed) == n // d, (n, d)


def test_every_pixel_of_an_image_finds_its_row_and_cell():
    for width, cell in ((224, 7), (1, 1), (31, 5), (640, 64)):
        rows, columns = reciprocal(width), reciprocal(cell)
        for pixel in range(20 * width):
            y = quotient(pixel, rows)
            assert (y, quotient(pixel - y * width, columns)) == (pixel // width, pixel % width // cell)
