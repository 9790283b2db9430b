"""The learning rate's curve and what is decayed."""

import math

import pytest
import torch

from dptmat.optim import adamw, learning_rate


def test_warm_up_is_linear_and_a_cosine_follows():
    rates = [learning_rate(step, 100, 10, 2.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(1.0)  # half way down
    assert rates[99] == pytest.approx(1 + math.cos(math.pi * 89 / 90))
    assert all(a < b for a, b in zip(rates[:9], rates[1:10], strict=True))
    assert all(a > b for a, b in zip(rates[10:-1], rates[11:], strict=True))


def test_a_run_that_is_all_warm_up_ends_at_the_peak():
    assert learning_rate(4, 5, 5, 3.0) == 3.0


def test_norms_and_biases_are_not_decayed():
    model = torch.nn.ModuleDict(
        {"conv": torch.nn.Conv2d(3, 4, 3), "norm": torch.nn.BatchNorm2d(4), "linear": torch.nn.Linear(4, 4)}
    )
    model.relative_position_bias_table = torch.nn.Parameter(torch.zeros(169, 3))
    decay = {id(p): group["weight_decay"] for group in adamw(model, 0.05).param_groups for p in group["params"]}
    assert {name for name, p in model.named_parameters() if decay[id(p)] == 0.05} == {"conv.weight", "linear.weight"}
    assert {name for name, p in model.named_parameters() if decay[id(p)] == 0.0} == {
        "conv.bias", "norm.weight", "norm.bias", "linear.bias", "relative_position_bias_table",
    }  # fmt: skip
