"""The benchmark of a training runs on a tiny size and writes what it measured."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner
from options import as_words

PROGRAM = Path(__file__).parents[1] / "benchmarks/throughput.py"


def run_tiny(photographs, tmp_path, device):
    out, plot = tmp_path / "new" / "rows.json", tmp_path / "new" / "bars.png"
    options = {"data": photographs, "device": device, "model": "unet_resnet18", "batch-size": 2}
    options |= {"size": 64, "rounds": 1, "seconds": 0.01, "json": out, "plot": plot}
    words = [*as_words(options), "--cudnn-benchmark"]
    done = subprocess.run([sys.executable, str(PROGRAM), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    synthesize, step, training = result["rows"]
    assert [row["name"] for row in result["rows"]] == ["synthesize", "step", "training"]
    assert all(0 < row["smallest"] <= row["images_per_second"] <= row["largest"] for row in result["rows"])
    assert synthesize["images_per_second"] * synthesize["ms_per_call"] == pytest.approx(2 * 1000)
    assert step["images_per_second"] * step["ms_per_call"] == pytest.approx(2 * 1000)
    assert step["of_step"] == 1
    assert result["cudnn_benchmark"]
    assert step["waited_host"] is None
    assert 0 < training["waited_host"] < 1
    assert result["peak_mb"] > 100
    assert cv2.imread(str(plot)).shape[1] == 960
    return result, training


@pytest.mark.slow
def test_tiny_run_on_the_cpu(photographs, tmp_path):
    result, training = run_tiny(photographs, tmp_path, "cpu")
    assert training["waited_gpu"] is None
    assert result["gaps"] is None


@pytest.mark.gpu
def test_tiny_run_on_the_gpu(photographs, tmp_path):
    result, training = run_tiny(photographs, tmp_path, "cuda")
    assert 0 <= training["waited_gpu"] < 1
    assert 0 < result["torch_peak_mb"] < result["device_mb"]
    assert 0 < result["gaps"]["busy"] < 1
    assert result["gaps"]["waits"] == 0


@pytest.mark.slow
def test_settings_that_cannot_be_end_with_a_line(photographs, import_benchmark):
    done = CliRunner().invoke(import_benchmark("throughput").main, ["--data", str(photographs), "--size", "100"])
    assert done.exit_code == 2
    assert "--size 100 is not a multiple of 32" in done.output
