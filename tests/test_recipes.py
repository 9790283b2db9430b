"""Every recipe is read, says what was published, differs from the defaults in a few lines, and trains."""

import dataclasses
import re
from pathlib import Path

import cv2
import pytest
import tomli_w
from mattes import shades, write_mattes
from options import as_words

from dptmat.config import settings as config
from dptmat.config.finetune import FinetuneConfig
from dptmat.config.pretrain import PretrainConfig
from dptmat.tasks.finetune import finetune
from dptmat.tasks.pretrain import pretrain

ROOT = Path(__file__).parent.parent / "recipes"
RECIPES = sorted(ROOT.rglob("*.toml"))
NAMES = [str(path.relative_to(ROOT)) for path in RECIPES]
NEEDED = {"pretrain": ["data", "out"], "finetune": ["fg", "alpha", "bg", "init", "out"]}
TASKS = {"pretrain": (PretrainConfig, pretrain), "finetune": (FinetuneConfig, finetune)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    fg, alpha = write_mattes(folder, [(100, 120), (90, 150)])
    (folder / "bg").mkdir()
    for i in range(2):
        cv2.imwrite(str(folder / f"bg/{i}.png"), shades(110, 100, 10 + i))
    return {
        "pretrain": {"data": str(folder / "bg")},
        "finetune": {"fg": str(fg), "alpha": str(alpha), "bg": str(folder / "bg")},
    }


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_changes_what_it_lists_and_nothing_else(path, dptmat):
    given = config.read_toml(path, "recipe")
    needed = {name: "x" for name in NEEDED[path.parent.name] if name not in given}
    _, usual, _ = dptmat(path.parent.name, *as_words(dict.fromkeys(NEEDED[path.parent.name], "x")), "--dry-run")
    status, resolved, error = dptmat(path.parent.name, "--config", path, *as_words(needed), "--dry-run")
    assert (status, error) == (0, "")
    changed = set(resolved.splitlines()) - set(usual.splitlines())
    assert 1 <= len(given) <= 3
    assert changed <= set(tomli_w.dumps(given).splitlines())
    assert len(changed) == len(given) - (given.get("model") == "matteformer")  # the default, but what it is about


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_names_others_that_exist(path):
    for name in re.findall(r"(?:pretrain|finetune)/[\w-]+\.toml", path.read_text()):
        assert (ROOT / name).exists()


def test_half_of_the_known_cells_are_foreground():
    recipes = [config.read_toml(path, "recipe") for path in RECIPES]
    shares = {recipe["unknown"]: recipe["foreground"] for recipe in recipes if "unknown" in recipe}
    assert len(shares) == 3
    assert all(foreground == (1 - unknown) / 2 for unknown, foreground in shares.items())


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_trains(path, files, tmp_path):
    task = path.parent.name
    cls, run = TASKS[task]
    given = config.read_toml(path, "recipe")
    required = {**files[task], "out": str(tmp_path / "run"), **({"init": "random"} if task == "finetune" else {})}
    settings = config.from_mapping(cls, {**required, **given}, str(path))
    tiny = {"size": 64, "batch_size": 2, "steps": 2, "device": "cpu"}
    if "model" not in given:
        tiny["model"] = "unet_resnet10t"  # the network is not what this recipe is about
    if given.get("init") == "timm":
        tiny["init"] = "random"  # nothing is downloaded here
    assert run(dataclasses.replace(settings, **tiny)).exists()
