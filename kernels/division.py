"""Division by a number that the host knows: the multiplier for ``division.cuh``."""


def reciprocal(divisor: int) -> int:
    """Return what the device multiplies with and shifts by to divide numbers below 2**31.

    With ``s`` the smallest shift for which ``2**s >= divisor`` and ``m = 2**32 * (2**s - divisor) // divisor + 1``, the
    quotient of n is ``(n * m // 2**32 + n) >> s``.

    Args:
        divisor: From 1 to 2**31.

    Returns:
        ``m`` in the low 32 bits, ``s`` above.

    Source: Granlund and Montgomery, Division by Invariant Integers using Multiplication, PLDI 1994.
    """
    shift = (divisor - 1).bit_length()
    multiplier = 2**32 * (2**shift - divisor) // divisor + 1
    return multiplier | shift << 32
