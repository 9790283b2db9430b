"""The matting equation, ``C = alpha * F + (1 - alpha) * B``, differentiable in all three."""

import torch

from . import _checks
from ._launch import NUMBERS, THREADS, launch


def composite(fg, bg, alpha):
    """Lay a foreground over a background: ``alpha * fg + (1 - alpha) * bg`` for each pixel and channel.

    Differentiable once in all three, also under ``torch.compile``. Computed in float32 (float64 for float64) in the
    order written and rounded once, equally on CPU and CUDA (but there float32 below 1.2e-38 counts as 0); does not
    wait for the device.

    Args:
        fg: Foreground [N, 3, H, W], float16, bfloat16, float32 or float64, any range of values.
        bg: Background, shape, dtype and device of ``fg``.
        alpha: [N, 1, H, W], dtype and device of ``fg``; 1 is opaque.

    Returns:
        [N, 3, H, W], contiguous, dtype and device of ``fg``.

    Raises:
        TypeError: A dtype is not one of the four, or they differ.
        ValueError: Shapes or devices do not agree.
        RuntimeError: The tensors are on CUDA, and CuPy is missing or the GPU too old.

    Source: Porter and Duff, Compositing Digital Images, SIGGRAPH 1984.
    """
    if not isinstance(fg, torch.Tensor) or fg.dtype not in NUMBERS:
        got = fg.dtype if isinstance(fg, torch.Tensor) else type(fg).__name__
        raise TypeError(f"fg must be a float16, bfloat16, float32 or float64 tensor, got {got}; convert it with .to()")
    _checks.require_dtype("bg", bg, fg.dtype, "convert it to the dtype of fg")
    _checks.require_dtype("alpha", alpha, fg.dtype, "convert it to the dtype of fg")
    _checks.require_shape("fg", fg, (None, 3, None, None), "pass RGB images with the channels first")
    samples, _, height, width = fg.shape
    _checks.require_shape("bg", bg, (samples, 3, height, width), "make it as large as fg")
    _checks.require_shape("alpha", alpha, (samples, 1, height, width), "make it as large as fg, with one channel")
    _checks.require_same_device(fg=fg, bg=bg, alpha=alpha)
    return _composite(fg, bg, alpha)


def _widen(*tensors):
    """Convert to the dtype of the arithmetic: float16 and bfloat16 would round after every operation."""
    return [x if x.dtype == torch.float64 else x.float() for x in tensors]


@torch.library.custom_op("dptmat::composite", mutates_args=(), device_types="cpu")
def _composite(fg: torch.Tensor, bg: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    f, b, a = _widen(fg, bg, alpha)
    return (a * f + (1 - a) * b).to(fg.dtype).contiguous()


@_composite.register_kernel("cuda")
def _composite_cuda(fg, bg, alpha):
    out = _composite_fake(fg, bg, alpha)
    _launch_pixels("composite", fg, bg, alpha, out)
    return out


@_composite.register_fake
def _composite_fake(fg, bg, alpha):
    return torch.empty_like(fg, memory_format=torch.contiguous_format)


@torch.library.custom_op("dptmat::composite_backward", mutates_args=(), device_types="cpu")
def _composite_backward(
    grad: torch.Tensor, fg: torch.Tensor, bg: torch.Tensor, alpha: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g, f, b, a = _widen(grad, fg, bg, alpha)
    by_channel = g * (f - b)
    grad_alpha = by_channel[:, 0:1] + by_channel[:, 1:2] + by_channel[:, 2:3]
    return tuple(x.to(fg.dtype).contiguous() for x in (a * g, (1 - a) * g, grad_alpha))


@_composite_backward.register_kernel("cuda")
def _composite_backward_cuda(grad, fg, bg, alpha):
    grads = _composite_backward_fake(grad, fg, bg, alpha)
    _launch_pixels("composite_backward", grad, fg, bg, alpha, *grads)
    return grads


@_composite_backward.register_fake
def _composite_backward_fake(grad, fg, bg, alpha):
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (fg, bg, alpha))


def _launch_pixels(kernel, *tensors):
    """Launch one thread per pixel; the tensors are inputs and outputs, [N, 3 or 1, H, W]."""
    samples, _, height, width = tensors[0].shape
    blocks = -(-samples * height * width // THREADS)
    contiguous = [x.contiguous() for x in tensors]
    launch("composite", kernel, blocks, *contiguous, samples, height * width, dtype=tensors[0].dtype)


def _save_inputs(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):
    return _composite_backward(grad, *ctx.saved_tensors)


_composite.register_autograd(_backward, setup_context=_save_inputs)
