"""Checks of arguments before a launch, so that a wrong call ends in a sentence and not in a CUDA error."""

import torch

from .philox import require_seed

MODES = "pixel", "block"


def seed_as_int64(seed):
    """Check a seed and return its 64 bits as a signed int, the only kind that an operator's schema has."""
    require_seed(seed)
    return int(seed) - 2**64 if seed >= 2**63 else int(seed)


def require_ids(ids):
    """Refuse anything but sample ids, int64 [N]."""
    require_dtype("ids", ids, torch.int64, "convert them with ids.to(torch.int64)")
    require_shape("ids", ids, (None,), "pass one sample id for each sample")


def require_dtype(name, tensor, dtype, advice):
    """Refuse what is not a tensor of ``dtype``."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be a {dtype} tensor, got {type(tensor).__name__}; {advice}")
    if tensor.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, got {tensor.dtype} {tuple(tensor.shape)}; {advice}")


def require_shape(name, tensor, shape, advice):
    """Refuse a tensor of another shape; None stands for any length."""
    lengths = tuple(tensor.shape)
    matching = tuple([got if want is None else want for want, got in zip(shape, lengths, strict=False)])
    if len(lengths) != len(shape) or lengths != matching:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} must have the shape [{wanted}], got {list(lengths)}; {advice}")


def require_same_device(**tensors):
    """Refuse tensors that lie on different devices."""
    if len({tensor.device for tensor in tensors.values()}) > 1:
        places = ", ".join(f"{name} on {tensor.device}" for name, tensor in tensors.items())
        raise ValueError(f"{' and '.join(tensors)} must be on one device, got {places}; move them with .to(device)")


def as_height_and_width(size):
    """Refuse what is not a pair of ints, such as one number for a square."""
    if not isinstance(size, (tuple, list)) or not all(isinstance(side, int) for side in size) or len(size) != 2:
        raise TypeError(f"size must be (height, width) in pixels, got {size!r}; write (224, 224) for a square of 224")
    return size


def require_size(height, width, cell):
    """Refuse an image without pixels, one too large for a kernel's indices, and cells that do not fit it."""
    if not isinstance(cell, int):
        raise TypeError(f"cell must be an int, got {cell!r}; pass the side of a cell in pixels")
    if height < 1 or width < 1 or height * width >= 2**31:
        raise ValueError(f"size must be 1 to 2**31 - 1 pixels, got height {height} and width {width}; resize the image")
    if not 1 <= cell <= max(height, width):
        raise ValueError(
            f"cell must be from 1 to the image's longer side, {max(height, width)} pixels, got {cell}; "
            "choose smaller cells or larger images"
        )


def require_shares(unknown, foreground):
    """Refuse shares outside 0..1, NaN included, or that add up to more than 1."""
    for name, share in (("unknown", unknown), ("foreground", foreground)):
        if not isinstance(share, (float, int)):
            raise TypeError(f"{name} must be a number, got {share!r}; 0.75 means 75 % of the cells")
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must be a share from 0 to 1, got {share}; 0.75 means 75 % of the cells")
    if unknown + foreground > 1:
        raise ValueError(
            f"unknown and foreground must not add up to more than 1, got {unknown} and {foreground}; "
            "what they leave is background"
        )


def require_mode(mode):
    """Refuse an unknown way of drawing alpha."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}; pixel is the paper's choice")


def require_non_negative(ids):
    """Refuse negative ids; for CPU tensors only, because on a GPU the host would have to wait."""
    if len(ids) and ids.min() < 0:
        raise ValueError(f"ids must be 0 or more, got {int(ids.min())}; an id is epoch * dataset size + position")
