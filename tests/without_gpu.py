"""A GPU's tensors on any machine: they have a device and a shape, but no values."""

import contextlib

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dptmat.pipelines.batches import Layers


@contextlib.contextmanager
def without_values(network=None):
    """Tensors made on "cuda" have no values, nor has a network, which is moved there."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with FakeTensorMode():
            if network:
                network._apply(lambda x: torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda"))
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


def empty(*shape, dtype=torch.uint8):
    return torch.empty(shape, dtype=dtype, device="cuda")


def empty_layers(samples, size, margin):
    """Make the layers of a fine-tuning's samples."""
    side = size + 2 * margin
    return Layers(
        empty(samples, side, side, 3), empty(samples, side, side, 1),
        empty(samples, side, side, 3), empty(samples, side, side, 1),
        empty(samples, size, size, 3), empty(samples, 8, dtype=torch.float32), empty(samples, dtype=torch.int64),
    )  # fmt: skip
