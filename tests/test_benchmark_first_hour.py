"""The first hour on a GPU: each part by itself, within its limit, and a second call goes on where the first ended."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parent.parent


@pytest.fixture
def program(import_benchmark):
    return import_benchmark("first_hour")


def test_each_part_is_there(program):
    for part in program.list_parts("photographs", 16).values():
        for word in part.words:
            if word.endswith(".py"):
                assert (ROOT / word).exists(), word
                if word.startswith("tests/"):
                    assert re.search(r"mark.gpu|\bdevice\b", (ROOT / word).read_text()), word


def test_a_part_that_fails_or_hangs_costs_its_own_result_alone(program, tmp_path, monkeypatch):
    flag = tmp_path / "flag"
    write = "import sys, pathlib; pathlib.Path(sys.argv[-1]).write_text('{\"images\": 7}'); print('fast')"
    parts = {
        "good": program.Part("Is it good?", ("-c", write), 1, gives_json=True),
        "hangs": program.Part("Does it end?", ("-c", "import time; print('begun'); time.sleep(60)"), 0.02),
        "crashes": program.Part("Does it live?", ("-c", "import os; os.abort()"), 1),
        "skipped": program.Part("Is there a test?", ("-c", "print('3 skipped in 0.1s')", "pytest"), 1),
        "mended": program.Part("Is it mended?", ("-c", f"import os; assert os.path.exists({str(flag)!r})"), 1),
    }
    monkeypatch.setattr(program, "list_parts", lambda data, threads: parts)
    call = ["--out", str(tmp_path / "out"), "--data", str(tmp_path), "--anyway"]
    assert CliRunner().invoke(program.main, call).exit_code == 1
    results = json.loads((tmp_path / "out/results.json").read_text())["parts"]
    assert {name: done["state"] for name, done in results.items()} == {
        "good": "passed", "hangs": "ended after 0.02 minutes", "crashes": "failed with status -6",
        "skipped": "no test was run", "mended": "failed with status 1",
    }  # fmt: skip
    assert results["good"]["result"] == {"images": 7}
    page = (tmp_path / "out/report.txt").read_text()
    assert "    begun" in page
    assert "AssertionError" in page
    flag.touch()
    again = CliRunner().invoke(program.main, call).output
    assert "good" not in again  # it has passed
    assert "mended: Is it mended?" in again
    assert "2 of 5 parts passed" in again
