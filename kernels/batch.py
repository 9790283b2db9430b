"""What a network is trained on in one step."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of composites and what the losses need; every tensor is on one device.

    ``dtype`` below is the one asked of ``synthesize``: float32, float16 or bfloat16.
    """

    # dtype [N, 6, H, W]: the composite, normalised by ImageNet's mean and standard deviation (red, green, blue),
    # and the one-hot trimap (background, unknown, foreground).
    input: Tensor

    alpha: Tensor  # dtype [N, 1, H, W], 0..1: what the network must give back

    # dtype [N, 1, H, W]: sum over channels of |F - B| / std, with F and B in 0..1;
    # the composition loss of a prediction p is exactly |p - alpha| * contrast.
    contrast: Tensor

    trimap: Tensor  # uint8 [N, 1, H, W]: 0 background, 1 unknown, 2 foreground

    pairing: Tensor  # int64 [N]: index in the batch of the view used as background, never the sample's own
