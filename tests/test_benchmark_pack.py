"""The benchmark of packing runs on a tiny size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from options import as_words


@pytest.mark.slow
def test_tiny_run(photographs, tmp_path):
    options = {"data": photographs, "size": 64, "batch-size": 8, "rounds": 1, "json": tmp_path / "new" / "rows.json"}
    program = Path(__file__).parents[1] / "benchmarks" / "pack.py"
    done = subprocess.run([sys.executable, str(program), *as_words(options)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "new" / "rows.json").read_text())["rows"]
    assert [row["contender"] for row in rows] == ["usual", "pack", "originals", "copied", "packed"]
    assert all(0 < row["smallest"] <= row["cpu_us"] <= row["largest"] for row in rows)


def test_data_that_is_not_there_ends_with_a_line(import_benchmark, tmp_path):
    done = CliRunner().invoke(import_benchmark("pack").main, ["--data", str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "does not exist" in done.output
