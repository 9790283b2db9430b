"""The comparison of fine-tunings: it runs on a tiny size, each start once, and does nothing twice."""

import json

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from mattes import shades, soft_disc, write_mattes
from options import as_words


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


@pytest.mark.slow
def test_tiny_run_on_the_cpu(pays, mattes, photographs, tmp_path, said):
    out = tmp_path / "out"
    options = {"photographs": photographs, "mattes": mattes, "test": "1", "out": out, "model": "unet_resnet10t"}
    options |= {f"pretrain-{name}": value for name, value in (("steps", 1), ("batch", 2), ("size", 64))}
    options |= {"steps": 1, "batch": 2, "size": 64, "seeds": 1, "device": "cpu"}
    words = as_words(options)
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


def test_an_image_that_is_not_there_is_named(pays, mattes, photographs, tmp_path):
    words = ["--photographs", photographs, "--mattes", mattes, "--out", tmp_path / "out", "--test", "1,GT99"]
    done = CliRunner().invoke(pays.main, list(map(str, words)))
    assert done.exit_code == 2
    assert "--test GT99" in done.output
