"""From uint8 views to the network's input and target: trimap, alpha, composite and contrast in one launch."""

import numpy as np
import torch

from . import _checks
from ._launch import THREADS, launch
from .alpha import RUN, alpha_reference
from .batch import Batch
from .permutation import half_bits
from .philox import Stream, words
from .trimap import BACKGROUND, FOREGROUND, UNKNOWN, count_cells, trimap_reference

# ImageNet's, red, green, blue; synthesize.cu has the same numbers
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
DTYPES = torch.float32, torch.float16, torch.bfloat16
MEMORY_FORMATS = torch.contiguous_format, torch.channels_last


def synthesize(
    views,
    ids,
    seed,
    color=None,
    *,
    cell=7,
    unknown=0.75,
    foreground=0.125,
    mode="pixel",
    dtype=torch.float32,
    memory_format=torch.contiguous_format,
):
    """Composite every view of a batch over another one, with a random trimap and a random alpha.

    Sample i takes view i as foreground and view ``(i + s) % N`` as background; s is drawn from the first id. Trimap,
    alpha and pairing are equal on CPU and CUDA bit for bit. The rest is float32, in this order of operations, each
    rounded, with no fused multiply-add, and rounded to ``dtype`` at the very end::

        rgb_c    = clip(color[c,0] * R + color[c,1] * G + color[c,2] * B, 0, 255)    from left to right; F and B
        a        = alpha / 255
        C        = a * F + (1 - a) * B
        input_c  = (C / 255 - mean_c) / std_c
        contrast = |F_0 - B_0| / (255 * std_0) + ... + |F_2 - B_2| / (255 * std_2)   from left to right

    Does not wait for the device: one launch on the current stream, which a CUDA graph can capture once the first
    call has compiled the kernel. A tensor that is not contiguous is copied before it.

    Args:
        views: Augmented photographs, uint8 [N, H, W, 3], N >= 2, red, green, blue.
        ids: Sample ids, int64 [N], 0 or more (checked on the CPU only: a check of CUDA ids would wait for the GPU).
        seed: Seed of the run, 0 <= seed < 2**64.
        color: A colour matrix for each view, finite float32 [N, 3, 3], or None for the identity.
        cell: Side of a square trimap cell in pixels.
        unknown: Share of unknown cells, 0..1.
        foreground: Share of foreground cells, 0..1; the rest is background.
        mode: ``"pixel"`` draws alpha for each unknown pixel, ``"block"`` for each unknown cell.
        dtype: Of input, alpha and contrast: float32, float16 or bfloat16.
        memory_format: Of input: ``torch.contiguous_format`` or ``torch.channels_last``.

    Returns:
        A :class:`Batch` on the device of ``views``.

    Raises:
        TypeError: A tensor or ``dtype`` has the wrong dtype, or ``seed`` is not an int.
        ValueError: Shapes or devices do not agree, N < 2, ``cell`` is below 1 or larger than the image, a share is
            outside 0..1 or the two add up to more than 1, ``mode`` or ``memory_format`` is unknown, the seed is out
            of range, or a CPU id is negative.
        RuntimeError: The tensors are on CUDA, and CuPy is missing or the GPU too old.

    Source: Li et al., Disentangled Pre-training for Image Matting, WACV 2024.
    """
    _require_tensors(views, ids, color)
    _checks.require_size(*views.shape[1:3], cell)
    _checks.require_shares(unknown, foreground)
    _checks.require_mode(mode)
    if dtype not in DTYPES:
        raise TypeError(f"dtype must be one of {', '.join(map(str, DTYPES))}, got {dtype}; float32 is the default")
    if memory_format not in MEMORY_FORMATS:
        formats = ", ".join(map(str, MEMORY_FORMATS))
        raise ValueError(
            f"memory_format must be one of {formats}, got {memory_format}; choose what the network runs in"
        )
    outputs = _synthesize(
        views,
        ids,
        _checks.seed_as_int64(seed),
        color,
        cell,
        unknown,
        foreground,
        mode,
        dtype,
        memory_format == torch.channels_last,
    )
    return Batch(*outputs)


def _require_tensors(views, ids, color):
    _checks.require_ids(ids)
    _checks.require_dtype("views", views, torch.uint8, "decode to 8-bit RGB before synthesize()")
    _checks.require_shape("views", views, (len(ids), None, None, 3), "pass RGB, channels last, one view for each id")
    _checks.require_same_device(views=views, ids=ids)
    if len(ids) < 2:
        raise ValueError(f"views must hold 2 or more samples, got {len(ids)}; each is laid over another one")
    if color is not None:
        _checks.require_dtype("color", color, torch.float32, "convert it with color.to(torch.float32)")
        _checks.require_shape("color", color, (len(ids), 3, 3), "pass one matrix for each view")
        _checks.require_same_device(views=views, color=color)


