"""The first losses of two small trainings, as recorded once: whatever is rebuilt, a run stays the run that it was.

``python tests/test_golden_losses.py`` records them anew, which is right only where results are meant to change.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from mattes import shades, write_mattes
from options import as_words

GOLDEN = Path(__file__).parent / "golden" / "losses.json"
TRAININGS = {
    "pretrain": {"model": "matteformer", "size": 64, "batch_size": 4, "micro_batch": 2, "steps": 4, "lr": 1e-3},
    "finetune": {"model": "unet_resnet10t", "size": 64, "batch_size": 4, "micro_batch": 2, "steps": 6, "lr": 1e-3}
    | {"init": "random", "warmup": 0.2},
}


def train(task, folder):
    """Run one of TRAININGS on one thread, on pictures that no codec changes: what its log says of each step."""
    photographs = folder / "photographs"
    photographs.mkdir()
    for i in range(12):
        noise = np.random.default_rng(i).integers(0, 40, (70 + i, 90 - i, 3)).astype(np.uint8)
        cv2.imwrite(str(photographs / f"{i:02}.png"), shades(70 + i, 90 - i, i) // 2 + noise)
    data = {"data": photographs}
    if task == "finetune":
        fg, alpha = write_mattes(folder / "mattes", [(100, 120), (90, 150), (130, 80)])
        data = {"fg": fg, "alpha": alpha, "bg": photographs}
    options = {**data, **TRAININGS[task], "out": folder / "run", "device": "cpu", "threads": 1, "log_every": 1}
    subprocess.run(
        [sys.executable, "-m", "dptmat", task, *as_words(options)],
        check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    lines = [json.loads(line) for line in (folder / "run/log.jsonl").read_text().splitlines()]
    speed = ("images_per_second", "waited", "waited_host")
    return [{name: value for name, value in line.items() if name not in speed} for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("task", TRAININGS)
def test_the_first_losses_are_those_recorded(task, tmp_path):
    recorded = json.loads(GOLDEN.read_text())[task]
    for now, then in zip(train(task, tmp_path), recorded, strict=True):
        # On the machine of the recording they are equal to the bit. Processors add in different orders, which parts
        # losses by 1e-6 here; another seed, order or formula by more than 1e-2.
        assert now == pytest.approx(then, rel=2e-4)


if __name__ == "__main__":
    losses = {}
    for task in TRAININGS:
        with tempfile.TemporaryDirectory() as folder:
            losses[task] = train(task, Path(folder))
    GOLDEN.write_text(json.dumps(losses, indent=1) + "\n")
