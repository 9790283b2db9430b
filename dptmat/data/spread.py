"""Some of many, spread evenly over them: to look at a few before all, or in place of all."""

import numpy as np


def spread(count: int, most: int) -> list[int]:
    """Return up to ``most`` different numbers from 0 to ``count - 1``, the first and the last among them, ascending."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)).tolist()
