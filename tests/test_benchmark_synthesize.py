"""The benchmark of the fused operator: it runs on a tiny size, and its equality check refuses a wrong result."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SEED = 11
POSITIVE = (
    "median_us",
    "p10_us",
    "p90_us",
    "gb_per_s",
    "copy_gb_per_s",
    "share_of_copy",
    "ms_per_sample",
    "times_dptmat",
)


def run_quick(device, out):
    program = [sys.executable, str(BENCHMARKS / "synthesize.py"), "--device", device, "--quick", "--json", str(out)]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text()), done.stdout


def check_rows(rows, versions):
    assert {(row["version"], row["batch"]) for row in rows} == {(name, batch) for name in versions for batch in (2, 3)}
    for row in rows:
        assert all(row[name] > 0 for name in POSITIVE), row
        assert row["p10_us"] <= row["median_us"] <= row["p90_us"]
        # 3 uint8 and 8 float32 and 1 uint8 per pixel; id, colour matrix and pairing per sample
        assert row["bytes"] == row["batch"] * (30 * 45 * 36 + 8 + 36 + 8)


@pytest.mark.slow
def test_quick_run_on_the_cpu(tmp_path):
    result, table = run_quick("cpu", tmp_path / "new" / "rows.json")
    check_rows(result["rows"], ["dptmat", "out=", "eager", "numpy"])
    assert all(row["threads"] >= 1 and row["timing"] == "clock" for row in result["rows"])
    assert result["skipped"] == []
    assert result["versions"]["torch"] == torch.__version__
    assert result["command"].startswith("python benchmarks/synthesize.py --device cpu --quick")
    assert table.count("\ncpu ") == len(result["rows"])


@pytest.mark.gpu
def test_quick_run_on_the_gpu(tmp_path):
    result, _ = run_quick("cuda", tmp_path / "rows.json")
    check_rows(result["rows"], ["dptmat", "out=", "eager", "compiled"])
    assert all(row["timing"] == "graph" and row["peak_mb"] > 0 for row in result["rows"])


@pytest.fixture
def plain(import_benchmark):
    """Module with the plain versions and the check against them."""
    return import_benchmark("plain")


@pytest.fixture
def batch(plain):
    """Batch of the NumPy version: views, ids, color, and the five outputs."""
    views = torch.randint(0, 256, (3, 30, 45, 3), dtype=torch.uint8)
    ids, color = torch.arange(3) + 2**33, torch.eye(3).repeat(3, 1, 1)
    outputs = plain.numpy_synthesize(views.numpy(), ids.numpy(), SEED, color.numpy())
    return views, ids, color, list(map(torch.from_numpy, outputs))


def check(plain, views, ids, color, outputs):
    plain.check_integers(outputs, ids, SEED)
    return plain.check_floats(outputs, views, color)


def test_right_result_passes(plain, batch):
    assert check(plain, *batch) == 0


WRONG = [  # which output, where, what is added, what the message names
    (3, (2, 0, 29, 44), 1, "trimap differs in 1 of"),
    (1, (0, 0, 0, 0), 1 / 255, "alpha . 255 differs in 1 of"),
    (4, 0, 1, "pairing differs in 1 of 3"),
    (0, (1, 4, 10, 10), 1, "one-hot trimap differs in 1 of"),
    (0, (2, 2, 29, 44), 1e-3, "input is wrong in 1 of"),
    (0, (0, 0, 0, 0), float("nan"), "input is wrong in 1 of"),
    (1, (0, 0, 5, 5), 1e-4, "alpha is wrong in 1 of"),
    (2, (1, 0, 7, 7), 1e-3, "contrast is wrong in 1 of"),
]


@pytest.mark.parametrize(("output", "where", "added", "message"), WRONG)
def test_one_changed_value_is_refused(plain, batch, output, where, added, message):
    views, ids, color, outputs = batch
    outputs[output][where] += added
    with pytest.raises(ValueError, match=message):
        check(plain, views, ids, color, outputs)


def test_changed_view_is_refused(plain, batch):
    views, ids, color, outputs = batch
    views[1, 3, 4, 0] ^= 128
    with pytest.raises(ValueError, match="wrong in"):
        check(plain, views, ids, color, outputs)


def test_plain_draw_has_the_exact_shares(plain):
    trimap, alpha = plain.draw(4, 28, 35, "cpu")
    cells = trimap[:, ::7, ::7]
    assert torch.equal(trimap, cells.repeat_interleave(7, 1).repeat_interleave(7, 2))
    # 4 x 5 cells: 15 unknown, 12.5 % of 20 rounded up to 3 foreground
    assert all(torch.bincount(sample.flatten(), minlength=3).tolist() == [2, 15, 3] for sample in cells)
    assert (alpha[trimap == 0] == 0).all()
    assert (alpha[trimap == 2] == 255).all()
