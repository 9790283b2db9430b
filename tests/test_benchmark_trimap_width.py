"""Error against width is measured right: by judges whose errors are known beforehand."""

import json

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from mattes import soft_disc, write_mattes


@pytest.fixture
def program(import_benchmark):
    return import_benchmark("trimap_width")


def test_errors_are_of_unknown_pixels_and_of_all(program):
    alpha = np.array([[0, 0, 51, 255, 255]], np.uint8)
    trimap = np.array([[0, 1, 1, 0, 2]], np.uint8)
    predicted = np.array([[0.9, 0.5, 0.4, 0.9, 0.9]])
    found = program.errors(predicted, alpha, trimap)
    assert found["unknown"] == 40
    assert found["over_unknown"] == pytest.approx(1000 * (0.5 + 0.2) / 2)
    assert found["over_all"] == pytest.approx(1000 * (0.5 + 0.2 + 1) / 5)
    assert found["in_known"] == pytest.approx(1000 * 1 / 5)


def test_who_knows_the_alpha_errs_in_known_pixels_alone(program):
    alpha = soft_disc(240, 320)
    found = program.measure(np.zeros((240, 320, 3), np.uint8), alpha, lambda image, trimap: alpha / 255)
    for (source, _), row in found.items():
        assert row["over_unknown"] == 0
        assert row["over_all"] == row["in_known"]
        assert source == "rough mask" or row["in_known"] == 0
    wrong = [found["rough mask", width]["in_known"] for width in program.WIDTHS]
    assert wrong == sorted(wrong, reverse=True)
    assert wrong[0] > 0
    assert wrong[-1] == 0


def test_a_rough_mask_has_blocks_of_a_hundredth(program):
    mask = program.rough_mask(soft_disc(300, 400))
    assert set(np.unique(mask)) == {0, 255}
    blocks = mask.reshape(75, 4, 100, 4)
    assert (blocks == blocks[:, :1, :, :1]).all()


def test_a_table_and_a_plot(program, tmp_path, monkeypatch):
    fg, _ = write_mattes(tmp_path, [(240, 320), (80, 60), (240, 240)])
    fg.rename(tmp_path / "image")
    monkeypatch.setattr(program, "closed_form", lambda image, trimap: np.full(trimap.shape, 0.5))
    path = tmp_path / "result.json"
    words = ["--data", str(tmp_path), "--side", "220", "--without", "1", "--json", str(path)]
    done = CliRunner().invoke(program.main, words)
    assert done.exit_code == 0, done.output
    result = json.loads(path.read_text())
    assert [(row["source"], row["width"]) for row in result["rows"]] == [
        (source, width) for source in ("true alpha", "rough mask") for width in program.WIDTHS
    ]
    assert len(program.table(result["rows"])) == 1 + 2 * len(program.WIDTHS)
    program.draw(tmp_path / "plot.png", result["title"], result["rows"])
    assert cv2.imread(str(tmp_path / "plot.png")).shape[1] > 600
