"""The benchmark of the data path: it runs on a tiny size, and the DataLoader beside it makes the same."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from options import as_words
from ranges import make_augmentation

from dptmat import synthesize
from dptmat.data.index import ImageIndex
from dptmat.data.sampler import Sampler
from dptmat.pipelines.loader import Loader
from dptmat.pipelines.pretrain import PretrainSource
from dptmat.training.quarantine import Quarantine

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = "pipeline", "official-code recipe", "DataLoader direct", "DataLoader released"


@pytest.mark.exhaustive
def test_tiny_run_on_the_cpu(photographs, tmp_path):
    out, plot = tmp_path / "new" / "rows.json", tmp_path / "new" / "bars.png"
    options = {"data": photographs, "device": "cpu", "batch-size": 16, "size": 96, "threads": 2, "rounds": 1}
    options |= {"seconds": 0.05, "json": out, "plot": plot}
    words = as_words(options)
    words += [word for name in NAMES for word in ("--contender", name)]
    done = subprocess.run([sys.executable, str(BENCHMARKS / "loader.py"), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["versions"]["dali"]
    assert [row["contender"] for row in result["rows"]] == list(NAMES)
    for row in result["rows"]:
        assert len(row["rounds"]) == 1
        assert 0 < row["smallest"] <= row["images_per_second"] <= row["largest"]
        assert 0 < row["waited"] <= 1
        assert 0 < row["start_after_imports_s"] < row["start_s"]
        assert 100 < row["peak_mb"] < 5000
        assert len(row["peak_workers_mb"]) == (2 if "DataLoader" in row["contender"] else 0)
    image = cv2.imread(str(plot))
    colored = (image.max(2).astype(int) - image.min(2) > 100).any(1)
    assert np.count_nonzero(np.diff(colored.astype(int)) == 1) == 2  # of ours; the others are grey


def test_data_that_is_not_there_ends_with_a_line(import_benchmark, tmp_path):
    done = CliRunner().invoke(import_benchmark("loader").main, ["--data", str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "does not exist" in done.output


def test_a_size_that_no_training_has_ends_with_a_line(import_benchmark, photographs):
    done = CliRunner().invoke(import_benchmark("loader").main, ["--data", str(photographs), "--size", "70"])
    assert done.exit_code == 2
    assert "is not a multiple of 32" in done.output


@pytest.fixture
def usual(import_benchmark):
    """Module with the DataLoader that dptmat is measured against."""
    return import_benchmark("usual")


@pytest.fixture
def ours(photographs):
    """Network input, alpha and trimap of all 72 photographs by dptmat."""
    index = ImageIndex.open(photographs)
    sampler = Sampler(0, len(index), len(index))
    loader = Loader(
        PretrainSource(index, sampler, make_augmentation(), 96), sampler,
        micro_batch=len(index), device="cpu", threads=2, prefetch=1,
        quarantine=Quarantine(print),
    )  # fmt: skip
    views = next(loader)
    batch = synthesize(views.views, views.ids, 0, views.color)
    return batch.input, batch.alpha, batch.trimap


def load(usual, photographs, way="usual"):
    """The same by the samples of the DataLoader."""
    samples = usual.Composites(sorted(map(str, photographs.iterdir())), 96, way)
    return [torch.stack(list(map(torch.from_numpy, x))) for x in zip(*(samples[i] for i in range(72)), strict=True)]


# The same photographs on both sides, so closer than in a run. Left: the others' photographs behind them, and hue.
CLOSE = {"shares": 0.01, "unknown": 0.01, "image": 0.2}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["usual", "direct", "albumentations"])
def test_the_dataloader_makes_what_dptmat_does(usual, photographs, ours, way):
    if way == "albumentations":
        pytest.importorskip("albumentations")
    usual.require_alike(usual.describe(*ours), usual.describe(*load(usual, photographs, way)), CLOSE)


@pytest.mark.slow
def test_samples_of_the_released_way_have_its_shares_and_alphas(usual, photographs, ours):
    """The means of 1,500 samples of the released code on other photographs, here of 360."""
    paths = sorted(map(str, photographs.iterdir()))
    runs = [usual.Released(paths, 96, seed) for seed in range(5)]
    image, alpha, trimap = map(
        np.stack, zip(*(samples[i] for samples in runs for i in range(len(samples))), strict=True)
    )
    shares = [(trimap == state).mean() for state in range(3)]
    unknown = [alpha[n][trimap[n] == 1] for n in range(len(alpha))]
    # Three standard errors at 224x224. In views of 96 pixels one half more of the cells lie at the frame.
    assert shares == pytest.approx(usual.RELEASED["shares"], abs=0.02)
    assert np.mean([part.mean() for part in unknown]) == pytest.approx(0.500, abs=0.005)
    assert np.mean([part.std() for part in unknown]) == pytest.approx(0.260, abs=0.006)
    described = usual.describe(*map(torch.from_numpy, (image, alpha, trimap)))
    usual.require_alike(usual.describe(*ours) | usual.RELEASED | {"shapes": described["shapes"]}, described, {
        **usual.RELEASED_TOLERANCES, "image": 0.2,
    })  # fmt: skip


def test_the_released_way_leaves_backgrounds_and_moves_alpha_with_its_foreground(usual, tmp_path):
    """A photograph with one white corner, in front of itself: where the moved frame ends, the background is bare."""
    photo = np.full((60, 120, 3), 90, np.uint8)
    photo[:30, :60] = 255
    cv2.imwrite(str(tmp_path / "a.png"), photo)
    size = 64
    squashed = cv2.resize(photo, (size, size)).astype(np.float32)
    for seed in range(20):
        image, alpha, trimap = usual.Released([str(tmp_path / "a.png")], size, seed)[0]
        shown = ((image[:3] * usual.STD + usual.MEAN) * 255).transpose(1, 2, 0)
        bare = trimap[0] == 0
        assert np.abs(shown - squashed)[bare].max() < 0.01
        assert ((alpha == 0) == (trimap == 0)).all()
        assert ((alpha == 1) == (trimap == 2)).all()


def test_folded_colors_stay_in_range_and_a_shift_is_within_its_limit(usual):
    rng = np.random.default_rng(0)
    view, alpha = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), rng.random((40, 40), np.float32)
    before = cv2.cvtColor(view.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hues = set()
    for _ in range(50):
        changed = usual.change_colors(view, alpha, rng)
        assert changed.min() > -1e-3
        assert changed.max() < 255 + 1e-3
        after = cv2.cvtColor(changed / 255, cv2.COLOR_RGB2HSV)
        for channel in (1, 2):
            limit = (1.1 - before[..., channel].mean()) / 10
            assert np.abs(after - before)[..., channel].max() < 2 * limit + 1e-3
        hues.add(round(float(np.median((after - before)[..., 0] % 360))))
    assert {hue - 360 * (hue > 180) for hue in hues} <= set(range(-40, 40))
    assert len(hues) > 20


WRONG = {
    "shapes": lambda image, alpha, trimap: (image[:, :, 1:], alpha[:, :, 1:], trimap[:, :, 1:]),
    "dtypes": lambda image, alpha, trimap: (image, alpha, trimap.int()),
    "one_hot": lambda image, alpha, trimap: (image, alpha, trimap.flip(0)),
    "known": lambda image, alpha, trimap: (image, alpha * 0.99, trimap),
    "shares": lambda image, alpha, trimap: with_trimap(image, alpha, trimap.clamp(max=1)),
    "unknown": lambda image, alpha, trimap: (image, torch.where(trimap == 1, alpha**2, alpha), trimap),
    "image": lambda image, alpha, trimap: (torch.cat([image[:, :3] * 0.229, image[:, 3:]], 1), alpha, trimap),
}


def with_trimap(image, alpha, trimap):
    one_hot = (trimap == torch.arange(3).view(1, 3, 1, 1)).float()
    return torch.cat([image[:, :3], one_hot], 1), alpha, trimap


@pytest.mark.parametrize("name", WRONG)
def test_other_work_is_refused(usual, ours, name):
    with pytest.raises(ValueError, match=name):
        usual.require_alike(usual.describe(*ours), usual.describe(*WRONG[name](*ours)), CLOSE)


def test_both_warps_show_the_same_part_of_a_photograph(usual):
    photo = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8), (0, 0), 9)
    for seed in range(4):
        matrix = usual.draw_affine(photo.shape, np.random.default_rng(seed))
        views = usual.warp(photo, matrix, 100, np.random.default_rng(seed)), usual.warp_directly(photo, matrix, 100)
        # Half a pixel apart: OpenCV's warp counts from the pixel's centre, its resize from the corner. 10 if unrelated.
        assert np.abs(np.subtract(*views, dtype=int)[20:80, 20:80]).mean() < 3
