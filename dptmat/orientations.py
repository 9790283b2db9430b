"""An alpha as the mean over the eight orientations of its image: upright, turned and mirrored."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def predict_oriented(
    predict: Callable[[np.ndarray, np.ndarray], Tensor],  # of image and trimap -> float32 [H, W]
    image: np.ndarray,  # uint8 [H, W, 3]
    trimap: np.ndarray,  # uint8 [H, W]
) -> Tensor:  # float32 [H, W]
    """Predict in each of the eight orientations, turn the alphas back, and average them.

    Eight alphas that are equal give their own value: the mean is exact.
    """
    total = None
    for mirrored in (False, True):
        for turns in range(4):
            image_, trimap_ = (np.rot90(x[:, ::-1] if mirrored else x, turns) for x in (image, trimap))
            alpha = torch.rot90(predict(image_, trimap_), -turns)
            alpha = (alpha.flip(1) if mirrored else alpha).double()
            total = alpha if total is None else total + alpha
    assert total is not None
    return (total / 8).float()
