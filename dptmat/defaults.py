"""The method's numbers and the names of its choices, each in one place: settings and operators read them here.

Nothing is imported, so that the command's help need not wait for PyTorch.
"""

# Trimaps and alphas of pre-training (Li et al., Disentangled Pre-training for Image Matting, WACV 2024).
CELL = 7  # side of a trimap's cell in pixels
UNKNOWN_SHARE = 0.75  # of the cells
FOREGROUND_SHARE = 0.125  # of the cells; the rest is background
ALPHA_MODES = ("pixel", "block")  # one random alpha for each unknown pixel, or for each unknown cell

LOSSES = ("l1", "comp", "lap", "grad", "l1_known", "lap_whole")
METRICS = ("sad", "mse", "grad", "conn")  # the four of alphamatting.com and Deep Image Matting
ERRORS = (*METRICS, "mad")  # and the mean absolute difference, which AIM-500 and P3M-10k report as well
WITHOUT_TRIMAP = "_without_trimap"  # how a pre-training's scores end of a network that was shown no trimap
REGIONS = {  # whose pixels errors count, and how tables call them
    "unknown": "the unknown region of the trimap",
    "whole": "the whole image",
    "transition": "the transition region",
}
PRECISIONS = ("auto", "bf16", "fp16", "off")  # of mixed precision
DEVICES = ("auto", "cpu", "cuda")
TRACKERS = ("none", "wandb", "trackio")  # of curves, beside TensorBoard
TRIMAP_SOURCES = ("all-unknown", "from-alpha")  # what trimaps of a test set can be besides files

# Of ImageNet's photographs: red, green, blue in 0..1. Every network here takes colours normalized by them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def name_region(region: str, trimap: str) -> str:
    """Name a region as tables do; the unknown region of an "all-unknown" trimap is the whole image."""
    return f"{REGIONS['whole']}, all unknown" if (region, trimap) == ("unknown", "all-unknown") else REGIONS[region]
