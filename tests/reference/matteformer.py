"""A block of MatteFormer in plain loops, written from the paper and not from the module, and inputs for it."""

import torch
from torch.nn.functional import gelu, one_hot


def make_input(n=2, height=64, width=64, seed=0):
    """Noise with a trimap whose regions are all present at every stage: float32 [n, 6, height, width]."""
    generator = torch.Generator().manual_seed(seed)
    trimap = torch.randint(0, 3, (n, height // 32, width // 32), generator=generator)
    trimap.view(n, -1)[:, :3] = torch.tensor([0, 1, 2])[: trimap[0].numel()]
    trimap = trimap.repeat_interleave(32, 1).repeat_interleave(32, 2)
    image = torch.randn(n, 3, height, width, generator=generator)
    return torch.cat([image, one_hot(trimap, 3).permute(0, 3, 1, 2)], dim=1)


def perturb(network):
    """Move every parameter and statistic away from the special values it starts with, such as zero weights."""
    with torch.no_grad():
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            if name.endswith("running_var"):
                value.mul_(1 + torch.rand_like(value))
            elif value.is_floating_point() and not name.endswith(("_u", "_v")):
                value.add_(0.05 * torch.randn_like(value))
    return network


def plain_attention(attention, x, priors, shifted):
    """One image: x [h, w, C] and priors [P, C], both normalised -> what x is updated by."""
    height, width, channels = x.shape
    rows, columns = -(-height // 7) * 7, -(-width // 7) * 7
    padded = torch.zeros(rows, columns, channels)
    padded[:height, :width] = x
    shift = 3 if shifted else 0
    weight, bias = attention.qkv.weight, attention.qkv.bias
    table = attention.relative_position_bias_table
    result = torch.zeros_like(padded)

    def label(i, size):
        return 0 if i < size - 7 else 1 if i < size - 3 else 2

    for top in range(0, rows, 7):
        for left in range(0, columns, 7):
            cells = [(top + i, left + j) for i in range(7) for j in range(7)]
            places = [((i + shift) % rows, (j + shift) % columns) for i, j in cells]
            window = torch.stack([padded[i, j] for i, j in places])
            everything = torch.cat([window, priors])
            scores = torch.zeros(49, len(everything))
            attended = torch.zeros(49, channels)
            for head in range(channels // 32):
                q, k, v = (slice(part * channels + head * 32, part * channels + head * 32 + 32) for part in range(3))
                query = (window @ weight[q].T + bias[q]) * 32**-0.5
                scores = query @ (everything @ weight[k].T + bias[k]).T
                for a, (row, column) in enumerate(cells):
                    for b, (other_row, other_column) in enumerate(cells):
                        offset = (row - other_row + 6) * 13 + (column - other_column + 6)
                        scores[a, b] += table[offset, head]
                        apart = (label(row, rows), label(column, columns)) != (
                            label(other_row, rows),
                            label(other_column, columns),
                        )
                        if shifted and apart:
                            scores[a, b] -= 100
                    for j in range(len(priors)):
                        scores[a, 49 + j] += table[169 + j, head]
                attended[:, head * 32 : head * 32 + 32] = scores.softmax(1) @ (everything @ weight[v].T + bias[v])
            for (i, j), value in zip(places, attended, strict=True):
                result[i, j] = attention.proj(value)
    return result[:height, :width]


def plain_block(block, x, priors, regions, shifted):
    """One image: x [h, w, C], priors [P - 3, C], regions [3, h, w]."""

    def mlp(y):
        y = block.norm2(y)
        return block.mlp.fc2(gelu(block.mlp.fc1(y)))

    tokens = [(x * mask[..., None]).sum((0, 1)) / (mask.sum() + 1e-9) for mask in regions]
    priors = torch.cat([priors, torch.stack(tokens)])
    x_after = x + plain_attention(block.attn, block.norm1(x), block.norm1(priors), shifted)
    x_after = x_after + mlp(x_after)
    channels = x.shape[2]
    value = block.norm1(priors) @ block.attn.qkv.weight[-channels:].T + block.attn.qkv.bias[-channels:]
    priors = priors + block.attn.proj(value)
    return x_after, priors + mlp(priors)
