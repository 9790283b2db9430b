"""The optimizer, its learning rate, and the limit of the gradient."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def adamw(
    model: nn.Module,
    weight_decay: float,
    betas: tuple[float, float],
    decay_all: bool = False,
    layers: Sequence[Sequence[nn.Parameter]] = (),
    layer_decay: float = 1.0,
) -> torch.optim.AdamW:
    """Make AdamW, or without weight decay Adam.

    Norms, biases, Swin's tables of position biases and ViTMatte's positions are not decayed, unless ``decay_all`` asks
    for it.

    Args:
        model: The network.
        weight_decay: Of the decayed parameters.
        betas: Of Adam.
        decay_all: Whether all are.
        layers: Parameters of the model in the order of their layers, from the input on; others belong to none.
        layer_decay: Rate of each layer as a multiple of that of the next one, and of the last one as a multiple of that
            of the parameters in none. Groups with a rate of their own have it as ``lr_scale``.
    """
    layer_of = {id(parameter): i for i, layer in enumerate(layers) for parameter in layer} if layer_decay != 1 else {}
    decayed: dict[int, list[nn.Parameter]] = {len(layers): []}  # by layer
    others: dict[int, list[nn.Parameter]] = {len(layers): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            positions = name == "encoder.pos_embed" or (name.startswith("encoder.blocks.") and ".rel_pos_" in name)
            spared = not decay_all and (parameter.ndim <= 1 or "bias" in name or positions)
            of_layer = others if spared else decayed
            of_layer.setdefault(layer_of.get(id(parameter), len(layers)), []).append(parameter)
    groups = []
    for parts, decay in ((decayed, weight_decay), (others, 0.0)):
        for layer, parameters in parts.items():
            scale = {"lr_scale": layer_decay ** (len(layers) - layer)} if layer < len(layers) else {}
            groups.append({"params": parameters, "weight_decay": decay, **scale})
    # Fused: one kernel for all tensors, and the gradient scaler need not wait for the device.
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """Compute the learning rate of a step: linear warm-up, then a cosine to 0.

    Args:
        step: Step number, 0 <= step < steps.
        steps: Steps of the whole run.
        warmup_steps: Steps until the peak is reached.
        peak: Largest learning rate.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps)))


def learning_rate_at_milestones(
    step: int, steps: int, warmup_steps: int, peak: float, milestones: Iterable[tuple[float, float]]
) -> float:
    """Compute the learning rate of a step: linear warm-up, then constant but for factors at milestones.

    Args:
        step: Step number, 0 <= step < steps.
        steps: Steps of the whole run.
        warmup_steps: Steps until the peak is reached.
        peak: Largest learning rate.
        milestones: In rising order: the share of the steps after which it is reached, and what the peak is multiplied
            by from there on, which replaces the factor of the one before.
    """
    factor = 1.0
    for share, following in milestones:
        if step >= round(share * steps):
            factor = following
    return peak * min(1.0, (step + 1) / max(1, warmup_steps)) * factor


def learning_rate_of_epoch(epoch: int, epochs: int, warmup_epochs: int, peak: float) -> float:
    """Compute the learning rate of a whole epoch: linear warm-up, then a cosine that would be 0 in epoch ``epochs``.

    The peak is reached in the last epoch of the warm-up, and the cosine goes down from there.

    Args:
        epoch: Its number, 0 <= epoch < epochs.
        epochs: Epochs of the whole run.
        warmup_epochs: Epochs until the peak is reached.
        peak: Largest learning rate.

    Source: the published training code of DPT, which runs 99 epochs with 10 of warm-up.
    """
    if epoch < warmup_epochs:
        return peak * (epoch + 1) / warmup_epochs
    return peak * 0.5 * (1 + math.cos(math.pi * (epoch + 1 - warmup_epochs) / (epochs + 1 - warmup_epochs)))


def clip_gradients(
    parameters: Iterable[nn.Parameter],
    limit: float,
    factor: float,
    running: Tensor,  # float32 []
) -> Tensor:  # float32 []
    """Scale the gradients down where their global norm is too large; does not wait for the device.

    Args:
        parameters: Those with gradients.
        limit: Largest norm.
        factor: Largest multiple of the running mean of the norms.
        running: That mean, 0 before the first step, which only ``limit`` holds back; changed in place: 99.9 % of it and
            0.1 % of the new norm.

    Returns:
        The norm before.

    Source: the published training code of GCA-Matting and MG Matting, with a factor of 2.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    known = running > 0
    allowed = torch.where(known, (factor * running).clamp(max=limit), limit) if math.isfinite(factor) else limit
    torch._foreach_mul_(gradients, (allowed / (norm + 1e-6)).clamp(max=1))
    # A norm that float16 could not hold says nothing: the gradient scaler leaves that step out.
    mean = torch.where(known, 0.999 * running + 0.001 * norm, norm)
    running.copy_(torch.where(norm.isfinite(), mean, running))
    return norm