def partners(first_id, seed, samples):
    """Draw the view that each sample is laid over: int64 [N], sample i over ``(i + s) % N``, 1 <= s < N."""
    shift = 1 + int(words(seed, Stream.PAIRING, first_id, 1)[0, 0, 0]) % (samples - 1)
    return (np.arange(samples, dtype=np.int64) + shift) % samples


def _planes(view, color):
    """Convert one view to colour-corrected planes: uint8 [H, W, 3] and float32 [3, 3] to float32 [3, H, W], 0..255."""
    rgb = np.ascontiguousarray(view.transpose(2, 0, 1)).astype(np.float32)
    if color is None:
        return rgb
    planes = np.empty_like(rgb)
    for plane, row in zip(planes, color, strict=True):
        np.clip(row[0] * rgb[0] + row[1] * rgb[1] + row[2] * rgb[2], 0, 255, out=plane)
    return planes


def _compose(fg, bg, alpha):
    """Compose one sample: float32 [3, H, W] twice and uint8 [H, W] to input's [3, H, W] and contrast [H, W]."""
    mean, std = MEAN[:, None, None], STD[:, None, None]
    a = alpha.astype(np.float32) / np.float32(255)
    composite = a * fg + (1 - a) * bg
    difference = np.abs(fg - bg) / (np.float32(255) * std)
    return (composite / np.float32(255) - mean) / std, difference[0] + difference[1] + difference[2]


def _empty_outputs(views, dtype, channels_last):
    samples, height, width, _ = views.shape
    shape = (samples, 1, height, width)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return (
        torch.empty((samples, 6, height, width), dtype=dtype, device=views.device, memory_format=memory_format),
        views.new_empty(shape, dtype=dtype),
        views.new_empty(shape, dtype=dtype),
        views.new_empty(shape),
        views.new_empty(samples, dtype=torch.int64),
    )


@torch.library.custom_op("dptmat::synthesize", mutates_args=(), device_types="cpu")
def _synthesize(
    views: torch.Tensor,
    ids: torch.Tensor,
    seed: int,
    color: torch.Tensor | None,
    cell: int,
    unknown: float,
    foreground: float,
    mode: str,
    dtype: torch.dtype,
    channels_last: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    _checks.require_non_negative(ids)
    samples, height, width, _ = views.shape
    seed %= 2**64
    trimap = trimap_reference(ids.numpy(), seed, height, width, cell, unknown, foreground)
    alpha = alpha_reference(trimap, ids.numpy(), seed, mode, cell)
    pairing = partners(ids[:1].numpy(), seed, samples)
    outputs = _empty_outputs(views, dtype, channels_last)
    pixels, matrices = views.numpy(), [None] * samples if color is None else color.detach().numpy()
    for i, j in enumerate(pairing):
        composite, contrast = _compose(_planes(pixels[i], matrices[i]), _planes(pixels[j], matrices[j]), alpha[i])
        outputs[0][i, :3] = torch.from_numpy(composite)
        for channel, state in enumerate((BACKGROUND, UNKNOWN, FOREGROUND)):
            outputs[0][i, 3 + channel] = torch.from_numpy(trimap[i] == state)
        outputs[1][i, 0] = torch.from_numpy(alpha[i].astype(np.float32) / np.float32(255))
        outputs[2][i, 0] = torch.from_numpy(contrast)
    outputs[3][:, 0] = torch.from_numpy(trimap)
    outputs[4][:] = torch.from_numpy(pairing)
    return outputs


@_synthesize.register_kernel("cuda")
def _synthesize_cuda(views, ids, seed, color, cell, unknown, foreground, mode, dtype, channels_last):
    samples, height, width, _ = views.shape
    cells = count_cells(height, width, cell, unknown, foreground)
    outputs = _empty_outputs(views, dtype, channels_last)
    tiles = -(-height * width // (RUN * THREADS))  # thread blocks of a sample; a thread works on a run of pixels
    launch(
        "synthesize", "synthesize", samples * tiles, views.contiguous(), ids.contiguous(),
        None if color is None else color.detach().contiguous(), *outputs, seed, samples, tiles, height, width, cell,
        cells.columns, cells.total, half_bits(cells.total), cells.unknown, cells.foreground, mode == "block",
        channels_last, dtype=dtype,
    )  # fmt: skip
    return outputs


@_synthesize.register_fake
def _synthesize_fake(views, ids, seed, color, cell, unknown, foreground, mode, dtype, channels_last):
    return _empty_outputs(views, dtype, channels_last)
