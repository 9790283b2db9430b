"""Publishing keeps each result once, goes on after a failure, and asks the benchmarks only for what they know."""

import json

import pytest
from click.testing import CliRunner


@pytest.fixture
def publish(import_benchmark):
    return import_benchmark("publish")


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_run_is_a_command_that_its_benchmark_takes(publish, import_benchmark, photographs, tmp_path, device):
    runs = publish.list_runs(device, photographs, tmp_path, tmp_path / "work")
    seen = set()
    for program, options in runs.values():
        words = list(publish.as_words(options))
        import_benchmark(program).main.make_context(program, list(words))
        seen.add((program, *words))
    assert len(seen) == len(runs)
    assert {program for program, *_ in seen} >= {"synthesize", "loader", "pretraining_pays"}


def test_all_of_three_networks_two_batches_two_precisions_compiled_or_not(publish, tmp_path):
    names = [name for name in publish.list_runs("cuda", "photos", "mattes", tmp_path) if name.startswith("throughput")]
    assert len(names) == 3 * 2 * 2 * 2
    assert "throughput gca 256 fp16 compiled" in names


@pytest.mark.slow
def test_results_are_kept_once_and_a_failure_stops_nothing(publish, monkeypatch, tmp_path):
    quick = "synthesize", {"device": "cpu", "quick": True}
    runs = {"a": ("loader", {"data": tmp_path / "nothing"}), "b": quick}
    monkeypatch.setattr(publish, "list_runs", lambda *_: runs)
    words = ["--data", "photos", "--mattes", "mattes", "--machine", "here", "--results", tmp_path / "new"]
    done = CliRunner().invoke(publish.main, list(map(str, words)))
    assert done.exit_code == 1
    assert "a failed: Error: --data" in done.output
    assert done.output.endswith("Error: failed: a; the messages above say why\n")
    kept = json.loads((tmp_path / "new/here.json").read_text())
    assert list(kept) == ["b"]
    assert kept["b"]["command"] == "python benchmarks/synthesize.py --device cpu --quick"
    assert kept["b"]["rows"]
    assert kept["b"]["date"]
    log = (tmp_path / "new/here/b.log").read_text()
    assert "synthesize" in log
    assert log in done.output
    assert not (tmp_path / "new/here/a.log").exists()

    runs["a"] = quick
    kept["b"]["rows"] = "as they were"
    (tmp_path / "new/here.json").write_text(json.dumps(kept))
    done = CliRunner().invoke(publish.main, list(map(str, words)))
    assert done.exit_code == 0, done.output
    again = json.loads((tmp_path / "new/here.json").read_text())
    assert again["b"] == kept["b"]
    assert again["a"]["rows"]


def test_runs_that_are_not_there_are_refused(publish, tmp_path):
    words = [
        "--data",
        "photos",
        "--mattes",
        "mattes",
        "--machine",
        "here",
        "--results",
        str(tmp_path),
        "--only",
        "loadr",
    ]
    done = CliRunner().invoke(publish.main, [*words, "--device", "cpu"])
    assert done.exit_code == 2
    assert "no run begins so; there are synthesize, loader, pack" in done.output
