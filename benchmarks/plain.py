"""What ``dptmat.synthesize`` is measured against: the same job in plain PyTorch and in plain NumPy, without dptmat.

N samples of H x W pixels. Each version returns input [N, 6, H, W], alpha and contrast [N, 1, H, W], trimap uint8
[N, 1, H, W] and pairing int64 [N]. The PyTorch version draws with PyTorch's own generator. The NumPy version draws
dptmat's own streams, written from their definition, and so is the independent reference of the checks at the end too:
they refuse integers that are not its own bit for bit, and floats that are not within TOLERANCE.
"""

import numpy as np
import torch

CELL, UNKNOWN, FOREGROUND = 7, 0.75, 0.125  # side in pixels, shares of the cells
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
TRIMAP, ALPHA_PIXEL, ALPHA_BLOCK, PAIRING = 0, 1, 2, 4  # streams of Philox
# Input and contrast come of a dozen float32 roundings, of sums up to 600 before the colours are clipped, and of one
# rounding to the dtype; a float32 result on the edge of that one may fall to either side: one unit in the last place.
TOLERANCE = "max(8 eps(float32), eps(dtype)) * |x| + 80 eps(float32)"
EPS = torch.finfo(torch.float32).eps


def count_cells(height, width):
    """Count a trimap's rows, columns, unknown cells, and cells that are unknown or foreground."""
    rows, columns = -(-height // CELL), -(-width // CELL)
    unknown, foreground = (int(share * rows * columns + 0.5) for share in (UNKNOWN, FOREGROUND))
    return rows, columns, unknown, unknown + foreground


def draw(samples, height, width, device):
    """Draw trimap and alpha in PyTorch: uint8 [N, H, W] each."""
    rows, columns, unknown, known = count_cells(height, width)
    order = torch.rand(samples, rows * columns, device=device).argsort(1)
    states = (order < unknown).to(torch.uint8) + 2 * ((order >= unknown) & (order < known)).to(torch.uint8)
    grid = states.view(samples, rows, columns)
    trimap = grid.repeat_interleave(CELL, 1)[:, :height].repeat_interleave(CELL, 2)[:, :, :width]
    noise = torch.randint(0, 256, trimap.shape, dtype=torch.uint8, device=device)
    return trimap, torch.where(trimap == 1, noise, 255 * (trimap == 2).to(torch.uint8))


def compose(views, color, trimap, alpha, shift, mean, std, dtype, memory_format):
    """Compose in PyTorch, in float32: uint8 views [N, H, W, 3], trimap and alpha [N, H, W] to the five outputs."""
    samples, height, width, _ = views.shape
    planes = views.permute(0, 3, 1, 2).reshape(samples, 3, height * width).float()
    fg = torch.matmul(color, planes).clamp(0, 255).view(samples, 3, height, width)
    bg = fg.roll(-shift, 0)
    a = alpha[:, None].float() / 255
    image = ((a * fg + (1 - a) * bg) / 255 - mean) / std
    contrast = ((fg - bg).abs() / (255 * std)).sum(1, keepdim=True)
    one_hot = trimap[:, None] == torch.arange(3, device=views.device).view(1, 3, 1, 1)
    network_input = torch.cat([image.to(dtype), one_hot.to(dtype)], 1).contiguous(memory_format=memory_format)
    pairing = (torch.arange(samples, device=views.device) + shift) % samples
    return network_input, a.to(dtype), contrast.to(dtype), trimap[:, None], pairing


def synthesize(views, color, shift, mean, std, dtype, memory_format):
    """Draw and compose in PyTorch; ``mean`` and ``std`` are float32 [1, 3, 1, 1] on the device of ``views``."""
    trimap, alpha = draw(*views.shape[:3], views.device)
    return compose(views, color, trimap, alpha, shift, mean, std, dtype, memory_format)


def philox_words(seed, stream, ids, blocks):
    """Draw the first blocks of a stream by Philox4x32-10: int64 [N] to uint32 [N, blocks, 4]."""
    ids = ids.astype(np.uint64)[:, None]
    counter = (np.arange(blocks, dtype=np.uint64), np.uint64(stream), ids & np.uint64(0xFFFFFFFF), ids >> np.uint64(32))
    c0, c1, c2, c3 = (np.broadcast_to(word, (len(ids), blocks)) for word in counter)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for i in range(10):
        key0 = np.uint64(((seed & 0xFFFFFFFF) + i * 0x9E3779B9) & 0xFFFFFFFF)
        key1 = np.uint64(((seed >> 32) + i * 0xBB67AE85) & 0xFFFFFFFF)
        product0, product1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (product1 >> half) ^ c1 ^ key0, product1 & low, (product0 >> half) ^ c3 ^ key1, product0 & low
    return np.stack([c0, c1, c2, c3], -1).astype(np.uint32)


def random_bytes(seed, stream, ids, count):
    """Draw the first ``count`` bytes of a stream: int64 [N] to uint8 [N, count]."""
    words = philox_words(seed, stream, ids, -(-count // 16)).astype("<u4")
    return words.view(np.uint8).reshape(len(ids), -1)[:, :count]


def feistel(values, keys, h):
    """Run eight rounds on 2h bits: uint32 of any shape, and uint32 [8, ...] that broadcasts with it."""
    mask = np.uint32(2**h - 1)
    left, right = values >> np.uint32(h), values & mask
    for key in keys:
        f = (right ^ key) * np.uint32(0x9E3779B1)
        f ^= f >> np.uint32(15)
        f *= np.uint32(0x85EBCA77)
        f ^= f >> np.uint32(13)
        left, right = right, left ^ (f & mask)
    return (left << np.uint32(h)) | right


def permute_cells(ids, seed, cells):
    """Permute the cells of each sample: int64 [N] to uint32 [N, cells]."""
    h = next(h for h in range(1, 17) if 4**h >= cells)
    keys = philox_words(seed, TRIMAP, ids, 2).reshape(len(ids), 8).T[:, :, None]
    result = feistel(np.arange(cells, dtype=np.uint32)[None], keys, h)
    while (result >= cells).any():
        row, column = np.nonzero(result >= cells)
        result[row, column] = feistel(result[row, column], keys[:, row, 0], h)
    return result


def numpy_spread(grid, height, width):
    """Spread cells to pixels: [N, rows, columns] to [N, H, W]."""
    return grid.repeat(CELL, 1)[:, :height].repeat(CELL, 2)[:, :, :width]


def numpy_draw(ids, seed, height, width, mode="pixel"):
    """Draw trimap and alpha in NumPy: int64 [N] to uint8 [N, H, W] each."""
    rows, columns, unknown, known = count_cells(height, width)
    order = permute_cells(ids, seed, rows * columns)
    states = np.where(order < unknown, np.uint8(1), np.where(order < known, np.uint8(2), np.uint8(0)))
    trimap = numpy_spread(states.reshape(-1, rows, columns), height, width)
    if mode == "pixel":
        noise = random_bytes(seed, ALPHA_PIXEL, ids, height * width).reshape(trimap.shape)
    else:
        grid = random_bytes(seed, ALPHA_BLOCK, ids, rows * columns).reshape(-1, rows, columns)
        noise = numpy_spread(grid, height, width)
    return trimap, np.where(trimap == 1, noise, np.uint8(255) * (trimap == 2))


def numpy_pairing(first_id, seed, samples):
    """Draw the view that each sample is laid over: int64 [N]."""
    word = int(philox_words(seed, PAIRING, np.array([first_id]), 1)[0, 0, 0])
    return (np.arange(samples) + 1 + word % (samples - 1)) % samples


def numpy_planes(views, color):
    """Correct the colours: uint8 [N, H, W, 3] and float32 [N, 3, 3] to float32 [N, 3, H, W], 0..255."""
    rgb = np.ascontiguousarray(views.transpose(0, 3, 1, 2)).astype(np.float32)
    m = color[:, :, :, None, None]
    mixed = [m[:, c, 0] * rgb[:, 0] + m[:, c, 1] * rgb[:, 1] + m[:, c, 2] * rgb[:, 2] for c in range(3)]
    return np.clip(np.stack(mixed, 1), 0, 255)


def numpy_compose(fg, bg, alpha):
    """Compose in float32 [N, 3, H, W] under uint8 [N, H, W]: normalised image, alpha 0..1, contrast."""
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    a = alpha[:, None].astype(np.float32) / np.float32(255)
    image = ((a * fg + (1 - a) * bg) / np.float32(255) - mean) / std
    difference = np.abs(fg - bg) / (np.float32(255) * std)
    return image, a, difference[:, :1] + difference[:, 1:2] + difference[:, 2:]


def numpy_synthesize(views, ids, seed, color):
    """Draw and compose in NumPy, the whole batch at once: float32 and NCHW."""
    samples, height, width, _ = views.shape
    trimap, alpha = numpy_draw(ids, seed, height, width)
    pairing = numpy_pairing(ids[0], seed, samples)
    fg = numpy_planes(views, color)
    image, a, contrast = numpy_compose(fg, fg[pairing], alpha)
    one_hot = trimap[:, None] == np.arange(3, dtype=np.uint8).reshape(1, 3, 1, 1)
    return np.concatenate([image, one_hot.astype(np.float32)], 1), a, contrast, trimap[:, None], pairing


def to_numpy(tensor):
    return (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()


def require_equal(name, given, expected):
    """Refuse integers that are not all the same."""
    different = np.count_nonzero(given != expected)
    if different:
        raise ValueError(f"{name} differs in {different} of {expected.size} values; it must equal the plain version's")


def check_integers(outputs, ids, seed, mode="pixel", samples=slice(None)):
    """Refuse a trimap, alpha or pairing that is not the NumPy version's, bit for bit."""
    given = [to_numpy(output[samples]) for output in outputs]
    _, _, height, width = given[3].shape
    trimap, alpha = numpy_draw(to_numpy(ids[samples]), seed, height, width, mode)
    require_equal("trimap", given[3][:, 0], trimap)
    require_equal("alpha * 255", np.rint(given[1][:, 0] * 255), alpha)  # the dtypes keep the 256 levels apart
    require_equal("pairing", to_numpy(outputs[4]), numpy_pairing(int(ids[0]), seed, len(ids)))


def check_floats(outputs, views, color, samples=slice(None)):
    """Refuse floats that do not follow from the integers; return the largest difference that was let through."""
    network_input, a, contrast, trimap, pairing = (to_numpy(output[samples]) for output in outputs)
    alpha = np.rint(a[:, 0] * 255).astype(np.uint8)
    fg, bg = (numpy_planes(to_numpy(views[i]), to_numpy(color[i])) for i in (samples, outputs[4][samples]))
    image, exact_a, exact_contrast = numpy_compose(fg, bg, alpha)
    require_equal("one-hot trimap", network_input[:, 3:], trimap == np.arange(3).reshape(1, 3, 1, 1))
    largest, eps = 0.0, max(8 * EPS, torch.finfo(outputs[0].dtype).eps)
    for name, given, expected in [
        ("input", network_input[:, :3], image), ("alpha", a, exact_a), ("contrast", contrast, exact_contrast)
    ]:  # fmt: skip
        difference = np.abs(given - expected)
        wrong = np.count_nonzero(~(difference <= eps * np.abs(expected) + 80 * EPS))  # a NaN is wrong too
        if wrong:
            raise ValueError(
                f"{name} is wrong in {wrong} of {given.size} values, by {difference.max()}; allowed: {TOLERANCE}"
            )
        largest = max(largest, float(difference.max()))
    return largest
