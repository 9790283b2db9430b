"""Checks of arguments before a launch, so that a wrong call ends in a sentence and not in a CUDA error."""

import torch
from torch import Tensor

from dptmat.defaults import ALPHA_MODES

from .philox import require_seed


def seed_as_int64(seed: int) -> int:
    """Check a seed and return its 64 bits as a signed int, the only kind that an operator's schema has.

    Raises:
        TypeError: ``seed`` is not an int.
        ValueError: ``seed`` is outside 0..2**64 - 1.
    """
    require_seed(seed)
    return int(seed) - 2**64 if seed >= 2**63 else int(seed)


def require_ids(ids: object) -> None:
    """Refuse anything but sample ids, int64 [N].

    Raises:
        TypeError: ``ids`` is not an int64 tensor.
        ValueError: ``ids`` is not [N].
    """
    ids = require_dtype("ids", ids, torch.int64, "convert them with ids.to(torch.int64)")
    require_shape("ids", ids, (None,), "pass one sample id for each sample")


def require_dtype(name: str, tensor: object, dtype: torch.dtype, advice: str) -> Tensor:
    """Refuse what is not a tensor of ``dtype``, and return what is.

    Args:
        name: Of the parameter, for the message.
        tensor: What was given for it.
        dtype: What its elements must be.
        advice: What to do about another one.

    Raises:
        TypeError: It is no tensor, or one of another dtype.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a {dtype} tensor, got {type(tensor).__name__}; {advice}")
    if tensor.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, got {tensor.dtype} {tuple(tensor.shape)}; {advice}")
    return tensor


def require_shape(name: str, tensor: Tensor, shape: tuple[int | None, ...], advice: str) -> None:
    """Refuse a tensor of another shape.

    Args:
        name: Of the parameter, for the message.
        tensor: What was given for it.
        shape: The lengths that it must have; None stands for any.
        advice: What to do about another one.

    Raises:
        ValueError: The number of dimensions or a length is another.
    """
    lengths = tuple(tensor.shape)
    matching = tuple([got if want is None else want for want, got in zip(shape, lengths, strict=False)])
    if len(lengths) != len(shape) or lengths != matching:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} must have the shape [{wanted}], got {list(lengths)}; {advice}")


def require_same_device(**tensors: Tensor) -> None:
    """Refuse tensors, given by their names, that lie on different devices.

    Raises:
        ValueError: They do.
    """
    if len({tensor.device for tensor in tensors.values()}) > 1:
        places = ", ".join(f"{name} on {tensor.device}" for name, tensor in tensors.items())
        raise ValueError(f"{' and '.join(tensors)} must be on one device, got {places}; move them with .to(device)")


def as_height_and_width(size: object) -> tuple[int, int]:
    """Refuse what is not a pair of ints, such as one number for a square.

    Raises:
        TypeError: It is no tuple or list of two ints.
    """
    if not isinstance(size, (tuple, list)) or not all(isinstance(side, int) for side in size) or len(size) != 2:
        raise TypeError(f"size must be (height, width) in pixels, got {size!r}; write (224, 224) for a square of 224")
    height, width = size
    return height, width


def require_size(height: int, width: int, cell: int) -> None:
    """Refuse an image without pixels, one too large for a kernel's indices, and cells that do not fit it.

    Args:
        height: Of the image in pixels.
        width: Of the image in pixels.
        cell: Side of a cell in pixels.

    Raises:
        TypeError: ``cell`` is not an int.
        ValueError: The image or ``cell`` is too small or too large.
    """
    if not isinstance(cell, int):
        raise TypeError(f"cell must be an int, got {cell!r}; pass the side of a cell in pixels")
    if height < 1 or width < 1 or height * width >= 2**31:
        raise ValueError(f"size must be 1 to 2**31 - 1 pixels, got height {height} and width {width}; resize the image")
    if not 1 <= cell <= max(height, width):
        raise ValueError(
            f"cell must be from 1 to the image's longer side, {max(height, width)} pixels, got {cell}; "
            "choose smaller cells or larger images"
        )


def require_shares(unknown: float, foreground: float) -> None:
    """Refuse shares outside 0..1, NaN included, or that add up to more than 1.

    Raises:
        TypeError: A share is not a number.
        ValueError: A share is outside 0..1, or the two add up to more than 1.
    """
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


def require_mode(mode: str) -> None:
    """Refuse an unknown way of drawing alpha.

    Raises:
        ValueError: ``mode`` is none of ALPHA_MODES.
    """
    if mode not in ALPHA_MODES:
        raise ValueError(f"mode must be one of {', '.join(ALPHA_MODES)}, got {mode!r}; pixel is the paper's choice")


def require_non_negative(ids: Tensor) -> None:
    """Refuse negative ids; for CPU tensors only, because on a GPU the host would have to wait.

    Raises:
        ValueError: An id is negative.
    """
    if len(ids) and ids.min() < 0:
        raise ValueError(f"ids must be 0 or more, got {int(ids.min())}; an id is epoch * dataset size + position")
