"""The benchmark of the networks runs on a tiny size and writes what it measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "benchmarks/models.py"


@pytest.mark.exhaustive
def test_tiny_run_on_the_cpu(tmp_path):
    out = tmp_path / "new" / "rows.json"
    size = "--model", "unet_resnet18", "--batch", "2", "--size", "64", "--repeats", "3"
    variants = "--variant", "float32 channels_last", "--variant", "bfloat16"
    command = [sys.executable, str(PROGRAM), "--device", "cpu", *size, *variants, "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [row["variant"] for row in rows] == ["float32 channels_last", "bfloat16"]
    for row in rows:
        assert row["forward_ms"] > 0
        assert row["step_ms"] > 0
        assert row["images_per_s"] * row["step_ms"] == pytest.approx(2000)
        assert row["share_of_peak"] > 0
