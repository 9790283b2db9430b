"""The optimizer, its learning rate, and the limit of the gradient."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def adamw(
    model: nn.Module, weight_decay: float, betas: tuple[float, float], decay_all: bool = False
) -> torch.optim.AdamW:
    """Make AdamW, or without weight decay Adam.

    Norms, biases, Swin's tables of position biases and ViTMatte's positions are not decayed, unless ``decay_all`` asks
    for it.
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            positions = name == "encoder.pos_embed" or (name.startswith("encoder.blocks.") and ".rel_pos_" in name)
            spared = not decay_all and (parameter.ndim <= 1 or "bias" in name or positions)
            (others if spared else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
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
