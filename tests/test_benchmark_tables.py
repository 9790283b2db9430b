"""The documentation's tables hold what the benchmarks have measured."""

import json
import re
import shutil
from pathlib import Path

import cv2
import pytest

RESULTS = Path(__file__).parents[1] / "benchmarks/results"


@pytest.fixture
def tables(import_benchmark):
    return import_benchmark("tables")


def test_the_pages_are_up_to_date(tables):
    """If not: python benchmarks/tables.py."""
    for page in tables.PAGES:
        text = page.read_text()
        assert tables.fill(text, RESULTS) == text


def test_each_result_is_shown_and_has_its_log(tables):
    text = "".join(page.read_text() for page in tables.PAGES)
    shown = re.findall(r"<!-- (\S+) ([^>]+) -->", text)
    for path in RESULTS.glob("*.json"):
        for name in json.loads(path.read_text()):
            of_many = [table for table, (prefix, _) in tables.OF_MANY.items() if name.startswith(prefix)]
            assert any((path.stem, table) in shown for table in (name, *of_many)), (path, name)
            assert (RESULTS / path.stem / f"{name.replace(' ', '-')}.log").stat().st_size


def test_differences_to_the_papers_text_are_those_that_the_documentation_tells(tables):
    """In docs/training.md, beside what the released code does otherwise."""
    text = (tables.README.parent / "docs/training.md").read_text()
    rows = json.loads((RESULTS / "cpu.json").read_text())["pretraining_pays unet_resnet18 ways"]["rows"]
    for way in ("released code", "alpha moved", "background left", "squash"):
        assert tables.write_difference(rows[way]) in text, way


def test_ways_of_pre_training_have_a_column_more(tables):
    score = {"mean": 20.04, "sd": 1.26, "seeds": []}
    row = dict.fromkeys(("sad", "mse", "grad", "conn"), score)
    less = {"less_paper": {"sad": {"mean": -1.04, "sd": 0.51}}}
    result = {"compare": "ways", "rows": {"paper's text": row, "squash": row | less}}
    head, paper, squash = tables.make_table({"pretraining_pays x": result}, "pretraining_pays x")
    assert head[-1] == "SAD, less the paper's"
    assert paper == ("paper's text", "20.0 ± 1.3", "20040.0 ± 1260.0", "20.0 ± 1.3", "20.0 ± 1.3", "")
    assert squash[-1] == "-1.0 ± 0.5"
    _, without = tables.make_table({"pretraining_pays x": {"rows": {"random": row}}}, "pretraining_pays x")
    assert without == ("random", *paper[1:-1])


def test_another_measurement_gives_another_table(tables, tmp_path):
    shutil.copytree(RESULTS, tmp_path / "results")
    path = tmp_path / "results/cpu.json"
    results = json.loads(path.read_text())
    row = next(row for row in results["loader"]["rows"] if row["contender"] == "pipeline")
    row |= {"images_per_second": 4321.0, "times_dataloader": 8.76}
    path.write_text(json.dumps(results))
    text = tables.fill("before\n<!-- cpu loader -->\nold\n<!-- end -->\nafter\n", tmp_path / "results")
    assert text.startswith("before\n<!-- cpu loader -->\n|  | samples/s |")
    assert text.endswith("|\n<!-- end -->\nafter\n")
    assert "| and `synthesize`: **the whole pipeline** | 4,321 |" in text
    assert "| 8.8 |" in text
    assert "old" not in text


def test_stages_are_drawn(tables, tmp_path):
    shutil.copy(RESULTS / "cpu.json", tmp_path / "other.json")
    tables.draw_loaders(tmp_path)
    assert cv2.imread(str(tmp_path / "loader-other.png")).shape[1] == 960


def test_widths_of_trimaps_are_drawn(tables, tmp_path):
    results = json.loads((RESULTS / "cpu.json").read_text())
    tables.draw_widths(results, tmp_path)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == ["trimap-width-closed-form.png", "trimap-width-network.png"]
    assert all((tables.DOCS / "images" / name).exists() for name in drawn)


def test_a_gpus_training_and_options(tables):
    training = {"name": "training", "images_per_second": 2345.6, "of_step": 0.9912, "waited_host": 0.3}
    gpu = {
        "rows": [{"name": "step"}, {**training, "waited_gpu": 0.0034}],
        "gaps": {"long_gaps": 1.25},
        "device_mb": 12_345.6,
    }
    cpu = {"rows": [{**training, "waited_gpu": None}], "gaps": None}
    results = {"loader": {}, "throughput gca 64 bf16": gpu, "throughput gca 64 off": cpu}
    assert tables.make_table(results, "throughput")[1:] == [
        ("gca 64 bf16", "2,346", "99.1%", "0.34%", "1.2", "12.3"),
        ("gca 64 off", "2,346", "99.1%", "30.00%", "-", "-"),
    ]
    rows = [{"contender": name, "images_per_second": speed} for name, speed in (("decode", 9876.5), ("pipeline", 9000))]
    results |= {"loader hw 0.5": {"rows": rows}}
    assert tables.make_table(results, "loader options")[1:] == [("hw 0.5", "9,876", "9,000")]


def test_microseconds_on_a_gpu(tables):
    row = {"device": "cuda", "height": 224, "dtype": "float32", "layout": "NCHW", "threads": None, "batch": 512}
    ours = {**row, "version": "dptmat", "ms_per_sample": 0.00049, "share_of_copy": 0.87, "times_dptmat": 1.0}
    eager = {**row, "version": "eager", "ms_per_sample": 0.01225, "share_of_copy": 0.035, "times_dptmat": 25.0}
    small = {**ours, "batch": 8, "ms_per_sample": 0.1}
    head, *lines = tables.make_table({"synthesize": {"rows": [small, eager, ours]}}, "synthesize")
    assert head[1] == "µs per sample"
    assert lines == [
        ("`synthesize`", "0.49", "87%", ""),
        ("PyTorch, eager", "12.25", "4%", "25.0 times `synthesize`"),
    ]
