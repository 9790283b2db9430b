"""From uint8 views to the network's input and target: trimap, alpha, composite and contrast in one launch."""

import math

import numpy as np
import torch

from . import _checks
from ._compile import compiled, fma, for_each_part
from ._launch import count_tiles, launch
from ._operator import register
from .alpha import fill_alphas
from .batch import Batch
from .philox import Stream, words
from .trimap import count_cells, fill_trimaps

# ImageNet's, red, green, blue; synthesize.cu has the same numbers
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
SCALE, SHIFT = 1 / STD, -MEAN / STD
ONE_LEVEL = np.float32(1) / np.float32(255)
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
    out=None,
):
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
    channels_last = memory_format == torch.channels_last
    seed = _checks.seed_as_int64(seed)
    settings = views, ids, seed, color, cell, unknown, foreground, mode == "block"
    if out is None:
        return Batch(*_operator(*settings, dtype, channels_last))
    _require_out(out, views, dtype, memory_format)
    _out_operator(*settings, out.input, out.alpha, out.contrast, out.trimap, out.pairing)
    return out


def _require_tensors(views, ids, color):
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


def _require_out(out, views, dtype, memory_format):
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


def draw_pairing(first_id, seed, samples):
    """Draw the view that each sample is laid over: int64 [N], sample i over ``(i + s) % N``, 1 <= s < N."""
    shift = 1 + int(words(seed, Stream.PAIRING, first_id, 1)[0, 0, 0]) % (samples - 1)
    return (np.arange(samples, dtype=np.int64) + shift) % samples


