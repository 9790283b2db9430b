"""The log of a run: JSON lines that any reader takes, one for each report, none twice after a resume."""

import json
import math

import pytest

from dptmat.training.log import RunLog

SCALARS = {"loss": 1.5, "l1": 0.5, "grad_norm": math.inf}


def lines_of(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_report_is_a_line_of_plain_json_and_a_sentence(tmp_path, said):
    log = RunLog(tmp_path, steps=100, batch_size=8, start=0, writes=True)
    log.report(10, SCALARS, 3e-4, waited=0.0, waited_host=0.0)
    log.close()
    (line,) = lines_of(tmp_path)
    assert {"step": 10, "loss": 1.5, "l1": 0.5, "grad_norm": None, "learning_rate": 3e-4}.items() <= line.items()
    assert line["images_per_second"] > 0
    first, last = said().splitlines()
    assert first.startswith("step 10/100  loss 1.5000  lr 3.00e-04  ")
    assert last.startswith("waited for data 0.0% of ")


def test_the_time_of_a_validation_does_not_count_in_the_speed(tmp_path, monkeypatch, said):
    now = [0.0]
    monkeypatch.setattr("dptmat.training.log.time.perf_counter", lambda: now[0])
    log = RunLog(tmp_path, steps=100, batch_size=8, start=0, writes=True)
    scores = {"sad": 40.0, "mse": math.nan, "grad": 1.0, "conn": 2.0, "sad_without_trimap": 300.0}
    now[0] = 90.0
    log.validated(0, scores, seconds=90.0)
    now[0] = 100.0
    log.report(10, SCALARS, 3e-4, waited=1.0, waited_host=0.0)
    log.close()
    validation, report = lines_of(tmp_path)
    assert validation == {"step": 0, "validation": {**scores, "mse": None}}
    assert report["images_per_second"] == pytest.approx(8.0)
    assert report["waited"] == pytest.approx(0.1)
    assert said().startswith(
        "step 0/100  validation: SAD 40.00  MSE nane-3  Grad 1.00  Conn 2.00  without trimaps SAD 300.00 of the whole"
    )


def test_what_is_done_again_is_not_logged_twice(tmp_path):
    """Lines of later steps and a half line go; files that are left out stay named."""
    kept = [{"step": 1, "loss": 2.0}, {"left_out": "a.jpg", "reason": "empty"}, {"step": 2, "validation": {"sad": 3.0}}]
    text = "".join(json.dumps(line) + "\n" for line in [*kept, {"step": 3, "loss": 1.0}])
    (tmp_path / "log.jsonl").write_text(text + '{"step": 4, "lo')
    RunLog(tmp_path, steps=9, batch_size=2, start=2, writes=True).close()
    assert lines_of(tmp_path) == kept


@pytest.mark.parametrize("count", [3, 9])
def test_a_skipped_step_names_eight_of_its_samples(tmp_path, said, count):
    log = RunLog(tmp_path, steps=9, batch_size=2, start=0, writes=True)
    log.skipped(5, list(range(count)))
    assert lines_of(tmp_path) == [{"step": 5, "skipped": list(range(count))}]
    shown = "0, 1, 2" if count == 3 else "0, 1, 2, 3, 4, 5, 6, 7, ..."
    assert said() == f"step 5/9 left out: loss or gradient is not finite; samples {shown}\n"
    assert log.skipped_steps == 1
    log.close()


def test_other_processes_write_and_say_nothing(tmp_path, said):
    log = RunLog(tmp_path, steps=9, batch_size=2, start=0, writes=False)
    log.report(1, SCALARS, 1e-4, 0.0, 0.0)
    log.left_out("a.jpg", "empty")
    log.close()
    assert said() == ""
    assert not list(tmp_path.iterdir())
