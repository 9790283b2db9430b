"""The matting equation, ``C = alpha * F + (1 - alpha) * B``, differentiable in all three."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _checks
from ._launch import count_tiles, launch
from ._operator import register

FLOATS = torch.float16, torch.bfloat16, torch.float32, torch.float64


def composite(
    fg: Tensor,  # [N, 3, H, W]
    bg: Tensor,  # [N, 3, H, W]
    alpha: Tensor,  # [N, 1 or 3, H, W]
) -> Tensor:  # [N, 3, H, W]
    """Lay a foreground over a background: ``alpha * fg + (1 - alpha) * bg`` for each pixel and channel.

    Differentiable once in all three, also under ``torch.compile``; ``torch.func.vmap`` maps it.
    Floats are computed in float32 (float64 for float64) in the order written and rounded once, equally on CPU and CUDA
    (but there float32 below 1.2e-38 counts as 0). Of uint8 tensors 255 is one, and the result is rounded to nearest.
    Does not wait for the device.

    Args:
        fg: Foreground [N, 3, H, W], uint8 or float16, bfloat16, float32 or float64 of any range.
        bg: Background, shape, dtype and device of ``fg``.
        alpha: [N, 1, H, W] for all channels or [N, 3, H, W], dtype and device of ``fg``; 1 (uint8: 255) is opaque.

    Returns:
        [N, 3, H, W], contiguous, dtype and device of ``fg``.

    Raises:
        TypeError: A dtype is not one of the five, or they differ.
        ValueError: Shapes or devices do not agree.
        RuntimeError: The tensors are on CUDA, and CuPy is missing or the GPU too old; or, in the backward pass, a
            second derivative is asked for.

    Source: Porter and Duff, Compositing Digital Images, SIGGRAPH 1984.
    """
    if not isinstance(fg, Tensor) or fg.dtype not in (*FLOATS, torch.uint8):
        got = fg.dtype if isinstance(fg, Tensor) else type(fg).__name__
        raise TypeError(
            f"fg must be a float16, bfloat16, float32, float64 or uint8 tensor, got {got}; convert it with .to()"
        )
    _checks.require_dtype("bg", bg, fg.dtype, "convert it to the dtype of fg")
    _checks.require_dtype("alpha", alpha, fg.dtype, "convert it to the dtype of fg")
    _checks.require_shape("fg", fg, (None, 3, None, None), "pass RGB images with the channels first")
    samples, _, height, width = fg.shape
    _checks.require_shape("bg", bg, (samples, 3, height, width), "make it as large as fg")
    channels = 3 if alpha.dim() == 4 and alpha.shape[1] == 3 else 1
    _checks.require_shape(
        "alpha", alpha, (samples, channels, height, width), "make it as large as fg, with one channel or three"
    )
    _checks.require_same_device(fg=fg, bg=bg, alpha=alpha)
    return _operator(fg, bg, alpha)


def _widen(*tensors: Tensor) -> list[Tensor]:
    """Convert to the dtype of the arithmetic: float16 and bfloat16 would round after every operation."""
    return [x if x.dtype == torch.float64 else x.float() for x in tensors]


def _composite(fg: Tensor, bg: Tensor, alpha: Tensor) -> Tensor:
    if fg.dtype == torch.uint8:
        f, b, a = fg.int(), bg.int(), alpha.int()
        return ((2 * (a * f + (255 - a) * b) + 255) // 510).byte().contiguous()
    f, b, a = _widen(fg, bg, alpha)
    return (a * f + (1 - a) * b).to(fg.dtype).contiguous()


def _composite_cuda(fg: Tensor, bg: Tensor, alpha: Tensor) -> Tensor:
    out = _composite_fake(fg, bg, alpha)
    _launch_pixels("composite", alpha.shape[1], fg, bg, alpha, out)
    return out


def _composite_fake(fg: Tensor, bg: Tensor, alpha: Tensor) -> Tensor:
    return torch.empty_like(fg, memory_format=torch.contiguous_format)


def _composite_backward(grad: Tensor, fg: Tensor, bg: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    g, f, b, a = _widen(grad, fg, bg, alpha)
    grad_alpha = g * (f - b)
    if alpha.shape[1] == 1:
        grad_alpha = grad_alpha[:, 0:1] + grad_alpha[:, 1:2] + grad_alpha[:, 2:3]
    grad_fg, grad_bg, grad_alpha = (x.to(fg.dtype).contiguous() for x in (a * g, (1 - a) * g, grad_alpha))
    return grad_fg, grad_bg, grad_alpha


def _composite_backward_cuda(grad: Tensor, fg: Tensor, bg: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grads = _composite_backward_fake(grad, fg, bg, alpha)
    _launch_pixels("composite_backward", alpha.shape[1], grad, fg, bg, alpha, *grads)
    return grads


def _composite_backward_fake(grad: Tensor, fg: Tensor, bg: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grad_fg, grad_bg, grad_alpha = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (fg, bg, alpha))
    return grad_fg, grad_bg, grad_alpha


def _launch_pixels(kernel: str, channels: int, *tensors: Tensor) -> None:
    """Launch composite or composite_backward on its inputs and outputs; ``channels`` are those of alpha."""
    samples, _, height, width = tensors[0].shape
    arrays = [x.contiguous() for x in tensors]
    pixels_per_thread = 16 // arrays[0].itemsize
    tiles = count_tiles(height * width, pixels_per_thread)
    aligned = height * width % pixels_per_thread == 0 and all(x.data_ptr() % 16 == 0 for x in arrays)
    sizes = tiles, height * width, channels, aligned
    launch(kernel, kernel, samples * tiles, *arrays, *sizes, dtype=arrays[0].dtype)


def _save_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _backward_operator(grad, *ctx.saved_tensors)


def _save_nothing(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    pass


def _refuse(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError("composite() has no second derivative; write alpha * fg + (1 - alpha) * bg where one is needed")


def _vmap(operator: Callable[..., Any]) -> Callable[..., Any]:
    """Make the rule of ``torch.func.vmap``: the mapped dimension becomes part of the batch."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor) -> tuple[Any, Any]:
        folded = [
            x.unsqueeze(0).expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip(tensors, in_dims, strict=True)
        ]
        out = operator(*(x.flatten(0, 1) for x in folded))
        unfold = [x.unflatten(0, (info.batch_size, -1)) for x in (out if isinstance(out, tuple) else (out,))]
        return (tuple(unfold), (0,) * len(unfold)) if isinstance(out, tuple) else (unfold[0], 0)

    return rule


_operator = register("composite", _composite, _composite_cuda, _composite_fake)
_backward_operator = register(
    "composite_backward", _composite_backward, _composite_backward_cuda, _composite_backward_fake
)
torch.library.register_autograd(_operator, _backward, setup_context=_save_inputs)
torch.library.register_autograd(_backward_operator, _refuse, setup_context=_save_nothing)
torch.library.register_vmap(_operator, _vmap(_operator))
torch.library.register_vmap(_backward_operator, _vmap(_backward_operator))
