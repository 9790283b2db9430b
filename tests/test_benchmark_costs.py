"""What `dptmat models` tells of memory: against what PyTorch's allocator gives to real tensors, and kept up to date."""

import json
import math

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from dptmat.models import MODELS, create_model
from dptmat.models.cost import COSTS


@pytest.fixture
def costs(import_benchmark):
    return import_benchmark("costs")


def allocated(call):
    """Peak of what PyTorch's allocator gives out during a call, in bytes, by its profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return highest


def weights_of(costs, network):
    return sum(tensor.untyped_storage().nbytes() for tensor in costs.tensors_of(network))


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("unet_resnet18", marks=pytest.mark.exhaustive), "vitmatte_small"])
def test_training_needs_what_was_counted(costs, name):
    """Within 2 %: kernels take some memory for themselves."""
    network = create_model(name).to(memory_format=torch.channels_last)
    weights = weights_of(costs, network)
    real = weights + allocated(lambda: costs.train_two_steps(network, 2, 96))
    counted = costs.peak_of_training(name, 2, 96)
    assert counted == pytest.approx(real, rel=0.02)
    assert counted > 4 * weights  # with gradients and two moments


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet_resnet18", "vitmatte_small"])
def test_a_networks_evaluation_needs_what_was_counted(costs, name):
    """At least that, and within 20 % with the weights: the CPU's convolutions sort what they read in a copy."""
    network = create_model(name).eval()
    x = torch.zeros(1, 6, 256, 256)
    with torch.no_grad():
        real = allocated(lambda: network(x))
    counted, weights = costs.peak_of_forward(name, x.shape), weights_of(costs, network)
    assert counted <= real
    assert weights + counted > 0.8 * (weights + real)


def test_a_prediction_counts_its_tiles_and_what_is_beside_them(costs, monkeypatch):
    """An image of 704 pixels goes as a whole; in tiles of 448 it needs less, but more than one tile does."""
    shapes = []
    monkeypatch.setattr(costs, "peak_of_forward", lambda name, shape: shapes.append(shape) or 10**8 * math.prod(shape))
    name = "unet_resnet10t"
    whole = costs.peak_of_prediction(name, 704)
    monkeypatch.setattr("dptmat.inference.TILE", 448)
    tiled = costs.peak_of_prediction(name, 704)
    assert shapes == [(1, 6, 704, 704), (1, 6, 448, 448)]
    beside = [peak - 10**8 * math.prod(shape) for peak, shape in zip((whole, tiled), shapes, strict=True)]
    assert beside[0] > weights_of(costs, create_model(name)) + 4 * math.prod(shapes[0])  # and the input
    assert beside[1] > weights_of(costs, create_model(name)) + 3 * 4 * 704**2  # and three alphas of the whole image


def test_views_and_what_is_dropped_do_not_add_up(costs):
    with costs.Peak() as peak:
        x = torch.zeros(1000)
        y = x.view(10, 100)[2:] + 1
        del x
        z = y * 2
    assert peak.highest == 4 * (1000 + 800)
    assert peak.now == 4 * (800 + 800)
    assert len(z) == 8


def test_every_network_has_been_counted(costs):
    rows = json.loads(COSTS.read_text())
    assert list(rows) == list(costs.NAMES)
    assert set(MODELS) <= rows.keys()
    for name, row in rows.items():
        assert row["multiply_adds_224"] < row["multiply_adds_512"], name
        assert 4 * row["parameters"] < row["prediction_512"] < row["prediction_2048"], name
        assert 16 * row["parameters"] < row["training"], name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gca", pytest.param("vitmatte_small", marks=pytest.mark.exhaustive)])
def test_what_was_counted_is_up_to_date(costs, name):
    """If not: python benchmarks/costs.py. Another version of PyTorch may hold a little more or less."""
    row = json.loads(COSTS.read_text())[name]
    parameters, (at_224, at_512) = costs.cost(name)
    assert (parameters, at_224, at_512) == (row["parameters"], row["multiply_adds_224"], row["multiply_adds_512"])
    assert costs.peak_of_training(name) == pytest.approx(row["training"], rel=0.02)
    assert costs.peak_of_prediction(name, 512) == pytest.approx(row["prediction_512"], rel=0.02)


@pytest.mark.exhaustive
def test_all_that_was_counted_is_up_to_date(costs):
    for name, row in json.loads(COSTS.read_text()).items():
        assert costs.count(name) == pytest.approx(row, rel=0.02), name
