"""The comparison of fine-tunings: it runs on a tiny size, each start once, and does nothing twice."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from mattes import shades, soft_disc, write_mattes
from options import as_words

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

RECIPES = Path(__file__).parents[1] / "recipes/pretrain"


@pytest.fixture
def pays(import_benchmark):
    return import_benchmark("pretraining_pays")


@pytest.fixture
def mattes(tmp_path):
    folder = tmp_path / "mattes"
    write_mattes(folder, [(90, 100)] * 3)
    for kind, image in ("image", shades(90, 100, 1)), ("trimap", np.full((90, 100), 128, np.uint8)):
        (folder / kind).mkdir()
        for i in range(3):
            cv2.imwrite(str(folder / kind / f"{i}.png"), image)
    return folder


def tiny(photographs, mattes, out):
    options = {"photographs": photographs, "mattes": mattes, "test": "1", "out": out, "model": "unet_resnet10t"}
    options |= {f"pretrain-{name}": value for name, value in (("steps", 1), ("batch", 2), ("size", 64))}
    return options | {"steps": 1, "batch": 2, "size": 64, "seeds": 1, "device": "cpu"}


@pytest.mark.slow
def test_tiny_run_on_the_cpu(pays, mattes, photographs, tmp_path, said):
    out = tmp_path / "out"
    words = as_words(tiny(photographs, mattes, out))
    done = CliRunner().invoke(pays.main, words)
    assert done.exit_code == 0, done.output
    assert said().count("step 1/1  loss") == 4
    assert (out / "fg.txt").read_text().split() == [str(mattes / f"fg/{i}.png") for i in (0, 2)]
    pretrained = out / "pretrained/checkpoints/step-000000001.pt"
    starts = {
        "random-0": ("random", "all"),
        "encoder-0": (pretrained, "encoder"),
        "encoder-decoder-0": (pretrained, "all"),
    }
    for folder, (init, load) in starts.items():
        config = (out / folder / "config.toml").read_text()
        assert f'init = "{init}"\nload = "{load}"\n' in config
        assert cv2.imread(str(out / folder / "evaluation/alpha/1.png")).shape == (90, 100, 3)
    rows = json.loads((out / "scores.json").read_text())["rows"]
    assert list(rows) == ["random", "encoder", "encoder + decoder"]
    for row in rows.values():
        assert 0 < row["sad"]["mean"] == row["sad"]["seeds"][0]
        assert f"{row['sad']['mean']:.2f}" in done.output
    # Image and truth are the test's, then three predictions; each at the same height.
    width = round(pays.HEIGHT * 100 / 90)
    image = cv2.imread(str(out / "alphas.png"))
    assert image.shape == (pays.HEAD + pays.HEIGHT, 5 * width, 3)
    truth = cv2.resize(soft_disc(90, 100), (width, pays.HEIGHT), interpolation=cv2.INTER_AREA)
    assert np.array_equal(image[pays.HEAD :, width : 2 * width, 0], truth)

    again = CliRunner().invoke(pays.main, words)
    assert again.exit_code == 0
    assert "step 1/1" not in said()
    assert json.loads((out / "scores.json").read_text())["rows"] == rows


@pytest.mark.exhaustive
def test_ways_of_pre_training_differ_in_what_their_names_say(pays, mattes, photographs, tmp_path, said):
    """The default, the released code's recipe, and three of its settings alone; a pre-training for each seed."""
    out = tmp_path / "out"
    words = as_words(tiny(photographs, mattes, out) | {"compare": "ways", "seeds": 2})
    done = CliRunner().invoke(pays.main, words)
    assert done.exit_code == 0, done.output
    assert said().count("step 1/1  loss") == 2 * (5 + 6)
    ways = ["paper-s-text", "released-code", "alpha-moved", "background-left", "squash"]
    configs = {way: tomllib.loads((out / f"pretrained-{way}-1/config.toml").read_text()) for way in ways}
    paper = configs.pop("paper-s-text")
    differences = {way: {key for key in paper if given[key] != paper[key]} for way, given in configs.items()}
    recipe = tomllib.loads((RECIPES / "official-code.toml").read_text())
    assert differences == {
        "released-code": {"out", *recipe} - {"sync_bn", "amp"},
        "alpha-moved": {"out", "move_alpha"},
        "background-left": {"out", "augment_background"},
        "squash": {"out", "fit"},
    }
    assert all(recipe[key] == configs["released-code"][key] for key in differences["released-code"] - {"out"})
    assert paper["seed"] == configs["squash"]["seed"] == 1
    for way in ways:
        config = tomllib.loads((out / f"{way}-1/config.toml").read_text())
        assert config["init"] == str(out / f"pretrained-{way}-1/checkpoints/step-000000001.pt")
        assert (config["load"], config["seed"]) == ("all", 1)
    rows = json.loads((out / "scores.json").read_text())["rows"]
    assert list(rows) == ["random", "paper's text", "released code", "alpha moved", "background left", "squash"]
    ours, paper = (rows[way]["mse"]["seeds"] for way in ("squash", "paper's text"))
    less = [ours[seed] - paper[seed] for seed in (0, 1)]
    assert rows["squash"]["less_paper"]["mse"]["seeds"] == less
    assert rows["squash"]["less_paper"]["mse"]["sd"] == pytest.approx(abs(less[0] - less[1]) / 2**0.5)
    assert "less_paper" not in rows["paper's text"]
    assert f"{rows['squash']['less_paper']['sad']['mean']:+.2f}" in done.output


def test_cells_differ_in_their_side_alone(pays):
    """A pre-training for each side and seed."""
    asked = []
    starts = dict(pays.list_starts("cells", 1, lambda folder, **ways: asked.append((folder, ways)) or f"{folder}.pt"))
    assert asked == [("pretrained-cell-7-1", {"cell": 7, "seed": 1}), ("pretrained-cell-16-1", {"cell": 16, "seed": 1})]
    assert starts == {
        "random": {"init": "random"},
        "cell 7": {"init": "pretrained-cell-7-1.pt"},
        "cell 16": {"init": "pretrained-cell-16-1.pt"},
    }


def test_an_image_that_is_not_there_is_named(pays, mattes, photographs, tmp_path):
    words = ["--photographs", photographs, "--mattes", mattes, "--out", tmp_path / "out", "--test", "1,GT99"]
    done = CliRunner().invoke(pays.main, list(map(str, words)))
    assert done.exit_code == 2
    assert "--test GT99" in done.output
