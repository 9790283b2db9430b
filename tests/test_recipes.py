"""Every recipe is read, says what was published, differs from the defaults in a few lines, and trains."""

import dataclasses
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import tomli_w
from mattes import shades, soft_disc, write_mattes
from options import as_words

from dptmat.config import settings as config
from dptmat.config.finetune import FinetuneConfig
from dptmat.config.milestones import read_milestones
from dptmat.config.pretrain import PretrainConfig
from dptmat.tasks.finetune import finetune
from dptmat.tasks.pretrain import pretrain

ROOT = Path(__file__).parent.parent / "recipes"
RECIPES = sorted(ROOT.rglob("*.toml"))
NAMES = [str(path.relative_to(ROOT)) for path in RECIPES]
# Those that do not follow the paper, which the defaults are taken from.
OTHER_SOURCES = (
    ROOT / "pretrain/official-code.toml",
    ROOT / "finetune/vitmatte_small.toml",
    ROOT / "finetune/vitmatte_small-1024.toml",
)
# Those of data sets whose folders they name.
OF_DATA_SETS = (ROOT / "finetune/p3m-10k.toml", ROOT / "finetune/am-2k.toml")
NEEDED = {"pretrain": ["data", "out"], "finetune": ["fg", "bg", "init", "out"]}
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
    assert 1 <= len(given) <= 3 or path in (*OTHER_SOURCES, *OF_DATA_SETS)
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


# Composition-1k, SAD and MSE e-3, as the tables of the paper have them.
PUBLISHED = {
    "pretrain/matteformer": [("21.0", "3.1")],
    "finetune/matteformer": [("21.0", "3.1")],
    "finetune/init-supervised": [("23.8", "4.0")],
    "finetune/init-encoder": [("22.1", "3.4")],
    "pretrain/block-alpha": [("21.0", "3.2")],
    "pretrain/no-trimap": [("23.4", "3.7")],
    "pretrain/gca": [("33.0", "8.3")],
    "finetune/gca": [("33.0", "8.3"), ("35.3", "9.1"), ("45.9", "13.0")],
    **dict.fromkeys(
        [f"pretrain/losses-{names}" for names in ("l1", "l1-comp", "l1-lap", "comp-lap")],
        [("21.9", "3.6"), ("22.5", "3.3"), ("22.2", "3.5"), ("21.0", "3.2")],
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_and_the_page_on_training_tell_what_was_published(name):
    text = (ROOT / f"{name}.toml").read_text()
    page = (ROOT.parent / "docs/training.md").read_text()
    assert re.match(r"# Tables? \d", text)
    for sad, mse in PUBLISHED[name]:
        assert re.search(rf"\b{re.escape(sad)}, (?:MSE )?{re.escape(mse)}e-3", text.replace("\n# ", " "))
        assert sad in page
        assert mse in page


def test_vitmatte_is_fine_tuned_as_published():
    """100 times 43,100 samples in batches of 32; 250 steps of warm-up; milestones at epochs 30 and 90."""
    small, large = (
        FinetuneConfig(**config.read_toml(path, "recipe"), fg="x", alpha="x", bg="x", init="timm", out="x")
        for path in OTHER_SOURCES[1:]
    )
    assert (small.size, large.size) == (512, 1024)
    assert dataclasses.replace(large, size=512) == small
    assert small.steps == 100 * 43_100 // 32
    assert round(small.warmup * small.steps) == 250
    assert [round(share * 100) for share, _ in read_milestones(small.milestones)] == [30, 90]
    betas = small.beta1, small.beta2
    assert (small.lr, small.layer_decay, small.weight_decay, *betas) == (5e-4, 0.65, 0.1, 0.9, 0.999)


def lay_out(given, folder):
    """Make the folders that a recipe names, with the validation images that it needs, and cut-outs."""
    for key, name in given.items():
        (folder / name).mkdir(parents=True)
        for i in range(2):
            alpha = soft_disc(90, 100)
            pictures = {"val_alpha": alpha, "val_trimap": np.where(alpha % 255, 128, alpha).astype(np.uint8)}
            if key != "data":
                cv2.imwrite(str(folder / name / f"{i}.png"), pictures.get(key, shades(90, 100, i)))
    for i in range(2):
        cutout = np.dstack([shades(90, 100, i), soft_disc(90, 100)])
        (folder / given["data"] / "train/cutout").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / given["data"] / f"train/cutout/{i}.png"), cutout)


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_trains(path, files, tmp_path, monkeypatch):
    task = path.parent.name
    cls, run = TASKS[task]
    given = config.read_toml(path, "recipe")
    if path in OF_DATA_SETS:
        lay_out(given, tmp_path)
        monkeypatch.chdir(tmp_path)
        files = {task: {}}
    required = {**files[task], "out": str(tmp_path / "run"), **({"init": "random"} if task == "finetune" else {})}
    settings = config.from_mapping(cls, {**required, **given}, str(path))
    tiny = {"size": 64, "batch_size": 2, "steps": 2, "device": "cpu", "sync_bn": False}  # which needs GPUs
    if "model" not in given:
        tiny["model"] = "unet_resnet10t"  # the network is not what this recipe is about
    if given.get("init") == "timm":
        tiny["init"] = "random"  # nothing is downloaded here
    assert run(dataclasses.replace(settings, **tiny)).exists()
