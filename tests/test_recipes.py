"""Every recipe is read, says what was published, differs from the defaults in a few lines, and trains."""

import dataclasses
from pathlib import Path

import cv2
import pytest
from mattes import shades, write_mattes

from dptmat.config import settings as config
from dptmat.config.finetune import FinetuneConfig
from dptmat.config.pretrain import PretrainConfig
from dptmat.tasks.finetune import finetune
from dptmat.tasks.pretrain import pretrain

ROOT = Path(__file__).parent.parent / "recipes"
RECIPES = sorted(ROOT.rglob("*.toml"))
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


def test_every_published_table_has_its_recipes():
    told = "\n".join(path.read_text() for path in RECIPES)
    for table in (
        "Tables 1 and 2",
        "Table 3",
        "Table 4",
        "Table 5",
        "Tables 3 and 6",
        "Table 7",
        "Table 9",
        "Figure 7",
    ):
        assert f"# {table}: " in told


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_recipe_trains(path, files, tmp_path):
    task = path.parent.name
    cls, run = TASKS[task]
    given = config.read_toml(path)
    assert "Published result" in path.read_text()
    required = {**files[task], "out": str(tmp_path / "run"), **({"init": "random"} if task == "finetune" else {})}
    settings = config.from_mapping(cls, {**required, **given}, str(path))
    assert 1 <= len(given) <= 3
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    assert all(value != defaults[name] for name, value in given.items() if name != "model")
    tiny = {"size": 64, "batch_size": 2, "steps": 2, "device": "cpu"}
    if "model" not in given:
        tiny["model"] = "unet_resnet10t"  # the network is not what this recipe is about
    if given.get("init") == "timm":
        tiny["init"] = "random"  # nothing is downloaded here
    assert run(dataclasses.replace(settings, **tiny)).exists()
