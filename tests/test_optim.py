"""The learning rate's curve and what is decayed."""

import math
from types import SimpleNamespace

import pytest
import torch

from dptmat.config.pretrain import PretrainConfig
from dptmat.models import create_model
from dptmat.training.build import _choose_schedule
from dptmat.training.optim import (
    adamw,
    clip_gradients,
    learning_rate,
    learning_rate_at_milestones,
    learning_rate_of_epoch,
)


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
    decay = {
        id(p): group["weight_decay"] for group in adamw(model, 0.05, (0.9, 0.95)).param_groups for p in group["params"]
    }
    assert {name for name, p in model.named_parameters() if decay[id(p)] == 0.05} == {"conv.weight", "linear.weight"}
    assert {name for name, p in model.named_parameters() if decay[id(p)] == 0.0} == {
        "conv.bias", "norm.weight", "norm.bias", "linear.bias", "relative_position_bias_table",
    }  # fmt: skip


def test_the_positions_of_a_plain_transformer_are_not_decayed():
    with torch.device("meta"):
        model = create_model("vitmatte_small")
    decay = {
        id(p): group["weight_decay"] for group in adamw(model, 0.1, (0.9, 0.999)).param_groups for p in group["params"]
    }
    spared = {name for name, p in model.named_parameters() if p.ndim > 1 and decay[id(p)] == 0}
    assert spared == {
        "encoder.pos_embed",
        *(f"encoder.blocks.{i}.attn.rel_pos_{axis}" for i in range(12) for axis in "hw"),
    }


def clip_a_gradient(norm, running, limit=1e6, factor=2.0):
    """Norm that a gradient of a given one is left with."""
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in (2, 1, 9)]  # the last one has no gradient
    parameters[0].grad, parameters[1].grad = torch.tensor([2.0, 1.0]) * norm / 3, torch.tensor([2.0]) * norm / 3
    assert clip_gradients(parameters, limit, factor, running).item() == pytest.approx(norm)
    return math.hypot(*torch.cat([parameters[0].grad, parameters[1].grad]).tolist())


def test_a_gradient_is_held_to_twice_the_running_mean_of_the_norms():
    """The published rule, with the numbers worked out by hand."""
    running = torch.zeros(())
    assert clip_a_gradient(30.0, running) == pytest.approx(30.0)  # the first is free, and starts the mean
    assert running.item() == pytest.approx(30.0)
    assert clip_a_gradient(100.0, running) == pytest.approx(60.0)
    assert running.item() == pytest.approx(0.999 * 30 + 0.1)  # of the norm before clipping
    assert clip_a_gradient(50.0, running) == pytest.approx(50.0)
    assert clip_a_gradient(100.0, running, limit=5.0) == pytest.approx(5.0)
    assert clip_a_gradient(1e4, torch.zeros(()), limit=10.0) == pytest.approx(10.0)


def test_without_a_factor_the_limit_alone_counts():
    running = torch.zeros(())
    for norm, left in ((1.0, 1.0), (100.0, 5.0), (3.0, 3.0)):
        assert clip_a_gradient(norm, running, limit=5.0, factor=math.inf) == pytest.approx(left)
    assert clip_a_gradient(100.0, running, limit=math.inf, factor=math.inf) == pytest.approx(100.0)


def test_an_infinite_norm_does_not_enter_the_mean():
    running = torch.tensor(30.0)
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([math.inf, 1.0])
    clip_gradients([parameter], 1e6, 2.0, running)
    assert running.item() == 30.0


def test_all_is_decayed_on_demand():
    model = torch.nn.ModuleDict({"conv": torch.nn.Conv2d(3, 4, 3), "norm": torch.nn.BatchNorm2d(4)})
    groups = adamw(model, 0.05, (0.9, 0.95), decay_all=True).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert [decay[id(p)] for p in model.parameters()] == [0.05] * 4


def test_rates_of_epochs_are_those_of_the_released_code():
    """By hand: 3e-4 * e / 10 in epochs e = 1..10, then a cosine of period 90 down to 0; epochs 1..99 are run."""
    rates = [learning_rate_of_epoch(e - 1, 99, 10, 3e-4) for e in range(1, 100)]
    assert rates[:10] == pytest.approx([3e-5 * e for e in range(1, 11)])
    assert rates[54] == pytest.approx(1.5e-4)  # e = 55, half way down
    assert rates[98] == pytest.approx(1.5e-4 * (1 - math.cos(math.pi / 90)))
    assert all(a > b for a, b in zip(rates[9:], rates[10:], strict=False))


def test_a_schedule_by_epoch_keeps_its_rate_within_an_epoch():
    sampler = SimpleNamespace(steps_per_epoch=4)
    settings = PretrainConfig(data="unused", out="unused", schedule="epoch", lr=2.0, warmup=0.5)
    rate = _choose_schedule(SimpleNamespace(sampler=sampler, steps=14), settings)  # 3 epochs and a half
    rates = [rate(step) for step in range(14)]
    cosine = [1 + math.cos(math.pi / 3), 1 + math.cos(math.pi * 2 / 3)]
    assert rates == pytest.approx([1.0] * 4 + [2.0] * 4 + [cosine[0]] * 4 + [cosine[1]] * 2)


def test_rates_at_milestones_are_those_of_vitmatte():
    """By hand: 134,687 steps, 250 of warm-up, a tenth from 30 % on and a twentieth, not of the tenth, from 90 % on."""
    milestones = [(0.3, 0.1), (0.9, 0.05)]
    rates = {
        step: learning_rate_at_milestones(step, 134_687, 250, 5e-4, milestones)
        for step in (0, 124, 249, 250, 40_405, 40_406, 121_217, 121_218, 134_686)
    }
    expected = [2e-6, 2.5e-4, 5e-4, 5e-4, 5e-4, 5e-5, 5e-5, 2.5e-5, 2.5e-5]
    assert list(rates.values()) == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_a_schedule_of_milestones_goes_by_the_length_of_the_run(warmup):
    settings = PretrainConfig(
        data="unused", out="unused", schedule="milestones", milestones="0.5:0.5", lr=2.0, warmup=warmup
    )
    rate = _choose_schedule(SimpleNamespace(steps=8), settings)
    assert [rate(step) for step in range(8)] == [2.0 if warmup == 0 else 1.0, *[2.0] * 3, *[1.0] * 4]
