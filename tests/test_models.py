"""The list of networks that the command prints."""

import re

import pytest

from dptmat.models import MODELS, PREFIXES

MILLIONS = {"matteformer": 44.7, "gca": 25.2, "mgmatting": 29.6}  # trainable parameters of the published checkpoints
# Of Yao et al.'s networks with 6 channels, independently counted: parameters, and multiply-adds at 512 with 4 channels.
VITMATTE = {"vitmatte_small": (26.0, 54.4), "vitmatte_base": (97.1, 140.3)}


def test_every_network_is_listed_with_what_it_costs(dptmat):
    status, printed, error = dptmat("models")
    assert (status, error) == (0, "")
    groups, head, *lines = printed.splitlines()
    assert groups.split() == ["multiply-adds", "memory", "in", "training,", "of", "prediction", "official"]
    columns = ["network", "parameters", "224", "512", "2", "x", "512", "512", "2048", "weights", "published", "SAD"]
    assert head.split() == columns
    assert max(map(len, (groups, head, *lines))) <= 160
    rows = {line.split()[0]: [float(x) for x in re.findall(r"([\d.]+) (?:M|G|GB)\b", line)] for line in lines}
    assert set(MODELS) <= rows.keys()
    assert {name.partition("_")[0] for name in rows.keys() - MODELS.keys()} == {"unet", "vit"}
    assert all(len(row) == 6 and min(row) > 0 for row in rows.values())
    assert {name: rows[name][0] for name in MILLIONS} == MILLIONS
    for name, (parameters, at_512) in VITMATTE.items():
        assert rows[name][0] == parameters
        assert rows[name][2] == pytest.approx(at_512, rel=0.02)
    weights = {line.split()[0]: re.search(r"GB  (load|-) ", line)[1] for line in lines}
    assert all(weights[name] == "-" for name in rows if name.startswith(PREFIXES))
    assert {name for name, loads in weights.items() if loads == "load"} == {
        "matteformer", "gca", "mgmatting", "mgmatting_mask", "vitmatte_small", "vitmatte_base",
    }  # fmt: skip


def test_each_published_score_has_its_source(dptmat):
    scores = {line.split()[0]: line.rpartition("  ")[2] for line in dptmat("models")[1].splitlines()[2:]}
    assert scores["matteformer"] == "23.8, pre-trained 21.0 (Li et al., WACV 2024)"
    assert scores["vitmatte_small"] == "21.46 (Yao et al., Information Fusion 2024)"
    assert all(
        re.fullmatch(r"-|[\d.]+(, pre-trained [\d.]+)? \(.+ et al\., .+ 20\d\d\)", text) for text in scores.values()
    )
