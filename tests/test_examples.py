"""The examples run from beginning to end, at small size, and show what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from dptmat.demo import draw_alpha, write_cutouts

EXAMPLES = Path(__file__).parents[1] / "examples"


def tell(folder):
    """Run the story in small: what it says, and when the files that it trained were written."""
    environment = os.environ | {"PRETRAIN_STEPS": "2", "FINETUNE_STEPS": "2"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [EXAMPLES / "story.sh", folder]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=folder.parent)
    return said.stdout, {path: path.stat().st_mtime_ns for path in folder.glob("*/checkpoints/*")}


@pytest.mark.slow
def test_the_story_ends_with_a_page(tmp_path):
    said, trained = tell(tmp_path / "story")
    assert said.endswith(f"open {tmp_path}/story/report.html\n")
    page = (tmp_path / "story/report.html").read_text(encoding="utf-8")
    for shown in ("SAD", "000_0", "005_1", "unet_resnet18"):
        assert shown in page
    assert len(trained) == 2


@pytest.mark.exhaustive
def test_the_story_goes_on_where_it_was(tmp_path):
    first, trained = tell(tmp_path / "story")
    again, still = tell(tmp_path / "story")
    assert still == trained
    scores = re.compile(r"^mean .*$", re.MULTILINE)
    assert scores.findall(first) == scores.findall(again) != []


@pytest.mark.slow
def test_each_cell_of_the_notebook_runs(tmp_path):
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    assert len(notebook.cells) == 10
    assert not any(cell.get("outputs") for cell in notebook.cells)  # pictures of another version's would mislead
    (setting,) = (cell for cell in notebook.cells if "STEPS = " in cell.source)
    setting.source = re.sub(r"(FOLDER, STEPS = .*), \d+", r"\1, 2", setting.source)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/png" in data for data in shown) == 3  # a sample, the loss, and an alpha
    scores = "".join(output.text for output in notebook.cells[8].outputs)
    assert re.fullmatch(r"(sad|mse|grad|conn) +\d+\.\d+\n" * 4, re.sub(r"\b(\w+) +", r"\1 ", scores))


def test_cutouts_have_true_alphas_and_other_seeds_give_others(tmp_path):
    for folder, count, seed in (("a", 4, 0), ("b", 3, 0), ("c", 3, 1)):
        write_cutouts(tmp_path / folder, count, seed)
    for name in ("000", "001", "002"):
        first, same, other = ((tmp_path / folder / f"{name}.png").read_bytes() for folder in "abc")
        assert first == same != other
        alpha = cv2.imread(str(tmp_path / "a" / f"{name}.png"), cv2.IMREAD_UNCHANGED)[..., 3]
        assert (alpha == 0).mean() > 0.3
        assert (alpha == 255).mean() > 0.05 or name == "002"  # which is translucent
        between = (alpha > 0) & (alpha < 255)
        assert between.mean() > 0.05
        assert len(np.unique(alpha)) > 150


def test_strands_are_drawn_finer_than_a_pixel():
    alpha = draw_alpha(np.random.Generator(np.random.Philox(5)), 256, 256)
    corner = alpha[:, :48]  # beyond the body
    assert corner.max() > 0
    assert 0 < np.median(corner[corner > 0]) < 200
