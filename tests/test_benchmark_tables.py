"""The README's tables hold what the benchmarks have measured."""

import json
import shutil
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def tables(import_benchmark):
    return import_benchmark("tables")


def test_the_readme_is_up_to_date(tables):
    """If not: python benchmarks/tables.py."""
    text = tables.README.read_text()
    assert tables.fill(text, BENCHMARKS / "results") == text
    assert text.count("<!-- end -->") == len(list((BENCHMARKS / "results").glob("*.json")))


def test_another_measurement_gives_another_table(tables, tmp_path):
    shutil.copytree(BENCHMARKS / "results", tmp_path / "results")
    path = tmp_path / "results/loader-cpu.json"
    result = json.loads(path.read_text())
    row = next(row for row in result["rows"] if row["contender"] == "pipeline")
    row |= {"images_per_second": 4321.0, "times_dataloader": 8.76}
    path.write_text(json.dumps(result))
    text = tables.fill("before\n<!-- loader-cpu -->\nold\n<!-- end -->\nafter\n", tmp_path / "results")
    assert text.startswith("before\n<!-- loader-cpu -->\n|  | samples/s |")
    assert text.endswith("|\n<!-- end -->\nafter\n")
    assert "| and `synthesize`: **the whole pipeline** | 4,321 |" in text
    assert "| 8.8 |" in text
    assert "old" not in text
