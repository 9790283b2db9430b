"""The losses of a network's outputs by the formulas, output by output and number by number in their order."""

import torch
import torch.nn.functional as F

SHARES = {1: {"alpha_os1": 1.0}, 3: {"alpha_os1": 2 / 5, "alpha_os4": 1 / 5, "alpha_os8": 1 / 5}}


def mean(error, weight):
    return (error * weight).sum() / weight.sum().clamp(min=1e-8)


def blur(x):
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    for axis in (2, 3):
        a, b, c, d, e = (x.narrow(axis, i, x.shape[axis] - 4) for i in range(5))
        x = (a + e + 4 * (b + d) + 6 * c) / 16
    return x


def laplacian(difference, weight):
    terms = []
    for level in range(5):
        smaller = blur(difference)[:, :, ::2, ::2]
        spread = torch.zeros_like(difference)
        spread[:, :, ::2, ::2] = smaller
        terms.append(2**level * mean((difference - 4 * blur(spread)).abs(), weight))
        difference, weight = smaller, weight[:, :, ::2, ::2]
    return terms[0] + terms[1] + terms[2] + terms[3] + terms[4]


def matting_losses(outputs, alpha, contrast, weights):
    """Losses by name of outputs with a weight for each: scalars."""
    found = {}
    for name in ("l1", "comp", "lap"):
        for key, share in SHARES[len(outputs)].items():
            difference, weight = outputs[key] - alpha, weights[key]
            if name == "lap":
                loss = laplacian(difference, weight)
            else:
                loss = mean(difference.abs() * contrast if name == "comp" else difference.abs(), weight)
            found[name] = found[name] + share * loss if name in found else share * loss
    return found