def _synthesize(
    views: torch.Tensor,
    ids: torch.Tensor,
    seed: int,
    color: torch.Tensor | None,
    cell: int,
    unknown: float,
    foreground: float,
    block_alpha: bool,
    dtype: torch.dtype,
    channels_last: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    samples, height, width, _ = views.shape
    image = _empty((samples, 6, height, width), dtype, channels_last)
    alpha, contrast = (_empty((samples, 1, height, width), dtype) for _ in range(2))
    outputs = (
        image,
        alpha,
        contrast,
        torch.empty((samples, 1, height, width), dtype=torch.uint8),
        ids.new_empty(samples),
    )
    _synthesize_out(views, ids, seed, color, cell, unknown, foreground, block_alpha, *outputs)
    return outputs


def _empty(shape, dtype, channels_last=False):
    """Allocate on the CPU through NumPy, which asks for huge pages: the first touch of small ones takes longer."""
    flat = torch.from_numpy(np.empty(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype)
    if not channels_last:
        return flat.view(shape)
    samples, channels, height, width = shape
    return flat.view(samples, height, width, channels).permute(0, 3, 1, 2)


def _synthesize_out(
    views: torch.Tensor,
    ids: torch.Tensor,
    seed: int,
    color: torch.Tensor | None,
    cell: int,
    unknown: float,
    foreground: float,
    block_alpha: bool,
    image: torch.Tensor,
    alpha: torch.Tensor,
    contrast: torch.Tensor,
    trimap: torch.Tensor,
    pairing: torch.Tensor,
) -> None:
    _checks.require_non_negative(ids)
    samples = len(ids)
    pixels, ids, seed = views.contiguous().numpy(), ids.numpy(), seed % 2**64
    identity = torch.eye(3).expand(samples, 3, 3)
    color = (identity if color is None else color.detach()).contiguous().numpy()
    pairing[:] = torch.from_numpy(draw_pairing(ids[:1], seed, samples))
    backgrounds, states = pairing.numpy(), trimap.numpy()[:, 0]
    # the loops write float32, contiguous
    floats = [
        x if x.dtype == torch.float32 and x.is_contiguous() else _empty(x.shape, torch.float32)
        for x in (image, alpha, contrast)
    ]
    planes, alphas, contrasts = floats[0].numpy(), floats[1].numpy()[:, 0], floats[2].numpy()[:, 0]

    def work(part):
        fill_trimaps(states[part], ids[part], seed, cell, unknown, foreground)
        levels = np.empty_like(states[part])
        fill_alphas(levels, states[part], ids[part], seed, block_alpha, cell)
        inputs = pixels, color, np.arange(samples)[part], backgrounds[part], states[part], levels
        _compose(*inputs, planes[part], alphas[part], contrasts[part])

    for_each_part(work, samples)
    for wanted, computed in zip((image, alpha, contrast), floats, strict=True):
        if wanted is not computed:
            wanted.copy_(computed)


@compiled
def _compose(views, color, foregrounds, backgrounds, trimap, levels, image, alpha, contrast):
    """Compose samples row by row, in short loops that become vector instructions.

    Args:
        views: uint8 [V, H, W, 3].
        color: float32 [V, 3, 3].
        foregrounds: Which view is the foreground of each sample, int64 [N].
        backgrounds: Likewise.
        trimap: uint8 [N, H, W].
        levels: Alpha, uint8 [N, H, W].
        image: The network's input, float32 [N, 6, H, W]; written, as are the next two.
        alpha: float32 [N, H, W].
        contrast: float32 [N, H, W].
    """
    samples, height, width = trimap.shape
    rows = views.reshape(len(views), height, 3 * width)
    planes = np.empty((3, width), np.float32)
    f, b = np.empty((3, width), np.float32), np.empty((3, width), np.float32)
    for n in range(samples):
        fg, bg = foregrounds[n], backgrounds[n]
        for y in range(height):
            _color(rows[fg, y], color[fg], planes, f)
            _color(rows[bg, y], color[bg], planes, b)
            state, level, a, total = trimap[n, y], levels[n, y], alpha[n, y], contrast[n, y]
            for x in range(width):
                a[x] = np.float32(level[x]) / np.float32(255)
            for c in range(3):
                over, under, composite, one_hot = f[c], b[c], image[n, c, y], image[n, 3 + c, y]
                scale, shift = SCALE[c], SHIFT[c]
                for x in range(width):
                    difference = over[x] - under[x]
                    composite[x] = fma(fma(a[x], difference, under[x]), scale, shift)
                    total[x] = fma(abs(difference), scale, total[x]) if c else abs(difference) * scale
                for x in range(width):
                    one_hot[x] = np.float32(state[x] == c)


@compiled
def _color(row, matrix, planes, out):
    """Correct a row of pixels, uint8 [3 W], by a colour matrix [3, 3]: float32 [3, W], 0..1, by way of planes."""
    red, green, blue = planes[0], planes[1], planes[2]
    for x in range(len(red)):
        red[x], green[x], blue[x] = row[3 * x], row[3 * x + 1], row[3 * x + 2]
    for c in range(3):
        value = out[c]
        to_red, to_green, to_blue = matrix[c, 0] * ONE_LEVEL, matrix[c, 1] * ONE_LEVEL, matrix[c, 2] * ONE_LEVEL
        for x in range(len(red)):
            mixed = fma(to_blue, blue[x], fma(to_green, green[x], to_red * red[x]))
            mixed = np.float32(0) if mixed < np.float32(0) else mixed
            value[x] = np.float32(1) if mixed > np.float32(1) else mixed


def _synthesize_cuda(views, ids, seed, color, cell, unknown, foreground, block_alpha, dtype, channels_last):
    outputs = _synthesize_fake(views, ids, seed, color, cell, unknown, foreground, block_alpha, dtype, channels_last)
    _synthesize_out_cuda(views, ids, seed, color, cell, unknown, foreground, block_alpha, *outputs)
    return outputs


def _synthesize_out_cuda(views, ids, seed, color, cell, unknown, foreground, block_alpha, image, *others):
    samples, height, width, _ = views.shape
    cells = count_cells(height, width, cell, unknown, foreground)
    pixels_per_thread = 16 // image.itemsize
    tiles = count_tiles(height * width, pixels_per_thread)
    launch(
        "synthesize", "synthesize", samples * tiles, views.contiguous(), ids.contiguous(),
        None if color is None else color.contiguous(), image, *others, seed, samples, height, width, cell,
        cells.columns, cells.total, cells.half_bits, cells.unknown, cells.foreground, block_alpha,
        not image.is_contiguous(), dtype=image.dtype,
    )  # fmt: skip


def _synthesize_fake(views, ids, seed, color, cell, unknown, foreground, block_alpha, dtype, channels_last):
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


def _synthesize_out_fake(views, ids, seed, color, cell, unknown, foreground, block_alpha, image, *others):
    return None


_operator = register("synthesize", _synthesize, _synthesize_cuda, _synthesize_fake)
_out_operator = register(
    "synthesize_out",
    _synthesize_out,
    _synthesize_out_cuda,
    _synthesize_out_fake,
    mutates=("image", "alpha", "contrast", "trimap", "pairing"),
)
