"""From uint8 views to the network's input and target: trimap, alpha, composite and contrast in one launch."""

import torch
from torch import Tensor

from dptmat.defaults import CELL, FOREGROUND_SHARE, UNKNOWN_SHARE

from . import _checks
from ._launch import count_tiles, launch
from ._operator import register
from .batch import Batch
from .division import reciprocal
from .synthesize_cpu import empty, fill_batch
from .trimap import count_cells

DTYPES = torch.float32, torch.float16, torch.bfloat16
MEMORY_FORMATS = torch.contiguous_format, torch.channels_last


def synthesize(
    views: Tensor,  # uint8 [N, H, W, 3]
    ids: Tensor,  # int64 [N]
    seed: int,
    color: Tensor | None = None,  # float32 [N, 3, 3]
    *,
    cell: int = CELL,
    unknown: float = UNKNOWN_SHARE,
    foreground: float = FOREGROUND_SHARE,
    mode: str = "pixel",
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
    out: Batch | None = None,
) -> Batch:
    """Composite every view of a batch over another one, with a random trimap and a random alpha.

    Sample i takes view i as foreground and view ``(i + s) % N`` as background; s is drawn from the first id. Trimap,
    alpha and pairing are equal on CPU and CUDA bit for bit. The rest is float32, rounded after each operation, where
    ``fma(x, y, z)`` is x * y + z rounded once, and rounded to ``dtype`` at the very end::

        m        = color * (1 / 255)
        rgb_c    = clip(fma(m[c,2], B, fma(m[c,1], G, m[c,0] * R)), 0, 1)    of the foreground, F, and background, B
        a        = alpha / 255
        C_c      = fma(a, F_c - B_c, B_c)                                   a F + (1 - a) B
        input_c  = fma(C_c, scale_c, shift_c)                               1 / std_c and -mean_c / std_c
        contrast = fma(|F_2 - B_2|, scale_2, fma(|F_1 - B_1|, scale_1, |F_0 - B_0| * scale_0))

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
        out: A :class:`Batch` of an earlier call with the same sizes, dtype and layout that nobody needs any more, to be
            written over. On the CPU fresh memory costs as much time as all the rest.

    Returns:
        A :class:`Batch` on the device of ``views``; ``out`` where it is given. Not differentiable.

    Raises:
        TypeError: A tensor or ``dtype`` has the wrong dtype, ``seed`` or ``cell`` is not an int, a share is not a
            number, or ``out`` is not a Batch.
        ValueError: Shapes or devices do not agree, N < 2, ``cell`` is below 1 or larger than the image, a share is
            outside 0..1 or the two add up to more than 1, ``mode`` or ``memory_format`` is unknown, the seed is out
            of range, or a CPU id is negative.
        RuntimeError: The tensors are on CUDA, and CuPy is missing or the GPU too old.

    Source: Li et al., Disentangled Pre-training for Image Matting, WACV 2024.
    """
    _require_tensors(views, ids, color)
    _, height, width, _ = views.shape
    _checks.require_size(height, width, cell)
    _checks.require_shares(unknown, foreground)
    _checks.require_mode(mode)
    if dtype not in DTYPES:
        raise TypeError(f"dtype must be one of {', '.join(map(str, DTYPES))}, got {dtype}; float32 is the default")
    if memory_format not in MEMORY_FORMATS:
        formats = ", ".join(map(str, MEMORY_FORMATS))
        raise ValueError(
            f"memory_format must be one of {formats}, got {memory_format}; choose what the network runs in"
        )
    channels_last = memory_format == torch.channels_last
    seed = _checks.seed_as_int64(seed)
    settings = views, ids, seed, color, cell, unknown, foreground, mode == "block"
    if out is None:
        return Batch(*_operator(*settings, dtype, channels_last))
    _require_out(out, views, dtype, memory_format)
    _out_operator(*settings, out.input, out.alpha, out.contrast, out.trimap, out.pairing)
    return out


def _require_tensors(views: Tensor, ids: Tensor, color: Tensor | None) -> None:
    _checks.require_ids(ids)
    samples = ids.shape[0]
    _checks.require_dtype("views", views, torch.uint8, "decode to 8-bit RGB before synthesize()")
    _checks.require_shape("views", views, (samples, None, None, 3), "pass RGB, channels last, one view for each id")
    _checks.require_same_device(views=views, ids=ids)
    if samples < 2:
        raise ValueError(f"views must hold 2 or more samples, got {samples}; each is laid over another one")
    if color is not None:
        _checks.require_dtype("color", color, torch.float32, "convert it with color.to(torch.float32)")
        _checks.require_shape("color", color, (samples, 3, 3), "pass one matrix for each view")
        _checks.require_same_device(views=views, color=color)


