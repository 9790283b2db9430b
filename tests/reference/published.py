"""GCA-Matting and MG-Matting as plain functions of a published state dict, image by image and in evaluation.

Written from the papers' description, with names as in the published checkpoints, and not from the modules.
"""

import torch
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, conv_transpose2d, interpolate, leaky_relu, one_hot, relu
from torch.nn.functional import pad as zero_pad


def published(network):
    """The state of a network under the names of the published checkpoints."""
    names = {
        "parametrizations.weight.original": "module.weight_bar",
        "parametrizations.weight.0._u": "module.weight_u",
        "parametrizations.weight.0._v": "module.weight_v",
    }
    state = {}
    for name, value in network.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = value
    return state


SPECTRAL = {"module.weight_u", "module.weight_v", "module.weight_bar"}
NORM = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def expected_names(*, gca):
    """All keys of a published checkpoint, by the rules of the architecture."""
    layers = {**_encoder_layers(), **_decoder_layers(), **(_gca_layers() if gca else _mgmatting_layers())}
    return {f"{layer}.{leaf}" for layer, leaves in layers.items() for leaf in leaves}


def _encoder_layers():
    layers = {}
    for i in (1, 2, 3):
        layers |= {f"encoder.conv{i}": SPECTRAL, f"encoder.bn{i}": NORM}
    for stage, blocks in (("layer1", 3), ("layer2", 4), ("layer3", 4), ("layer_bottleneck", 2)):
        for j in range(blocks):
            layers |= _block_layers(f"encoder.{stage}.{j}", "downsample" if j == 0 and stage != "layer1" else None)
    for i in range(5):
        for j in (0, 3):
            layers |= {f"encoder.shortcut.{i}.{j}": SPECTRAL, f"encoder.shortcut.{i}.{j + 2}": NORM}
    return layers


def _decoder_layers():
    layers = {"decoder.conv1": SPECTRAL, "decoder.bn1": NORM}
    for stage, blocks in ((1, 2), (2, 3), (3, 3), (4, 2)):
        for j in range(blocks):
            layers |= _block_layers(f"decoder.layer{stage}.{j}", "upsample" if j == 0 else None)
    return layers


def _block_layers(prefix, resample):
    layers = {f"{prefix}.conv{i}": SPECTRAL for i in (1, 2)} | {f"{prefix}.bn{i}": NORM for i in (1, 2)}
    if resample:
        layers |= {f"{prefix}.{resample}.1": SPECTRAL, f"{prefix}.{resample}.2": NORM}
    return layers


def _gca_layers():
    layers = {"decoder.conv2": {"weight", "bias"}}
    for i in (1, 5, 9):
        layers |= {f"encoder.guidance_head.{i}": SPECTRAL, f"encoder.guidance_head.{i + 2}": NORM}
    for part in ("encoder", "decoder"):
        layers |= {f"{part}.gca.guidance_conv": {"weight", "bias"}, f"{part}.gca.W.0": {"weight"}}
        layers |= {f"{part}.gca.W.1": NORM}
    return layers


def _mgmatting_layers():
    layers = {"aspp.conv2": {"weight"}, "aspp.bn2": NORM}
    for i in range(1, 6):
        layers |= {f"aspp.aspp{i}": {"weight"}, f"aspp.aspp{i}_bn": NORM}
    for k in (1, 4, 8):
        key = f"decoder.refine_OS{k}"
        layers |= {f"{key}.0": {"weight"}, f"{key}.1": NORM, f"{key}.3": {"weight", "bias"}}
    return layers


def sizes(network):
    """Keys, parameters with u and v, trainable parameters and other buffers, as the table of sizes counts them."""
    state = network.state_dict()
    vectors = sum(value.numel() for name, value in state.items() if name.endswith(("._u", "._v")))
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    buffers = sum(value.numel() for name, value in network.named_buffers() if not name.endswith(("._u", "._v")))
    return len(state), trainable + vectors, trainable, buffers


def randomise(network, seed=0):
    """Move every weight, statistic and vector away from the special values it starts with."""
    generator = torch.Generator().manual_seed(seed)

    def noise(value):
        return torch.randn(value.shape, generator=generator)

    with torch.no_grad():
        for name, value in network.state_dict(keep_vars=True).items():
            if name.endswith(("._u", "._v")):  # off the singular vectors, but not so far that sigma vanishes
                moved = value + 0.5 * noise(value) / value.numel() ** 0.5
                value.copy_(moved / moved.norm())
            elif name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            elif value.ndim == 1 and value.is_floating_point():
                value.copy_(0.3 * noise(value) + (0.7 if name.endswith("weight") else 0))
    return network


