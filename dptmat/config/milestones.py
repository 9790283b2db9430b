"""The steps of a learning rate that changes at milestones, as a setting writes them."""

import math

from dptmat.errors import UserError


def read_milestones(text: str) -> list[tuple[float, float]]:
    """Read the milestones of a schedule, such as ``0.3:0.1,0.9:0.05``.

    Returns:
        For each, the share of the run after which it is reached, and what the peak is multiplied by from there on.

    Raises:
        UserError: They are not shares of a run in rising order, each with a factor.
    """
    try:
        pairs = [tuple(map(float, part.split(":"))) for part in text.split(",")]
        shares, factors = zip(*pairs, strict=True)
        rising = list(shares) == sorted(set(shares)) and shares[0] > 0 and shares[-1] < 1
        if not rising or not all(0 < factor < math.inf for factor in factors):
            raise ValueError
    except ValueError:
        raise UserError(
            f"`milestones` must be such as 0.3:0.1,0.9:0.05, shares of the run in rising order, between 0 and 1, each "
            f"with the factor of `lr` from there on, more than 0; got {text!r}"
        ) from None
    return list(zip(shares, factors, strict=True))
