"""The optimiser of pre-training and its learning rate."""

import math

import torch


def adamw(model, weight_decay):
    """AdamW with betas 0.9 and 0.95; norms, biases and Swin's tables of position biases are not decayed."""
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (others if parameter.ndim <= 1 or "bias" in name else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    # Fused: one kernel for all tensors, and the gradient scaler need not wait for the device.
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), fused=True)


def learning_rate(step, steps, warmup_steps, peak):
    """Linear warm-up, then a cosine to 0.

    Args:
        step: Step number, 0 <= step < steps.
        steps: Steps of the whole run.
        warmup_steps: Steps until the peak is reached.
        peak: Largest learning rate.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps)))