def make_input(n, height, width, guidance=3, seed=0):
    """Noise, and a trimap or mask of 16x16 cells with all classes: float32 [n, 3 + guidance, height, width]."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(n, 3, height // 4, width // 4, generator=generator).repeat_interleave(4, 2)
    image = image.repeat_interleave(4, 3) + 0.3 * torch.randn(n, 3, height, width, generator=generator)
    trimap = torch.randint(0, 3, (n, height // 16, width // 16), generator=generator)
    trimap.view(n, -1)[:, :3] = torch.tensor([0, 1, 2])
    trimap = trimap.repeat_interleave(16, 1).repeat_interleave(16, 2)
    channels = one_hot(trimap, 3).permute(0, 3, 1, 2) if guidance == 3 else (trimap == 2)[:, None]
    return torch.cat([image, channels], dim=1)


# --- layers ---


def weight(state, name):
    bar, u, v = (state[f"{name}.module.weight_{part}"] for part in ("bar", "u", "v"))
    return bar / (u @ (bar.flatten(1) @ v))


def sn_conv(state, name, x, stride=1):
    kernel = weight(state, name)
    return conv2d(x, kernel, stride=stride, padding=kernel.shape[2] // 2)


def sn_double(state, name, x):
    return conv_transpose2d(x, weight(state, name), stride=2, padding=1)


def norm(state, name, x):
    mean, var, gain, bias = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return batch_norm(x, mean, var, gain, bias, eps=1e-5)


def reflect(x):
    """One pixel more at every side of [1, C, h, w], mirrored without the border pixel itself."""
    rows = [1, *range(x.shape[2]), x.shape[2] - 2]
    columns = [1, *range(x.shape[3]), x.shape[3] - 2]
    return x[:, :, rows][:, :, :, columns]


# --- encoder and decoder ---


def shortcut(state, i, x):
    for j in (0, 3):
        x = norm(state, f"encoder.shortcut.{i}.{j + 2}", relu(sn_conv(state, f"encoder.shortcut.{i}.{j}", x)))
    return x


def encoder_stage(state, name, x, blocks, stride):
    for j in range(blocks):
        key = f"encoder.{name}.{j}"
        y = relu(norm(state, f"{key}.bn1", sn_conv(state, f"{key}.conv1", x, stride if j == 0 else 1)))
        y = norm(state, f"{key}.bn2", sn_conv(state, f"{key}.conv2", y))
        if j == 0 and stride == 2:
            x = norm(state, f"{key}.downsample.2", sn_conv(state, f"{key}.downsample.1", avg_pool2d(x, 2)))
        x = relu(y + x)
    return x


def encode(state, x, attend=lambda x3: x3):
    """Five shortcuts and the bottleneck; ``attend`` takes the map at /8."""
    x1 = relu(norm(state, "encoder.bn1", sn_conv(state, "encoder.conv1", x, 2)))
    x1 = relu(norm(state, "encoder.bn2", sn_conv(state, "encoder.conv2", x1)))
    x2 = relu(norm(state, "encoder.bn3", sn_conv(state, "encoder.conv3", x1, 2)))
    x2 = encoder_stage(state, "layer1", x2, 3, 1)
    x3 = attend(encoder_stage(state, "layer2", x2, 4, 2))
    x4 = encoder_stage(state, "layer3", x3, 4, 2)
    x5 = encoder_stage(state, "layer_bottleneck", x4, 2, 2)
    return [shortcut(state, i, y) for i, y in enumerate((x, x1, x2, x3, x4))] + [x5]


def decoder_stage(state, s, x, blocks):
    key = f"decoder.layer{s}.0"
    y = leaky_relu(norm(state, f"{key}.bn1", sn_double(state, f"{key}.conv1", x)), 0.2)
    y = norm(state, f"{key}.bn2", sn_conv(state, f"{key}.conv2", y))
    doubled = interpolate(x, scale_factor=2, mode="nearest")
    x = leaky_relu(y + norm(state, f"{key}.upsample.2", sn_conv(state, f"{key}.upsample.1", doubled)), 0.2)
    for j in range(1, blocks):
        key = f"decoder.layer{s}.{j}"
        y = leaky_relu(norm(state, f"{key}.bn1", sn_conv(state, f"{key}.conv1", x)), 0.2)
        x = leaky_relu(norm(state, f"{key}.bn2", sn_conv(state, f"{key}.conv2", y)) + x, 0.2)
    return x


def decode(state, features, attend=lambda x: x):
    """The maps at /8, /4 and /1 from which alpha is made."""
    fea1, fea2, fea3, fea4, fea5, x = features
    x = decoder_stage(state, 1, x, 2) + fea5
    os8 = attend(decoder_stage(state, 2, x, 3) + fea4)
    os4 = decoder_stage(state, 3, os8, 3) + fea3
    x = decoder_stage(state, 4, os4, 2) + fea2
    return os8, os4, leaky_relu(norm(state, "decoder.bn1", sn_double(state, "decoder.conv1", x)), 0.2) + fea1


# --- MG-Matting ---


def dilated(x, kernel, step):
    """3x3 convolution of [1, C, h, w] whose taps lie ``step`` pixels apart, tap by tap."""
    height, width = x.shape[2:]
    padded = zero_pad(x, (step,) * 4)
    total = 0
    for i in range(3):
        for j in range(3):
            seen = padded[:, :, i * step : i * step + height, j * step : j * step + width]
            total = total + torch.einsum("oc,nchw->nohw", kernel[:, :, i, j], seen)
    return total


def aspp(state, x):
    kernels = [state[f"aspp.aspp{i}.weight"] for i in range(1, 6)]
    whole = torch.stack([channel.mean() for channel in x[0]]).view(1, -1, 1, 1)
    levels = [conv2d(x, kernels[0]), *(dilated(x, kernels[i], 2**i) for i in (1, 2, 3)), conv2d(whole, kernels[4])]
    levels = [relu(norm(state, f"aspp.aspp{i}_bn", level)) for i, level in enumerate(levels, 1)]
    levels[4] = torch.ones_like(levels[0]) * levels[4]
    return relu(norm(state, "aspp.bn2", conv2d(torch.cat(levels, 1), state["aspp.conv2.weight"])))


def heads(state, maps, size):
    """Alphas of ``size`` from the maps at /8, /4 and /1."""
    alphas = {}
    for k, y in zip((8, 4, 1), maps, strict=True):
        key = f"decoder.refine_OS{k}"
        y = leaky_relu(norm(state, f"{key}.1", conv2d(y, state[f"{key}.0.weight"], padding=1)), 0.2)
        y = conv2d(y, state[f"{key}.3.weight"], state[f"{key}.3.bias"], padding=1)
        y = interpolate(y, size, mode="bilinear", align_corners=False)
        alphas[f"alpha_os{k}"] = (torch.tanh(y) + 1) / 2
    return {name: alphas[name] for name in ("alpha_os1", "alpha_os4", "alpha_os8")}


def plain_mgmatting(state, images):
    results = []
    for x in images.split(1):
        *shortcuts, x5 = encode(state, x)
        results.append(heads(state, decode(state, [*shortcuts, aspp(state, x5)]), x.shape[2:]))
    return {name: torch.cat([alphas[name] for alphas in results]) for name in results[0]}


# --- GCA-Matting ---


def guided_attention(state, part, guidance, x, unknown):
    """One image; unknown [h, w] of 0 and 1, at /8. Patches serve as kernels of convolutions."""
    g = conv2d(guidance, state[f"{part}.gca.guidance_conv.weight"], state[f"{part}.gca.guidance_conv.bias"])
    g, unknown = g[:, :, ::2, ::2], unknown[::2, ::2]
    height, width = unknown.shape
    share = unknown.mean().item()
    scale_unknown = min(max((share / (1 - share)) ** 0.5 if share < 1 else 10, 0.1), 10)
    scale_known = min(max(((1 - share) / share) ** 0.5 if share > 0 else 10, 0.1), 10)

    g, around, padded = reflect(g), reflect(unknown[None, None]), reflect(x)
    positions = [(i, j) for i in range(height) for j in range(width)]
    keys = torch.cat([g[:, :, i : i + 3, j : j + 3] for i, j in positions])
    keys = torch.stack([key / key.norm().clamp(min=1e-4) for key in keys])
    scores = conv2d(g, keys)[0]  # [key, row of the query, column of the query]
    for k, (i, j) in enumerate(positions):
        if around[0, 0, i : i + 3, j : j + 3].mean() > 0:
            scores[k] *= scale_unknown
            scores[k, i, j] -= 1e4
        else:
            scores[k] *= scale_known
    weights = scores.softmax(0)
    values = torch.cat([padded[:, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] for i, j in positions])
    rebuilt = conv_transpose2d(weights[None], values, stride=2, padding=1) / 4
    return norm(state, f"{part}.gca.W.1", conv2d(rebuilt, state[f"{part}.gca.W.0.weight"])) + x


def plain_gca(state, images):
    results = []
    for x in images.split(1):
        guidance = x[:, :3]
        for i in (1, 5, 9):
            guidance = conv2d(reflect(guidance), weight(state, f"encoder.guidance_head.{i}"), stride=2)
            guidance = norm(state, f"encoder.guidance_head.{i + 2}", relu(guidance))
        unknown = x[0, 4, ::8, ::8] if x.shape[1] == 6 else torch.ones(x.shape[2] // 8, x.shape[3] // 8)

        def attend(part, y, guidance=guidance, unknown=unknown):
            return guided_attention(state, part, guidance, y, unknown)

        features = encode(state, x, lambda x3: attend("encoder", x3))  # noqa: B023
        _, _, y = decode(state, features, lambda y: attend("decoder", y))  # noqa: B023
        y = conv2d(y, state["decoder.conv2.weight"], state["decoder.conv2.bias"], padding=1)
        results.append((torch.tanh(y) + 1) / 2)
    return {"alpha_os1": torch.cat(results)}
