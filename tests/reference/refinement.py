"""Losses of fine-tuning sample by sample: refinement with OpenCV's ellipses, and the L1 loss in NumPy."""

import cv2
import numpy as np

SHARES = {"alpha_os1": 2 / 5, "alpha_os4": 1 / 5, "alpha_os8": 1 / 5}


def plain_refine(outputs, widths):
    """Put finer alphas [N, H, W] in place of uncertain coarser ones; return them and where each was asked."""
    fused, regions = {"alpha_os8": outputs["alpha_os8"]}, {"alpha_os8": np.ones(outputs["alpha_os8"].shape, bool)}
    coarse = outputs["alpha_os8"]
    for column, name in enumerate(("alpha_os4", "alpha_os1")):
        regions[name] = np.stack([_around(alpha, int(w)) for alpha, w in zip(coarse, widths[:, column], strict=True)])
        fused[name] = coarse = np.where(regions[name], outputs[name], coarse)
    return fused, regions


def _around(alpha, width):
    """Mark the pixels of one alpha [H, W] that are neither 0 nor 1 to 8 bits, grown by an ellipse."""
    uncertain = ((alpha >= np.float32(1 / 255)) & (alpha <= np.float32(254 / 255))).astype(np.uint8)
    return cv2.dilate(uncertain, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))) > 0


def plain_l1(outputs, regions, alpha):
    """Sum over the outputs of share times mean absolute error over its region, in float64."""
    errors = {name: np.abs(outputs[name].astype(np.float64) - alpha) for name in outputs}
    return sum(share * errors[name][regions[name]].mean() for name, share in SHARES.items())
