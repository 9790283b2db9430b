"""The list of networks that the command prints."""

import re

import pytest

from dptmat import models
from dptmat.models import PREFIXES
from dptmat.models import cost as cost_module

MILLIONS = {"matteformer": 44.7, "gca": 25.2, "mgmatting": 29.6}  # trainable parameters of the published checkpoints


@pytest.fixture
def only_published(monkeypatch):
    """Count the published networks alone: the larger ones and those of timm take half a minute."""
    count = cost_module.cost
    monkeypatch.setattr(models, "MODELS", {name: models.MODELS[name] for name in MILLIONS})
    monkeypatch.setattr(cost_module, "cost", lambda name: count(name) if name in MILLIONS else (9e6, [2e9, 10e9]))


@pytest.mark.slow
def test_every_network_is_listed_with_what_it_costs(dptmat, only_published):
    status, printed, error = dptmat("models")
    assert (status, error) == (0, "")
    head, *lines = printed.splitlines()
    columns = ["network", "parameters", "multiply-adds,", "224x224", "512x512"]
    assert head.split() == [*columns, "official", "weights", "published", "SAD"]
    assert all(" load " in line for line in lines if not line.startswith(PREFIXES))
    assert all(re.search(r" G  -  +-$", line) for line in lines if line.startswith(PREFIXES))
    assert any(line.endswith("23.8, pre-trained 21.0 (Li et al., WACV 2024)") for line in lines)
    rows = {line.split()[0]: [float(x) for x in re.findall(r"([\d.]+) [MG]", line)] for line in lines}
    assert {name: rows.pop(name)[0] for name in MILLIONS} == MILLIONS
    assert rows
    assert all(name.startswith(PREFIXES) and row == [9.0, 2.0, 10.0] for name, row in rows.items())
    assert {name.partition("_")[0] for name in rows} == {"unet", "vit"}