def _require_out(out: object, views: Tensor, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    if not isinstance(out, Batch):
        raise TypeError(f"out must be a Batch, got {type(out).__name__}; pass one that synthesize() has returned")
    samples, height, width, _ = views.shape
    map_shape, plain = (samples, 1, height, width), torch.contiguous_format
    wanted = {
        "input": ((samples, 6, height, width), dtype, memory_format),
        "alpha": (map_shape, dtype, plain),
        "contrast": (map_shape, dtype, plain),
        "trimap": (map_shape, torch.uint8, plain),
        "pairing": ((samples,), torch.int64, plain),
    }
    for name, (shape, own, layout) in wanted.items():
        x = getattr(out, name)
        fits = x.shape == shape and x.dtype == own and x.device == views.device
        if not fits or not x.is_contiguous(memory_format=layout):
            raise ValueError(
                f"out.{name} must be {own} {list(shape)} on {views.device}, laid out as {layout}, got {x.dtype} "
                f"{list(x.shape)} on {x.device}, strides {list(x.stride())}; pass the Batch of a call like this one"
            )


def _synthesize(
    views: Tensor,
    ids: Tensor,
    seed: int,
    color: Tensor | None,
    cell: int,
    unknown: float,
    foreground: float,
    block_alpha: bool,
    dtype: torch.dtype,
    channels_last: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    samples, height, width, _ = views.shape
    outputs = (
        empty((samples, 6, height, width), dtype, channels_last),
        empty((samples, 1, height, width), dtype),
        empty((samples, 1, height, width), dtype),
        torch.empty((samples, 1, height, width), dtype=torch.uint8),
        ids.new_empty(samples),
    )
    fill_batch(views, ids, seed, color, cell, unknown, foreground, block_alpha, *outputs)
    return outputs


def _synthesize_cuda(
    views: Tensor,
    ids: Tensor,
    seed: int,
    color: Tensor | None,
    cell: int,
    unknown: float,
    foreground: float,
    block_alpha: bool,
    dtype: torch.dtype,
    channels_last: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    outputs = _synthesize_fake(views, ids, seed, color, cell, unknown, foreground, block_alpha, dtype, channels_last)
    _synthesize_out_cuda(views, ids, seed, color, cell, unknown, foreground, block_alpha, *outputs)
    return outputs


def _synthesize_out_cuda(
    views: Tensor,
    ids: Tensor,
    seed: int,
    color: Tensor | None,
    cell: int,
    unknown: float,
    foreground: float,
    block_alpha: bool,
    image: Tensor,
    *others: Tensor,
) -> None:
    samples, height, width, _ = views.shape
    cells, pixels = count_cells(height, width, cell, unknown, foreground), height * width
    pixels_per_thread = 16 // image.itemsize
    views = views.contiguous()
    aligned = pixels % pixels_per_thread == 0 and all(x.data_ptr() % 16 == 0 for x in (views, image, *others))
    launch(
        "synthesize", "synthesize", samples * count_tiles(pixels, pixels_per_thread), views, ids.contiguous(),
        None if color is None else color.contiguous(), image, *others, seed, samples, reciprocal(samples), pixels,
        width, reciprocal(width), cell, reciprocal(cell), cells.columns, cells.total, cells.half_bits, cells.unknown,
        cells.foreground, block_alpha, not image.is_contiguous(), aligned, dtype=image.dtype,
    )  # fmt: skip


def _synthesize_fake(
    views: Tensor,
    ids: Tensor,
    seed: int,
    color: Tensor | None,
    cell: int,
    unknown: float,
    foreground: float,
    block_alpha: bool,
    dtype: torch.dtype,
    channels_last: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    samples, height, width, _ = views.shape
    shape, device = (samples, 1, height, width), views.device
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return (
        torch.empty((samples, 6, height, width), dtype=dtype, device=device, memory_format=memory_format),
        torch.empty(shape, dtype=dtype, device=device),
        torch.empty(shape, dtype=dtype, device=device),
        torch.empty(shape, dtype=torch.uint8, device=device),
        torch.empty(samples, dtype=torch.int64, device=device),
    )


def _synthesize_out_fake(*args: object) -> None:
    """All outputs are given."""


_operator = register("synthesize", _synthesize, _synthesize_cuda, _synthesize_fake)
_out_operator = register(
    "synthesize_out",
    fill_batch,
    _synthesize_out_cuda,
    _synthesize_out_fake,
    mutates=("image", "alpha", "contrast", "trimap", "pairing"),
)
